"""Whether what the ini pair names exists and fits together: contrasts, folders, tables, age bins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from utils.common.errors import UserError
from utils.experiment.checks.findings import Finding
from utils.experiment.experiment import Experiment


@dataclass(frozen=True)
class CheckedSettings:
    """What was found, and how far the rest of the check can go."""

    findings: list[Finding]
    has_cells: bool  # the contrasts are known
    can_find_volumes: bool  # and so are the paths of their volumes


def check_settings(experiment: Experiment) -> CheckedSettings:
    """The contrast table and the grid, the template of paths, the folder of subjects, the tables of phenotypes."""
    try:
        cells = experiment.cells
    except UserError as error:
        return CheckedSettings([_error(error), *_tables(experiment)], False, False)
    findings = []
    for contrast in {cell.contrast.name: cell.contrast for cell in cells}.values():
        try:
            experiment.volume_path(contrast, "id")
        except UserError as error:
            findings.append(_error(error, contrast.name))
    findings += _folders(experiment)
    return CheckedSettings([*findings, *_tables(experiment)], True, not findings)


def _folders(experiment: Experiment) -> list[Finding]:
    settings = experiment.settings
    places = (
        ("[DATA] data_directory", settings.data.data_directory),
        ("[MAPPING] data_directory", settings.mapping.data_directory),
    )
    return [
        Finding(
            "error", "settings", f"{name}: {settings.path(text)} is no folder", "Correct the path"
        )
        for name, text in places
        if text and not settings.path(text).is_dir()
    ]


def _tables(experiment: Experiment) -> list[Finding]:
    """Tables that are only read after the training; a missing one would be noticed days later."""
    association = experiment.settings.association
    findings = []
    for name in ("nidps", "dictionary", "confounds", "predictions"):
        text = getattr(association, name)
        path: Path = experiment.settings.path(text)
        if text and not path.is_file():
            findings.append(
                Finding(
                    "error", "settings", f"[ASSOCIATION] {name}: {path} does not exist",
                    "It is needed after training; correct the path or leave the key empty",
                )
            )  # fmt: skip
    return findings


def check_age_bins(experiment: Experiment, subjects: pd.DataFrame) -> list[Finding]:
    """`loss_function = kl`: ages outside the bins end the training."""
    if experiment.settings.training.loss_function != "kl":
        return []
    first, last = experiment.settings.network.age_bins
    ages = subjects.loc[subjects["split"].isin(("train", "validation")), "age_years"]
    ages = np.asarray(ages.dropna(), dtype=np.float64)
    outside = ages[(ages < first) | (ages > last)]
    if not len(outside):
        return []
    return [
        Finding(
            "error", "settings",
            f"[NETWORK] age_bins = ({first:g}, {last:g}): {len(outside)} of {len(ages)} ages lie outside",
            f"Widen them to hold {ages.min():.1f} to {ages.max():.1f}",
        )
    ]  # fmt: skip


def _error(error: UserError, contrast: str = "") -> Finding:
    return Finding("error", "settings", str(error).rstrip("."), contrast=contrast)
