"""Reading back what earlier steps of the experiment wrote."""

from __future__ import annotations

from typing import Any

import pandas as pd

from utils.common.files import read_json
from utils.common.tables import read_table
from utils.experiment.experiment import Cell, Experiment

PERSON_SPLITS = ("validation", "test")


def read_predictions(experiment: Experiment, cell: Cell, split: str) -> pd.DataFrame | None:
    """predictions_<split>.csv of a cell; None where it was not made."""
    path = experiment.cell_paths(cell).predictions(split)
    return read_table(path) if path.is_file() else None


def read_metrics(experiment: Experiment, cell: Cell, split: str) -> dict[str, Any] | None:
    """metrics_<split>.json of a cell; None where it was not made."""
    path = experiment.cell_paths(cell).metrics(split)
    return read_json(path) if path.is_file() else None


def read_deltas(experiment: Experiment) -> pd.DataFrame | None:
    """The deltas of all splits, with a column split; None where there are none."""
    parts = [
        read_table(experiment.paths.deltas(split)).assign(split=split)
        for split in PERSON_SPLITS
        if experiment.paths.deltas(split).is_file()
    ]
    return pd.concat(parts, ignore_index=True) if parts else None


def read_history(experiment: Experiment) -> pd.DataFrame | None:
    """The histories of all networks with contrast, sex and network; None where there are none."""
    parts = []
    for cell in experiment.grid:
        for paths in experiment.cell_paths(cell).networks():
            if paths.history.is_file():
                number = int(paths.folder.name.removeprefix("network_"))
                where = {"contrast": cell.contrast.name, "sex": cell.sex, "network": number}
                parts.append(read_table(paths.history).assign(**where))
    return pd.concat(parts, ignore_index=True) if parts else None
