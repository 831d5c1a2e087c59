"""The volumes of a cell's subjects, ready for training or prediction; prepared ones where there are any."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.cache.index import CacheKey, other_caches, source_of
from datasets.cache.preparation import ContrastPlan, outdated, plan_contrast
from datasets.cache.reading import ContrastCache
from datasets.contrasts import Contrast
from datasets.loaders import CellVolumes
from datasets.volumes import VolumeError, VolumeReader, auto_scale_factor
from utils.common.errors import UserError
from utils.common.messages import say
from utils.common.tables import write_table
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


def cache_root(experiment: Experiment) -> Path | None:
    """Folder of all prepared volumes; None where [DATA] cache_directory is empty."""
    data = experiment.settings.data
    return experiment.settings.path(data.cache_directory) if data.cache_directory else None


def plan_of(experiment: Experiment, root: Path, contrast: Contrast) -> ContrastPlan:
    """What `-m prepare` has to do for a contrast: the files of all its subjects, against the cache."""
    data = experiment.settings.data
    return plan_contrast(
        root, contrast, data.conform, data.cache_storage, experiment.volume_paths(contrast)
    )


def cache_of(experiment: Experiment, root: Path, contrast: Contrast) -> ContrastCache:
    """All prepared volumes of a contrast, whoever's they are."""
    data = experiment.settings.data
    key = CacheKey.of(contrast, data.conform, data.cache_storage)
    return ContrastCache.open(root / key.folder_name, key)


def cache_for(
    experiment: Experiment, contrast: Contrast, paths: list[Path]
) -> ContrastCache | None:
    """The prepared volumes of these files; None where there is none.

    Raises
    ------
    UserError
        They were prepared with other settings, or files changed since; what differs is named.
    """
    root = cache_root(experiment)
    if root is None:
        return None
    cache = cache_of(experiment, root, contrast)
    known = [path for path in paths if cache.entry(path)]
    if not known:
        for folder, differences in other_caches(root, cache.key, set(map(source_of, paths))):
            raise UserError(
                f"{folder} holds these volumes prepared with other settings: {'; '.join(differences)}. Run "
                '-m prepare, or set [DATA] cache_directory = "" to read the files themselves.'
            )
        return None
    _refuse_outdated(contrast, cache, known)
    if len(known) < len(paths):
        say(
            f"  {len(paths) - len(known)} of {len(paths)} {contrast.name} volumes are not prepared and are "
            "read from their files; -m prepare adds them"
        )
    return cache


def _refuse_outdated(contrast: Contrast, cache: ContrastCache, paths: list[Path]) -> None:
    with ThreadPoolExecutor(max_workers=2 * n_cores()) as threads:
        whys = list(threads.map(lambda p: outdated(source_of(p), cache.entry(p))[0], paths))
    changed = [(path, why) for path, why in zip(paths, whys) if why]
    if changed:
        path, why = changed[0]
        raise UserError(
            f"{len(changed)} of {len(paths)} {contrast.name} volumes are not as they were prepared, e.g. "
            f"{path}: {why}. Run -m prepare, which does those again."
        )


def n_cores() -> int:
    """Cores that this process may use (a job's share of a machine)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
