"""Every source file of an experiment -> prepared volumes, once: what to do, and doing it.

A job writes shards of its own (`cache.py`), so that two jobs on one cache, or a job that is killed,
harm nothing; at worst a volume is prepared twice. What a job has committed counts at once for all.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from datasets.cache import (
    CacheKey,
    ContrastCache,
    DamagedIndexError,
    Prepared,
    index_paths,
    other_caches,
    read_index,
    read_indexes,
    source_of,
    volumes_path,
    write_index,
)
from datasets.coding import encoded
from datasets.compression import crc32
from datasets.contrasts import Contrast
from datasets.images import Image, VolumeError, open_image
from datasets.volumes import crop_of, height
from utils.common.errors import UserError
from utils.common.files import clear_leftovers, is_left_behind, why_not_written, writer_name

# What a kill can cost: volumes since the last commit.
COMMIT_EVERY_S = 5.0
COMMIT_EVERY_N = 500
_ALIGNMENT = 64
_SHARD = re.compile(r"(\d{6})-([0-9a-f]{8})-(\d+)")
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


class ShardWriter:
    """One shard of this process: appends volumes, and makes them count by writing the index."""

    def __init__(self, cache: ContrastCache):
        self.cache = cache
        self.name = f"{_next_generation(cache.folder):06d}-{writer_name()}"
        self.entries: dict[str, Prepared] = {}
        self._handle: BinaryIO | None = None
        self._offset = 0
        self.n_uncommitted = 0
        self._committed_at = time.monotonic()

    @property
    def index_path(self) -> Path:
        """Where the index of this shard lies."""
        return self.cache.folder / f"{self.name}.json"

    def keep(self, entry: Prepared) -> None:
        """Name a volume of an earlier shard again, e.g. with its file's new time."""
        self.entries[entry.source] = entry
        self.n_uncommitted += 1

    def add(self, entry: Prepared, payload: bytes) -> None:
        """Append a volume (or, without payload, the reason why there is none)."""
        if payload:
            if self._handle is None:
                self.cache.folder.mkdir(parents=True, exist_ok=True)
                self._handle = open(volumes_path(self.index_path), "xb")  # noqa: SIM115
            padding = -self._offset % _ALIGNMENT
            self._handle.write(b"\x00" * padding)
            self._handle.write(payload)
            entry = replace(entry, shard=self.name, offset=self._offset + padding)
            self._offset += padding + len(payload)
        self.keep(entry)

    def is_due(self) -> bool:
        """Whether so much was added that it should count."""
        waited_s = time.monotonic() - self._committed_at
        return bool(self.n_uncommitted) and (
            self.n_uncommitted >= COMMIT_EVERY_N or waited_s >= COMMIT_EVERY_S
        )

    def commit(self) -> None:
        """From here on, what was added counts: volumes on disk first, then the index."""
        if not self.n_uncommitted:
            return
        if self._handle is not None:
            self._handle.flush()
            os.fsync(self._handle.fileno())
        try:
            write_index(self.index_path, self.cache.key, list(self.entries.values()))
        except UserError as error:  # what a full disk lacks is known further up
            raise error.__cause__ or error from None
        self.cache.entries.update(self.entries)
        self.n_uncommitted, self._committed_at = 0, time.monotonic()

    def close(self) -> None:
        """Close the shard; one that nothing was committed of is removed."""
        if self._handle is not None:
            with suppress(OSError):  # a full disk was reported already
                self._handle.close()
        if not self.index_path.exists():
            volumes_path(self.index_path).unlink(missing_ok=True)

    def others_live(self) -> bool:
        """Whether another process is writing a shard of this cache."""
        shards = self.cache.folder.glob("*.volumes")
        return any(not _is_dead(path) for path in shards if path.stem != self.name)


def _is_dead(path: Path) -> bool:
    """Whether the job that writes a shard has ended, so that nothing is added to it any more."""
    match = _SHARD.fullmatch(path.stem)
    try:
        return match is not None and is_left_behind(path, match.group(2), match.group(3))
    except FileNotFoundError:  # another job removed it
        return False


def _next_generation(folder: Path) -> int:
    generations = [int(m.group(1)) for p in folder.glob("*") if (m := _SHARD.fullmatch(p.stem))]
    return max(generations, default=0) + 1


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


def clear_left_behind(folder: Path) -> None:
    """Remove what a killed job left: volumes that no index names, and damaged indexes with theirs."""
    clear_leftovers(folder)
    drop_damaged_indexes(folder)
    # who is dead before the indexes are read has written its last one
    dead = [path for path in folder.glob("*.volumes") if _is_dead(path)]
    indexes = read_indexes(folder).values()
    named = {entry.shard for content in indexes for entry in content["entries"]}
    for path in dead:
        if path.stem not in named:
            path.unlink(missing_ok=True)


def drop_damaged_indexes(folder: Path) -> dict[Path, str]:
    """Remove indexes whose checksum differs: their volumes count no more and are prepared again.

    Returns index -> what is wrong.
    """
    damaged = {}
    for path in index_paths(folder):
        try:
            read_index(path)
        except DamagedIndexError as error:
            damaged[path] = str(error).removeprefix(f"{path}: ").partition(". ")[0]
            path.unlink(missing_ok=True)
        except UserError:
            if path.exists():  # else another job removed it
                raise
    return damaged


def remove_superseded(cache: ContrastCache) -> None:
    """Remove shards of finished jobs of which nothing is used any more."""
    dead = [path for path in index_paths(cache.folder) if _is_dead(path)]
    indexes = read_indexes(cache.folder)
    union = {e.source: e for content in indexes.values() for e in content["entries"]}
    used = {entry.shard for entry in union.values()}
    for path in dead:
        holds = path in indexes and any(
            union[entry.source] == entry for entry in indexes[path]["entries"]
        )
        if not holds and path.stem not in used:
            path.unlink(missing_ok=True)
            volumes_path(path).unlink(missing_ok=True)


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


def drop_damaged(
    cache: ContrastCache, n_threads: int, shown: Callable[[Iterator, int], Iterator]
) -> dict[str, str]:
    """Verify every prepared volume; damaged ones leave the index, so that they are prepared again.

    Returns source -> what is wrong.
    """
    entries = [entry for entry in cache.entries.values() if not entry.reason]

    def damage(entry: Prepared) -> str:
        try:
            cache.payload(entry)
        except VolumeError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(max_workers=n_threads) as threads:
        found = list(shown(threads.map(damage, entries), len(entries)))
    damaged = {entry: reason for entry, reason in zip(entries, found) if reason}
    # an earlier index may name the same bytes, with the time its file had then
    places = {(entry.shard, entry.offset) for entry in damaged}
    for path, content in read_indexes(cache.folder).items() if damaged else []:
        named = content["entries"]
        kept = [e for e in named if e.reason or (e.shard, e.offset) not in places]
        if len(kept) < len(named):
            write_index(path, cache.key, kept)
    return {entry.source: reason for entry, reason in damaged.items()}
