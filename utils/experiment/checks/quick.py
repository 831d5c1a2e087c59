"""The quick part of the check, which training does by itself: lists, a few headers a cell, the machine."""

from __future__ import annotations

from utils.common.errors import UserError
from utils.common.messages import warn
from utils.experiment.checks.findings import Finding, n_of
from utils.experiment.checks.images import (
    header_findings,
    quick_number,
    read_headers,
    spread,
    volumes_of,
)
from utils.experiment.checks.lists import check_lists
from utils.experiment.checks.machine import check_machine_quickly
from utils.experiment.experiment import Experiment

SPLITS = ("train", "validation")


def quick_check(experiment: Experiment) -> None:
    """Stop what cannot go well, and warn of what may not, in about a second and a bounded number of files.

    What training itself says of single subjects, and of a cell that cannot be trained, is left to it.

    Raises
    ------
    UserError
        The lists cannot be used, or no volume that was looked at can.
    """
    _refuse_lists(experiment)
    findings = [*_headers(experiment), *check_machine_quickly(experiment)]
    for finding in findings:
        if finding.level == "warning":
            warn(finding.sentence)
    _warn_of_volumes([finding for finding in findings if finding.level == "error"])


def _warn_of_volumes(errors: list[Finding]) -> None:
    """One line for single volumes, one for whole sets; training names them when it comes to them."""
    n_left_out = n_of([finding for finding in errors if finding.subject_id], "error")
    if n_left_out:
        warn(f"{n_left_out} of the volumes looked at cannot be used; -m check names them all.")
    sets = [finding.reason for finding in errors if finding.stops and finding.part != "settings"]
    if sets:
        more = f" ({len(sets) - 1} more such set(s))" if len(sets) > 1 else ""
        warn(f"{sets[0]}{more}.")


def _refuse_lists(experiment: Experiment) -> None:
    """The sentence that reading the lists gives, and how many more problems there are."""
    try:
        experiment.subjects  # noqa: B018
    except UserError as error:
        n_more = sum(finding.stops for finding in check_lists(experiment).findings) - 1
        if n_more > 0:
            said = (
                f"{error} The lists have {n_more} more problem(s) of this kind; -m check names all."
            )
            raise UserError(said) from error
        raise


def _headers(experiment: Experiment) -> list[Finding]:
    """A few headers of each cell; that none of any cell can be used ends the run."""
    conform, n = experiment.settings.data.conform, quick_number(experiment.cells)
    subjects = experiment.subjects
    findings: list[Finding] = []
    n_usable = n_looked = 0
    for cell in experiment.cells:
        # what training reads; prepared or not, each needs its file
        volumes = [v for v in volumes_of(experiment, cell, subjects) if not v.is_for_test_alone]
        for split in SPLITS:
            headers = read_headers(
                spread([volume for volume in volumes if volume.split == split], n),
                conform,
                cell.name,
            )
            n_looked += len(headers)
            n_usable += sum(read.problem is None for read in headers)
            found = header_findings(cell, headers, conform, whole=False)
            findings += [finding for finding in found if finding.level != "note"]
    if n_looked and not n_usable:
        first = next(finding for finding in findings if finding.stops)
        raise UserError(f"no training volume that was looked at can be used. {first.sentence}")
    return findings
