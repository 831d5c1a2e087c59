"""All parts of the check, one after the other, each as far as the ones before it allow."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from datasets.subjects import COLUMNS
from utils.common.messages import say
from utils.experiment.checks.contents import ContentsOfContrast, check_contents
from utils.experiment.checks.findings import Finding
from utils.experiment.checks.images import Volume, header_findings, read_headers, spread, volumes_of
from utils.experiment.checks.lists import check_lists, is_for_prediction
from utils.experiment.checks.machine import check_machine
from utils.experiment.checks.options import check_age_bins, check_settings
from utils.experiment.experiment import Experiment


@dataclass
class Checked:
    """What was found, and what was looked at."""

    findings: list[Finding] = field(default_factory=list)
    subjects: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COLUMNS))
    contents: dict[str, ContentsOfContrast] = field(default_factory=dict)
    n_headers: int = 0


def check_all(experiment: Experiment) -> Checked:
    """Settings, lists, files and headers of every volume, contents of a sample, machine."""
    settings = check_settings(experiment)
    checked = Checked(settings.findings)
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
    conform, check = experiment.settings.data.conform, experiment.settings.check
    chosen: dict[str, list[Volume]] = {}
    for cell in experiment.cells:
        headers = read_headers(volumes_of(experiment, cell, checked.subjects), conform, cell.name)
        checked.n_headers += len(headers)
        checked.findings += header_findings(cell, headers, conform, whole=True)
        usable = [read.volume for read in headers if read.problem is None]
        chosen.setdefault(cell.contrast.name, []).extend(spread(usable, check.volumes))
        say(f"{cell.name}: {len(usable)} of {len(headers)} headers can be used")
    for cell in experiment.cells:
        name = cell.contrast.name
        if name not in checked.contents:
            found = check_contents(cell.contrast, chosen[name], conform, check.outlier_z)
            checked.contents[name] = found
            checked.findings += found.findings
