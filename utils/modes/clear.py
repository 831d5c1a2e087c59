"""-m clear-...: remove what an experiment left; asks first, and never touches subjects or settings."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from datasets.cache.index import cache_folders
from utils.common.errors import UserError
from utils.common.messages import say
from utils.experiment.caches import cache_root
from utils.experiment.experiment import Experiment


def run_checkpoints(experiment: Experiment, completely: bool) -> None:
    """Checkpoints kept by the way; `completely`: the best and last ones too."""
    found = []
    for cell in experiment.cells:
        folder = experiment.cell_paths(cell).folder
        found += sorted(folder.glob("network_*/*.pt" if completely else "network_*/epoch_*.pt"))
        if completely:
            found += sorted(folder.glob("network_*/last.damaged"))
    what = "all checkpoints" if completely else "checkpoints of single epochs"
    _remove(experiment, found, what)


def run_logs(experiment: Experiment) -> None:
    """Log files and TensorBoard events."""
    _remove(experiment, [experiment.paths.logs], "logs")


def run_cache(experiment: Experiment) -> None:
    """Prepared volumes of the contrasts, of all settings they were prepared with."""
    root = cache_root(experiment)
    names = [contrast.name for contrast in experiment.chosen_contrasts]
    found = cache_folders(root, names) if root else []
    _remove(experiment, found, f"prepared volumes (all experiments' in {root})")


def run_experiment(experiment: Experiment, completely: bool) -> None:
    """Results but not weights and splits; `completely`: the experiment's whole folder."""
    paths = experiment.paths
    if completely:
        _remove(experiment, [paths.root], "the whole experiment, weights included")
        return
    found = [
        paths.summary,
        paths.check,
        paths.bias_correction,
        paths.combination,
        paths.association_blocks,
        paths.metrics_table,
        *paths.root.glob("deltas_*.csv"),
    ]
    for cell in experiment.cells:
        folder = experiment.cell_paths(cell).folder
        found += [*folder.glob("predictions_*.*"), *folder.glob("metrics_*.json")]
    _remove(experiment, found, "results (weights and splits stay)")


def _remove(experiment: Experiment, paths: list[Path], what: str) -> None:
    there = [path for path in paths if path.exists()]
    if not there:
        say(f"nothing to clear: {what} of {experiment.settings.name}")
        return
    if not experiment.options.yes:
        _ask(f"remove {what} of {experiment.settings.name} ({len(there)} files or folders)? [y/N] ")
    for path in there:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        say(f"removed {path}")


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise UserError(f"{question.split('?')[0]}: needs --yes where nobody can be asked.")
    sys.stderr.write(question)
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError("nothing was removed.")
