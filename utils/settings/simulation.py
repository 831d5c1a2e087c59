"""The section [SIMULATION]: the numbers of `CohortSpecification`, key by key, and the folder.

The cohort's specification explains its numbers itself; they are read from there, so that the simulation
and its settings cannot differ.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing

from pydantic import Field, create_model

from datasets.simulation.specification import CohortSpecification


def parameter_descriptions(documented: type) -> dict[str, str]:
    """Parameter -> its sentence, from a numpydoc `Parameters` section ("a, b : type" shares one)."""
    text = inspect.getdoc(documented) or ""
    section = text.partition("Parameters\n----------\n")[2].split("\n\n")[0]
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        head = re.fullmatch(r"([a-z_0-9, ]+) : .+", line)
        if head:
            names = [name.strip() for name in head.group(1).split(",")]
        else:
            for name in names:
                found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return found


def simulation_section(base: type) -> type:
    """The section's model: `folder` and one key a field of the specification."""
    types = typing.get_type_hints(CohortSpecification)
    descriptions = parameter_descriptions(CohortSpecification)
    keys: dict[str, typing.Any] = {
        "folder": (str, Field("simulated/cohort", description="Folder of the cohort.")),
    }
    for field in dataclasses.fields(CohortSpecification):
        keys[field.name] = (
            types[field.name],
            Field(field.default, description=descriptions[field.name]),
        )
    model: type = create_model("SimulationSettings", __base__=base, **keys)
    model.__doc__ = "`-m simulate`: a cohort with known truth. Its numbers, and what they mean:"
    return model
