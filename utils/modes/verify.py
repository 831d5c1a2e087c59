"""-m verify: every checksum of what the experiment keeps: prepared volumes, checkpoints, results."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pandas as pd

from BrainAgeNetworks.checkpoints import CheckpointError, load_checkpoint
from BrainAgeNetworks.conversion import read_converted
from BrainAgeNetworks.tensor_files import ENDING
from datasets.cache.index import cache_folders
from datasets.cache.shards import drop_damaged, drop_damaged_indexes
from utils.common.cores import n_cores
from utils.common.errors import UserError
from utils.common.manifest import changed_files
from utils.common.messages import progress, say
from utils.common.model_cards import find_exports
from utils.experiment.caches import cache_of, cache_root
from utils.experiment.experiment import Experiment
from utils.experiment.exported import load_exported


def run(experiment: Experiment) -> None:
    """Print what is damaged (kind, file, reason) as a table; whole outputs are counted in messages."""
    rows = [
        *prepared_volumes(experiment),
        *checkpoints(experiment),
        *exports(experiment),
        *converted(experiment),
        *results(experiment),
    ]
    table = pd.DataFrame(rows, columns=["kind", "file", "reason"])
    table.to_csv(sys.stdout, index=False)
    for kind, file, reason in rows:
        experiment.problem(f"{kind} {file} {reason}.")


def prepared_volumes(experiment: Experiment) -> Iterator[tuple[str, str, str]]:
    """Damaged volumes of the caches; each leaves its index, so that -m prepare makes it again."""
    root = cache_root(experiment)
    for contrast in experiment.chosen_contrasts if root else []:
        for folder in cache_folders(root, [contrast.name]):  # type: ignore[arg-type]
            for path, reason in drop_damaged_indexes(folder).items():
                yield "index", str(path), f"{reason} (dropped)"
        cache = cache_of(experiment, root, contrast)  # type: ignore[arg-type]
        damaged = drop_damaged(
            cache, n_cores(), lambda found, n: progress(found, n, "verifying", "vol")
        )
        say(f"{contrast.name}: {cache.n_volumes} prepared volumes, {len(damaged)} damaged")
        for source, reason in damaged.items():
            yield "prepared volume", source, f"{reason} (dropped)"


def checkpoints(experiment: Experiment) -> Iterator[tuple[str, str, str]]:
    """Checkpoints whose checksum does not fit."""
    n_checkpoints = 0
    for cell in experiment.cells:
        for path in sorted(experiment.cell_paths(cell).folder.glob("network_*/*.pt")):
            n_checkpoints += 1
            try:
                load_checkpoint(path)
            except CheckpointError as error:
                yield (
                    "checkpoint",
                    str(path),
                    str(error).removeprefix(f"{path}: ").removesuffix("."),
                )
    say(f"{n_checkpoints} checkpoints verified")


def exports(experiment: Experiment) -> Iterator[tuple[str, str, str]]:
    """Exported networks of which a file is damaged or missing."""
    n_exports = 0
    for cell in experiment.cells:
        folder = experiment.paths.export(cell.name).folder
        if not folder.is_dir():
            continue
        n_exports += 1
        try:
            load_exported(cell, find_exports(folder).of(cell.contrast.name, cell.sex))
        except UserError as error:
            yield "export", str(folder), str(error).removesuffix(".")
    say(f"{n_exports} exports verified")


def converted(experiment: Experiment) -> Iterator[tuple[str, str, str]]:
    """Converted weights that are not as `-m convert` wrote them."""
    paths = sorted(experiment.paths.converted.glob(f"*{ENDING}"))
    for path in paths:
        try:
            read_converted(path)
        except UserError as error:
            reason = str(error).removeprefix(f"{path}: ").removesuffix(".")
            yield "converted weights", str(path), reason
    say(f"{len(paths)} converted files verified")


def results(experiment: Experiment) -> Iterator[tuple[str, str, str]]:
    """Tables, records, figures and reports that are not as the run that wrote them left them."""
    paths = experiment.paths
    # written anew at the start of every run, so that one that is killed leaves them without a record
    written_at_start = (paths.settings, paths.settings_eval)
    for path, reason in changed_files(experiment.result_folders, written_at_start):
        yield "result", str(path), reason
