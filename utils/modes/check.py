"""-m check: before any epoch, everything that is wrong with the inputs, in one table and on one page."""

from __future__ import annotations

import sys

from figures.check_page import write_check_page
from utils.common.errors import SettingsError
from utils.common.files import write_json
from utils.common.messages import say
from utils.experiment.checks.all import Checked, check_all
from utils.experiment.checks.findings import ordered, subjects_in_error, text_table
from utils.experiment.checks.pictures import check_page
from utils.experiment.checks.record import check_record
from utils.experiment.experiment import Experiment


def run(experiment: Experiment) -> None:
    """Look at everything, print the findings, write check.json and check.html, and say how bad it is.

    Exit 2 where the run is impossible as it is set, 3 where subjects would be left out, 0 otherwise.
    """
    checked = check_all(experiment)
    write_outputs(experiment, checked)
    stopping = [finding.sentence for finding in ordered(checked.findings) if finding.stops]
    if stopping:
        raise SettingsError(stopping)
    # they stand in the table already; the run ends as one with problems does
    experiment.problems += subjects_in_error(checked.findings)


def write_outputs(experiment: Experiment, checked: Checked) -> None:
    """The table on standard output; the record and the page, which stay inside, beside the results."""
    paths = experiment.paths
    sys.stdout.write(text_table(checked.findings))
    write_json(check_record(experiment, checked), paths.check_record)
    write_check_page(check_page(experiment, checked), paths.check_page)
    size_mb = paths.check_page.stat().st_size / 1e6
    say(f"findings: {paths.check_record}")
    say(f"pictures ({size_mb:.1f} MB, of individuals: keep them inside): {paths.check_page}")
