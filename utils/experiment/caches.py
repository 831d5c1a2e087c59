"""The prepared volumes of an experiment: where they lie, what is to be prepared, which may be used."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from datasets.cache.index import CacheKey, other_caches, source_of
from datasets.cache.preparation import ContrastPlan, outdated, plan_contrast
from datasets.cache.reading import ContrastCache
from datasets.contrasts import Contrast
from utils.common.cores import n_cores
from utils.common.errors import UserError
from utils.common.messages import say
from utils.experiment.experiment import Experiment


def cache_root(experiment: Experiment) -> Path | None:
    """Folder of all prepared volumes; None where [DATA] cache_directory is empty."""
    data = experiment.settings.data
    return experiment.settings.path(data.cache_directory) if data.cache_directory else None


def plan_of(experiment: Experiment, root: Path, contrast: Contrast) -> ContrastPlan:
    """What `-m prepare` has to do for a contrast: the files of all its subjects, against the cache."""
    data = experiment.settings.data
    return plan_contrast(
        root, contrast, data.conform, data.cache_storage, experiment.volume_paths(contrast),
        n_cores(), experiment.options.dry_run,
    )  # fmt: skip


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
    def why(path: Path) -> tuple[str, bool]:
        entry = cache.entry(path)
        found, touched = outdated(source_of(path), entry)
        if not found and entry and not entry.reason and not cache.is_stored(entry):
            found = "its prepared volume is missing"
        return found, touched is not None

    with ThreadPoolExecutor(max_workers=2 * n_cores()) as threads:
        whys = list(threads.map(why, paths))
    n_touched = sum(touched for _, touched in whys)
    if n_touched:
        say(
            f"  {n_touched} {contrast.name} files have another time but the same content, which had to be read; "
            "-m prepare notes it"
        )
    changed = [(path, reason) for path, (reason, _) in zip(paths, whys) if reason]
    if changed:
        path, reason = changed[0]
        raise UserError(
            f"{len(changed)} of {len(paths)} {contrast.name} volumes are not as they were prepared, e.g. "
            f"{path}: {reason}. Run -m prepare, which does those again."
        )
