"""-m report: the self-contained page, the settings beside it, and the results as a table."""

from __future__ import annotations

import sys

from figures.report import write_report
from utils.common.files import write_json, write_text
from utils.common.messages import say
from utils.experiment.description import provenance, study_tables
from utils.experiment.experiment import Experiment
from utils.experiment.result_table import planted_counts, result_table
from utils.settings.reader import resolved_ini
from utils.settings.schema import EVALUATION_SECTIONS, TRAINING_SECTIONS


def run(experiment: Experiment) -> None:
    """Write summary/report.html; print the table of cells (standard output) and where the page is."""
    paths = experiment.paths
    tables = study_tables(experiment)
    for path, sections in zip(paths.summary_settings, (TRAINING_SECTIONS, EVALUATION_SECTIONS)):
        write_text(resolved_ini(experiment.settings, sections), path)
    write_json(provenance(experiment), paths.provenance)
    write_report(tables, paths.report, experiment.individual_level)
    if tables.metrics is not None:
        table = result_table(experiment, tables.metrics, tables.deltas)
        sys.stdout.write(table.to_string(index=False, na_rep="") + "\n")
    for sentence in planted_counts(experiment, tables.associations):
        sys.stdout.write(sentence + "\n")
    size_mb = paths.report.stat().st_size / 1e6
    say(f"report ({size_mb:.1f} MB): {paths.report}")
