"""Every source file of an experiment -> prepared volumes, once: what to do, and doing it.

A job writes shards of its own (`shards.py`), so that two jobs on one cache, or a job that is killed,
harm nothing; at worst a volume is prepared twice. What a job has committed counts at once for all.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from datasets.cache.coding import encoded
from datasets.cache.index import CacheKey, Prepared, other_caches, source_of
from datasets.cache.reading import ContrastCache
from datasets.cache.shards import ShardWriter, clear_left_behind, remove_superseded
from datasets.compression import crc32
from datasets.contrasts import Contrast
from datasets.images import Image, ReadFaultError, VolumeError, files_of, open_image
from datasets.volumes import auto_percentile, crop_of
from utils.common.errors import UserError
from utils.common.files import why_not_written

_READ_BYTES = 1 << 20
NEW = "not prepared before"


@dataclass
class ContrastPlan:
    """What is to be done for one contrast."""

    contrast: Contrast
    cache: ContrastCache
    sources: list[str]
    why: dict[str, str] = field(default_factory=dict)  # source to prepare -> why
    same_content: dict[str, Prepared] = field(default_factory=dict)  # only the file's time changed
    # other caches of these sources, and in what they differ
    others: dict[Path, list[str]] = field(default_factory=dict)
    damaged: dict[Path, str] = field(default_factory=dict)  # indexes that were removed, and why

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
    root: Path,
    contrast: Contrast,
    conform: str,
    storage: str,
    paths: list[Path],
    n_threads: int = 1,
    dry_run: bool = False,
) -> ContrastPlan:
    """Compare the cache below `root` with the source files; a dry run removes nothing that is damaged."""
    key = CacheKey.of(contrast, conform, storage)
    folder = root / key.folder_name
    damaged = {} if dry_run else clear_left_behind(folder)
    sources = list(dict.fromkeys(map(source_of, paths)))
    plan = ContrastPlan(contrast, ContrastCache.open(folder, key), sources, damaged=damaged)
    for other, differences in other_caches(root, key, set(sources)):
        plan.others[other] = differences
    with ThreadPoolExecutor(max_workers=n_threads) as threads:
        found = threads.map(lambda s: outdated(s, plan.cache.entries.get(s)), sources)
        for source, (why, touched) in zip(sources, found):
            entry = plan.cache.entries.get(source)
            why = why or (_why_again(plan.cache, entry, contrast) if entry else "")
            if why:
                plan.why[source] = why
            elif touched:
                plan.same_content[source] = touched
    return plan


def _why_again(cache: ContrastCache, entry: Prepared, contrast: Contrast) -> str:
    """Why a source whose content did not change is prepared again."""
    if entry.reason:
        return entry.again
    if not cache.is_stored(entry):
        return "its prepared volume is missing"
    if contrast.scale_factor is None and entry.percentile is None:
        return "scale_factor is auto now"
    return ""


def outdated(source: str, entry: Prepared | None) -> tuple[str, Prepared | None]:
    """Why a source must be prepared ("": it need not), and its entry anew if only its time changed.

    Size and time of the files of an image decide only whether their content is looked at.
    """
    if entry is None:
        return NEW, None
    try:
        n_bytes, time_ns = state_of(source)
    except OSError:
        return ("" if entry.reason else "the file is gone"), None
    if (n_bytes, time_ns) == (entry.n_source_bytes, entry.source_time_ns):
        return "", None
    if not entry.source_hash:
        return "the file is there now", None
    if n_bytes != entry.n_source_bytes or content_hash(source, time_ns) != entry.source_hash:
        return "the file's content changed", None
    return "", replace(entry, source_time_ns=time_ns)


def state_of(source: str) -> tuple[int, int]:
    """Bytes and time of change (ns) of a source, summed over the files of its image."""
    states = [path.stat() for path in files_of(Path(source))]
    return sum(s.st_size for s in states), sum(s.st_mtime_ns for s in states)


@cache
def content_hash(source: str, time_ns: int) -> str:
    """sha256 over the files of a source as they were at `time_ns`; each is read once in a run."""
    found = hashlib.sha256()
    for path in files_of(Path(source)):
        with open(path, "rb") as handle:
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
    by_source = _by_source(plans)
    writers = {id(plan): ShardWriter(plan.cache) for plan in plans}
    try:
        for plan in plans:
            for entry in plan.same_content.values():
                writers[id(plan)].keep(entry)
        for plan in plans:
            if plan.why:
                writers[id(plan)].open()
        sources = list(by_source)
        if any(writer.turn() % 2 for writer in writers.values()):
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
            if _commit_due(writers):
                _leave_to_others(plans, writers)
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
        n_bytes, time_ns = state_of(source)
        entry = Prepared(source, n_bytes, time_ns, content_hash(source, time_ns))
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
        percentile = auto_percentile(crop) if contrast.scale_factor is None else None
    except VolumeError as error:
        passing = isinstance(error, ReadFaultError)  # of the machine, not of the file
        again = "could not be read before" if passing else ""
        return replace(entry, reason=str(error), again=again), b""
    parts, coding = encoded(crop, key.storage)
    payload = parts.packed()
    entry = replace(
        entry, n_bytes=len(payload), checksum=crc32(payload), percentile=percentile, **coding
    )
    return entry, payload


def _commit_due(writers: dict[int, ShardWriter]) -> bool:
    due = [writer for writer in writers.values() if writer.is_due()]
    for writer in due:
        writer.commit()
    return bool(due)


def _leave_to_others(plans: list[ContrastPlan], writers: dict[int, ShardWriter]) -> None:
    """Strike from the plans what another job has committed in the meantime."""
    for plan in plans:
        for entry in writers[id(plan)].new_entries_of_others():
            source = entry.source
            if source in plan.why and not entry.reason and not outdated(source, entry)[0]:
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


def measured(plans: list[ContrastPlan], n_sources: int = 4) -> dict[str, tuple[float, float]]:
    """Contrast -> bytes and seconds a volume, from a few sources of each that are prepared in memory only.

    The time of a file that holds several contrasts is shared between them.
    """
    by_source = _by_source(plans)
    n_bytes: Counter[str] = Counter()
    n_volumes: Counter[str] = Counter()
    seconds: defaultdict[str, float] = defaultdict(float)
    for plan in plans:
        if n_volumes[plan.contrast.name]:
            continue  # its files were read for another contrast
        chosen = list(plan.why)[:: max(1, len(plan.why) // n_sources)][:n_sources]
        for i, source in enumerate([*chosen[:1], *chosen]):
            started = time.perf_counter()
            results = _prepare_source(source, by_source[source])
            if i == 0:
                continue  # compiling is not counted
            share = (time.perf_counter() - started) / len(results)
            for other, _, payload in results:
                n_bytes[other.contrast.name] += len(payload)
                n_volumes[other.contrast.name] += 1
                seconds[other.contrast.name] += share
    names = [plan.contrast.name for plan in plans]
    counts = {name: max(1, n_volumes[name]) for name in names}
    return {name: (n_bytes[name] / counts[name], seconds[name] / counts[name]) for name in names}


def _by_source(plans: list[ContrastPlan]) -> dict[str, list[ContrastPlan]]:
    found: dict[str, list[ContrastPlan]] = {}
    for plan in plans:
        for source in plan.why:
            found.setdefault(source, []).append(plan)
    return found
