"""All parts of the check, one after the other, each as far as the ones before it allow."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pandas as pd

from datasets.subjects import COLUMNS
from utils.common.messages import say
from utils.experiment.checks.album import Album
from utils.experiment.checks.contents import ContentsOfContrast, check_contents
from utils.experiment.checks.findings import Finding
from utils.experiment.checks.images import header_findings, read_headers, spread, volumes_of
from utils.experiment.checks.lists import check_lists, is_for_prediction
from utils.experiment.checks.machine import check_machine
from utils.experiment.checks.opening import Volume
from utils.experiment.checks.options import check_age_bins, check_settings
from utils.experiment.experiment import Cell, Experiment


@dataclass
class Checked:
    """What was found, and what was looked at."""

    album: Album
    findings: list[Finding] = field(default_factory=list)
    subjects: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COLUMNS))
    contents: dict[str, ContentsOfContrast] = field(default_factory=dict)
    n_headers: int = 0


def check_all(experiment: Experiment) -> Checked:
    """Settings, lists, files and headers of every volume, contents of a sample, machine."""
    settings = check_settings(experiment)
    checked = Checked(Album(experiment.settings.data.conform), settings.findings)
    lists = check_lists(experiment)
    checked.subjects = lists.subjects
    checked.findings += lists.findings
    checked.findings += check_age_bins(experiment, lists.subjects)
    if settings.can_find_volumes:
        _check_volumes(experiment, checked)
    if settings.has_cells:
        training = not is_for_prediction(experiment)
        checked.findings += check_machine(experiment, lists.subjects, training)
    return checked


def _check_volumes(experiment: Experiment, checked: Checked) -> None:
    """Contrasts that live in the same files together, so that each file is opened once."""
    for cells in _of_the_same_files(experiment):
        _check_cells(experiment, cells, checked)


def _of_the_same_files(experiment: Experiment) -> list[list[Cell]]:
    found: dict[Path, list[Cell]] = {}
    for cell in experiment.cells:
        found.setdefault(experiment.volume_path(cell.contrast, "id"), []).append(cell)
    return list(found.values())


def _check_cells(experiment: Experiment, cells: list[Cell], checked: Checked) -> None:
    conform, check = experiment.settings.data.conform, experiment.settings.check
    contrasts = list({cell.contrast.name: cell.contrast for cell in cells}.values())
    more = f" and {len(contrasts) - 1} more" if len(contrasts) > 1 else ""
    named = f"{contrasts[0].name}{more}"
    volumes = [volumes_of(experiment, cell, checked.subjects) for cell in cells]
    headers = iter(read_headers([each for here in volumes for each in here], conform, named))
    chosen: list[Volume] = []
    for cell, here in zip(cells, volumes):
        read = list(islice(headers, len(here)))
        checked.n_headers += len(read)
        checked.findings += header_findings(cell, read, conform, whole=True)
        usable = [each.volume for each in read if each.problem is None]
        chosen += spread(usable, check.volumes)
        say(f"{cell.name}: {len(usable)} of {len(read)} headers can be used")
    found = check_contents(contrasts, chosen, check.outlier_z, checked.album, named)
    checked.contents.update(found)
    checked.findings += [finding for each in found.values() for finding in each.findings]
