"""What check.json holds: the findings, the numbers of each contrast, and what they were made with; no times."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from utils.common.provenance import text_hash, versions
from utils.experiment.checks.all import Checked
from utils.experiment.checks.findings import COLUMNS, counts, ordered
from utils.experiment.experiment import Experiment
from utils.settings.reader import resolved_ini
from utils.settings.schema import EVALUATION_SECTIONS, TRAINING_SECTIONS


def check_record(experiment: Experiment, checked: Checked) -> dict[str, Any]:
    """The same for the same inputs on the same machine."""
    settings = "\n".join(
        resolved_ini(experiment.settings, sections)
        for sections in (TRAINING_SECTIONS, EVALUATION_SECTIONS)
    )
    return {
        "experiment": experiment.settings.name,
        "holds": "subject ids: keep it inside",
        "versions": versions(),
        "settings_sha256": text_hash(settings),
        "counts": counts(checked.findings),
        "n_subjects": len(checked.subjects),
        "n_headers_looked_at": checked.n_headers,
        "contents": {name: found.to_dict() for name, found in checked.contents.items()},
        "findings": [_row(asdict(finding)) for finding in ordered(checked.findings)],
    }


def _row(finding: dict[str, Any]) -> dict[str, Any]:
    row = {name: finding[name] for name in COLUMNS}
    return {**row, "n": finding["n"]} if finding["n"] > 1 else row
