"""Every source file of an experiment -> prepared volumes, once: what to do, and doing it.

A job writes shards of its own (`cache.py`), so that two jobs on one cache, or a job that is killed,
harm nothing; at worst a volume is prepared twice. What a job has committed counts at once for all.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path

from datasets.cache.coding import encoded
from datasets.cache.index import CacheKey, Prepared, other_caches, source_of
from datasets.cache.reading import ContrastCache
from datasets.cache.shards import ShardWriter, clear_left_behind, remove_superseded
from datasets.compression import crc32
from datasets.contrasts import Contrast
from datasets.images import Image, VolumeError, open_image
from datasets.volumes import crop_of, height
from utils.common.errors import UserError
from utils.common.files import why_not_written

_READ_BYTES = 1 << 20


@dataclass
class ContrastPlan:
    """What is to be done for one contrast."""

    contrast: Contrast
    cache: ContrastCache
    sources: list[str]
    why: dict[str, str] = field(default_factory=dict)  # source to prepare -> why
    same_content: dict[str, Prepared] = field(default_factory=dict)  # only the file's time changed
    replaced: list[str] = field(
        default_factory=list
    )  # what another cache of these sources differs in

    @property
    def n_kept(self) -> int:
        """Sources that stay as they are."""
        return len(self.sources) - len(self.why)

    def reasons(self) -> Counter[str]:
        """How many sources are prepared for which reason."""
        return Counter(self.why.values())


@dataclass
class Done:
    """What came of a plan."""

    n_volumes: int = 0
    n_bytes: int = 0
    failures: dict[tuple[str, str], str] = field(
        default_factory=dict
    )  # (contrast, source) -> reason


def plan_contrast(
    root: Path, contrast: Contrast, conform: str, storage: str, paths: list[Path]
) -> ContrastPlan:
    """Compare the cache below `root` with the source files."""
    key = CacheKey.of(contrast, conform, storage)
    folder = root / key.folder_name
    clear_left_behind(folder)
    plan = ContrastPlan(contrast, ContrastCache.open(folder, key), list(map(source_of, paths)))
    plan.sources = list(dict.fromkeys(plan.sources))
    for _, differences in other_caches(root, key, set(plan.sources)):
        plan.replaced = differences
    for source in plan.sources:
        entry = plan.cache.entries.get(source)
        why, touched = outdated(source, entry)
        if entry and not why and _lacks_height(entry, contrast) and os.path.exists(source):
            why = "scale_factor is auto now"
        if why:
            plan.why[source] = why
        elif touched and entry:
            plan.same_content[source] = touched
    return plan


def _lacks_height(entry: Prepared, contrast: Contrast) -> bool:
    return contrast.scale_factor is None and entry.height is None and not entry.reason


def outdated(source: str, entry: Prepared | None) -> tuple[str, Prepared | None]:
    """Why a source must be prepared ("": it need not), and its entry anew if only its time changed.

    Size and time of the file decide only whether its content is looked at.
    """
    if entry is None:
        return "not prepared before", None
    try:
        state = os.stat(source)  # noqa: PTH116 - follows links, as reading does
    except OSError:
        return ("the file is gone" if entry.reason and entry.source_hash else ""), None
    if (state.st_size, state.st_mtime_ns) == (entry.n_source_bytes, entry.source_time_ns):
        return "", None
    if not entry.source_hash:
        return "the file is there now", None
    if entry.n_source_bytes != state.st_size or file_hash(source) != entry.source_hash:
        return "the file's content changed", None
    return "", replace(entry, source_time_ns=state.st_mtime_ns)


def file_hash(source: str) -> str:
    """sha256 of a file's content."""
    found = hashlib.sha256()
    with open(source, "rb") as handle:
        while piece := handle.read(_READ_BYTES):
            found.update(piece)
    return found.hexdigest()


def carry_out(
    plans: list[ContrastPlan], n_threads: int, shown: Callable[[Iterator, int], Iterator]
) -> Done:
    """Prepare what the plans say, source by source: one decode serves all contrasts of a file.

    `shown` wraps the iterator over finished sources (and their number), e.g. in a progress bar.

    Raises
    ------
    UserError
        The disk is full, or the cache cannot be written to; what was written stays valid.
    """
    done = Done()
    by_source: dict[str, list[ContrastPlan]] = {}
    for plan in plans:
        for source in plan.why:
            by_source.setdefault(source, []).append(plan)
    writers = {id(plan): ShardWriter(plan.cache) for plan in plans}
    try:
        for plan in plans:
            for entry in plan.same_content.values():
                writers[id(plan)].keep(entry)
        sources = list(by_source)
        if any(writer.others_live() for writer in writers.values()):
            sources.reverse()  # another job is at work: meet it in the middle
        finished = _finished(sources, by_source, n_threads)
        for source, results in shown(finished, len(sources)):
            for plan, entry, payload in results:
                writers[id(plan)].add(entry, payload)
                if entry.reason:
                    done.failures[plan.contrast.name, source] = entry.reason
                else:
                    done.n_volumes += 1
                    done.n_bytes += len(payload)
            if _commit_due(writers) and any(writer.others_live() for writer in writers.values()):
                _leave_to_others(plans)
        for writer in writers.values():
            writer.commit()
    except OSError as error:
        raise UserError(_why_ended(plans, writers, done, error)) from error
    except KeyboardInterrupt:
        for writer in writers.values():
            writer.commit()
        raise
    finally:
        for writer in writers.values():
            writer.close()
    for plan in plans:
        remove_superseded(plan.cache)
    return done


def _finished(
    sources: list[str], by_source: dict[str, list[ContrastPlan]], n_threads: int
) -> Iterator[tuple[str, list[tuple[ContrastPlan, Prepared, bytes]]]]:
    """Sources as they get finished; never more in memory than threads can work on."""
    waiting = iter(sources)
    with ThreadPoolExecutor(max_workers=n_threads) as threads:
        running: dict[Future, str] = {}
        try:
            while True:
                while len(running) < 2 * n_threads:
                    source = next(waiting, None)
                    if source is None:
                        break
                    plans = [plan for plan in by_source[source] if source in plan.why]
                    if not plans:  # another job has done it
                        yield source, []
                        continue
                    running[threads.submit(_prepare_source, source, plans)] = source
                if not running:
                    return
                ready, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ready:
                    yield running.pop(future), future.result()
        finally:
            for future in running:
                future.cancel()


def _prepare_source(
    source: str, plans: list[ContrastPlan]
) -> list[tuple[ContrastPlan, Prepared, bytes]]:
    """One decode of a source, and from it the volume of each contrast that lives in the file."""
    try:
        state = os.stat(source)  # noqa: PTH116
        entry = Prepared(source, state.st_size, state.st_mtime_ns, file_hash(source))
    except OSError:
        entry = Prepared(source, -1, -1, "")
    image: Image | VolumeError
    try:
        image = open_image(source)
    except VolumeError as error:
        image = error
    return [(plan, *_prepare_crop(image, plan, entry)) for plan in plans]


def _prepare_crop(
    image: Image | VolumeError, plan: ContrastPlan, entry: Prepared
) -> tuple[Prepared, bytes]:
    key, contrast = plan.cache.key, plan.contrast
    try:
        if isinstance(image, VolumeError):
            raise image
        crop = crop_of(image, contrast, key.conform)
        found_height = height(crop, contrast) if contrast.scale_factor is None else None
    except VolumeError as error:
        return replace(entry, reason=str(error)), b""
    parts, coding = encoded(crop, key.storage)
    payload = parts.packed()
    entry = replace(
        entry, n_bytes=len(payload), checksum=crc32(payload), height=found_height, **coding
    )
    return entry, payload


def _commit_due(writers: dict[int, ShardWriter]) -> bool:
    due = [writer for writer in writers.values() if writer.is_due()]
    for writer in due:
        writer.commit()
    return bool(due)


def _leave_to_others(plans: list[ContrastPlan]) -> None:
    """Strike from the plans what another job has committed in the meantime."""
    for plan in plans:
        there = ContrastCache.open(plan.cache.folder, plan.cache.key).entries
        for source in list(plan.why):
            entry = there.get(source)
            if entry and entry != plan.cache.entries.get(source) and not outdated(source, entry)[0]:
                del plan.why[source]


def _why_ended(
    plans: list[ContrastPlan], writers: dict[int, ShardWriter], done: Done, error: OSError
) -> str:
    folder = plans[0].cache.folder
    n_left = sum(len(plan.why) for plan in plans) - done.n_volumes - len(done.failures)
    n_left = max(0, n_left)  # another job may have done some of it
    n_left += sum(writer.n_uncommitted for writer in writers.values())
    per_volume = done.n_bytes / done.n_volumes if done.n_volumes else 0
    return why_not_written(folder, error, round(n_left * per_volume)) + (
        " What was committed stays valid; the same command goes on from there."
    )


def measured(plan: ContrastPlan, n_sources: int = 4) -> tuple[float, float]:
    """Bytes and seconds a volume, from a few sources of a plan that are prepared in memory only."""
    chosen = list(plan.why)[:: max(1, len(plan.why) // n_sources)][:n_sources]
    n_bytes, n_volumes, seconds = 0, 0, 0.0
    for i, source in enumerate(
        [*chosen[:1], *chosen]
    ):  # the first once more: compiling is not counted
        started = time.perf_counter()
        results = _prepare_source(source, [plan])
        if i:
            seconds += time.perf_counter() - started
            n_bytes += sum(len(payload) for _, _, payload in results)
            n_volumes += 1
    return n_bytes / max(1, n_volumes), seconds / max(1, n_volumes)
