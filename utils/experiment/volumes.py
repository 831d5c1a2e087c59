"""The volumes of a cell's subjects, ready for training or prediction; prepared ones where there are any."""

from __future__ import annotations

import numpy as np
import pandas as pd

from datasets.loaders import CellVolumes
from datasets.volumes import VolumeError, VolumeReader, auto_scale_factor
from utils.common.errors import UserError
from utils.common.tables import write_table
from utils.experiment.caches import cache_for
from utils.experiment.experiment import Cell, Experiment

# `scale_factor = auto` looks at so many training volumes, evenly spread over the list.
N_VOLUMES_FOR_SCALE = 50


def cell_volumes(
    experiment: Experiment,
    cell: Cell,
    subjects: pd.DataFrame,
    scale_factor: float,
    data_directory: str = "",
) -> CellVolumes:
    """The volumes of these subjects, read with this scale factor."""
    ids = subjects["subject_id"].tolist()
    paths = [experiment.volume_path(cell.contrast, i, data_directory) for i in ids]
    conform = experiment.settings.data.conform
    cache = cache_for(experiment, cell.contrast, paths)
    return CellVolumes(
        subject_ids=ids,
        paths=paths,
        ages_years=np.array(subjects["age_years"], dtype=np.float64),
        reader=VolumeReader(cell.contrast, scale_factor, conform, cache),
    )


def scale_factor_of(experiment: Experiment, cell: Cell, training_subjects: pd.DataFrame) -> float:
    """The table's scale factor; for `auto`, one worked out on the training set."""
    if cell.contrast.scale_factor is not None:
        return cell.contrast.scale_factor
    ids = training_subjects["subject_id"].tolist()
    chosen = np.unique(np.linspace(0, len(ids) - 1, min(len(ids), N_VOLUMES_FOR_SCALE)).astype(int))
    paths = [experiment.volume_path(cell.contrast, ids[i]) for i in chosen]
    cache = cache_for(experiment, cell.contrast, paths)
    try:
        return auto_scale_factor(paths, cell.contrast, experiment.settings.data.conform, cache)
    except VolumeError as error:
        raise UserError(
            f"{cell.name}: {error}; the first file looked for is {paths[0]}."
        ) from error


def report_failures(experiment: Experiment, cell: Cell, split: str, volumes: CellVolumes) -> None:
    """Name every subject whose volume could not be used, with its file and the reason."""
    for position, reason in sorted(volumes.failures.items()):
        experiment.problem(
            f"{cell.name} {split}: subject {volumes.subject_ids[position]} is left out: "
            f"{volumes.paths[position]} {reason}."
        )


def write_volumes_table(
    experiment: Experiment, cell: Cell, split: str, volumes: CellVolumes
) -> None:
    """A row for every subject of a split: whether its volume could be used, and what was done to it."""
    positions = range(len(volumes))
    table = pd.DataFrame(
        {
            "subject_id": volumes.subject_ids,
            "status": ["failed" if i in volumes.failures else "ok" for i in positions],
            "conformed": [volumes.conformed.get(i, "") for i in positions],
            "note": [volumes.failures.get(i, "") for i in positions],
        }
    )
    write_table(table, experiment.cell_paths(cell).volumes(split))
