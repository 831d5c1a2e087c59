"""-m convert: files of weights that are whole pickled modules -> tensors alone, without running anything."""

from __future__ import annotations

from pathlib import Path

from BrainAgeNetworks.conversion import (
    convert,
    converted_stem,
    harmful_globals,
    unusual_globals,
)
from utils.common.errors import UserError
from utils.common.messages import say, warn
from utils.common.text import listed, shown
from utils.experiment.experiment import Experiment
from utils.experiment.pretraining import pre_trained_paths


def run(experiment: Experiment) -> None:
    """Convert every file of [TRAINING] use_pre_trained into the experiment's folder `converted`."""
    sources = pre_trained_paths(experiment)
    by_stem: dict[str, Path] = {}
    for source in sources:
        other = by_stem.setdefault(converted_stem(source), source)
        if other != source:
            raise UserError(
                f"{source} and {other} would both become {converted_stem(source)}.safetensors; rename one."
            )
    n_failed = 0
    for source in sources:
        try:
            convert_one(source, experiment.paths.converted)
        except UserError as error:
            if len(sources) == 1:
                raise
            experiment.problem(f"not converted: {error}")
            n_failed += 1
    if n_failed == len(sources):
        raise UserError("no file could be converted; the reasons stand above.")
    say(
        "next: set [TRAINING] use_pre_trained to the converted file; its .json must stay beside it."
    )


def convert_one(source: Path, folder: Path) -> None:
    """Convert a file, and say what was in it."""
    target, record = convert(source, folder)
    names = record["globals_met"]
    say(f"{source}: {record['n_tensors']} tensors, {record['n_values']} values -> {target}")
    say(f"  it names {len(names)} globals, none of which was called or imported: {_listed(names)}")
    if record["left_out"]:
        warn(f"{source}: left out, since they are no weights: {listed(record['left_out'])}.")
    harmful = harmful_globals(names)
    if harmful:
        warn(
            f"{source}: names {_listed(harmful)}, which run commands or code, or reach for files or the net: it "
            "may be meant to do harm. Nothing of it was run; ask where it comes from."
        )
    unusual = unusual_globals(names)
    if unusual:
        warn(
            f"{source}: a network's weights do not need {_listed(unusual)}; they are classes of the program "
            "that wrote it, or something that must not be run."
        )


def _listed(names: list[str]) -> str:
    """All of them: whoever converts a file wants to see what is in it."""
    return ", ".join(shown(name, 100) for name in names)
