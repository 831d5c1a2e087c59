"""Shards of a cache: written by one process each, and cleared of what is damaged, left or superseded."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from datasets.cache.index import (
    DamagedIndexError,
    Prepared,
    index_paths,
    read_index,
    read_indexes,
    volumes_path,
    write_index,
)
from datasets.cache.reading import ContrastCache
from datasets.images import VolumeError
from utils.common.errors import UserError
from utils.common.files import clear_leftovers, is_left_behind, writer_name

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

DAMAGED = "its prepared volume was damaged"
# What a kill can cost: volumes since the last commit.
COMMIT_EVERY_S = 5.0
COMMIT_EVERY_N = 500
_ALIGNMENT = 64
CLOCKS_DIFFER_NS = 600 * 10**9  # between machines that share a file system
_SHARD = re.compile(r"(\d{6})-([0-9a-f]{8})-(\d+)")


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
        self._every_s = COMMIT_EVERY_S
        self._seen: dict[Path, tuple[int, int]] = {}
        self._started_ns = time.time_ns() - CLOCKS_DIFFER_NS

    @property
    def index_path(self) -> Path:
        """Where the index of this shard lies."""
        return self.cache.folder / f"{self.name}.json"

    def keep(self, entry: Prepared) -> None:
        """Name a volume of an earlier shard again, e.g. with its file's new time."""
        self.entries[entry.source] = entry
        self.n_uncommitted += 1

    def open(self) -> BinaryIO:
        """Begin the shard; a lock on it tells other jobs that it is being written."""
        if self._handle is None:
            self.cache.folder.mkdir(parents=True, exist_ok=True)
            self._handle = open(volumes_path(self.index_path), "xb")  # noqa: SIM115
            _lock(self._handle.fileno())
        return self._handle

    def add(self, entry: Prepared, payload: bytes) -> None:
        """Append a volume (or, without payload, the reason why there is none)."""
        if payload:
            handle = self.open()
            padding = -self._offset % _ALIGNMENT
            handle.write(b"\x00" * padding)
            handle.write(payload)
            entry = replace(entry, shard=self.name, offset=self._offset + padding)
            self._offset += padding + len(payload)
        self.keep(entry)

    def is_due(self) -> bool:
        """Whether so much was added that it should count."""
        waited_s = time.monotonic() - self._committed_at
        return bool(self.n_uncommitted) and (
            self.n_uncommitted >= COMMIT_EVERY_N or waited_s >= self._every_s
        )

    def commit(self) -> None:
        """From here on, what was added counts: volumes on disk first, then the index."""
        if not self.n_uncommitted:
            return
        started = time.monotonic()
        if self._handle is not None:
            self._handle.flush()
            os.fsync(self._handle.fileno())
            if not volumes_path(self.index_path).exists():
                raise OSError(
                    errno.ENOENT, "the volumes that were written were removed by somebody"
                )
        try:
            write_index(self.index_path, self.cache.key, list(self.entries.values()))
        except UserError as error:  # what a full disk lacks is known further up
            raise error.__cause__ or error from None
        self.cache.entries.update(self.entries)
        self.n_uncommitted, self._committed_at = 0, time.monotonic()
        # the index is written whole: for a long one, more rarely
        self._every_s = max(COMMIT_EVERY_S, 20 * (self._committed_at - started))

    def close(self) -> None:
        """Close the shard; one that nothing was committed of is removed."""
        if self._handle is not None:
            with suppress(OSError):  # a full disk was reported already
                self._handle.close()
        if not self.index_path.exists():
            volumes_path(self.index_path).unlink(missing_ok=True)

    def turn(self) -> int:
        """How many other jobs that write this cache come before this one by name."""
        shards = self.cache.folder.glob("*.volumes")
        return sum(path.stem < self.name and not _is_dead(path) for path in shards)

    def new_entries_of_others(self) -> list[Prepared]:
        """What other jobs have committed since the last time this was asked."""
        found = []
        for path in index_paths(self.cache.folder):
            if path == self.index_path:
                continue
            with suppress(OSError, UserError):  # removed or replaced meanwhile: next time
                state = path.stat()
                seen = (state.st_mtime_ns, state.st_ino)
                if self._seen.get(path) != seen and state.st_mtime_ns > self._started_ns:
                    found += read_index(path)["entries"]
                    self._seen[path] = seen
        return found


def _lock(file_number: int) -> bool:
    """Lock a shard for its writer; False where another holds it. True where there are no locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file_number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True


def _is_dead(path: Path) -> bool:
    """Whether the job that writes a shard has ended, so that nothing is added to it any more.

    Neither its process lives (or, of another machine, wrote within a day) nor is its shard locked.
    """
    match = _SHARD.fullmatch(path.stem)
    try:
        if match is None or not is_left_behind(path, match.group(2), match.group(3)):
            return False
        shard = volumes_path(path)
        if not shard.exists():
            return True
        with open(shard, "rb") as handle:
            return _lock(handle.fileno())
    except FileNotFoundError:  # another job removed it
        return False


def _next_generation(folder: Path) -> int:
    generations = [int(m.group(1)) for p in folder.glob("*") if (m := _SHARD.fullmatch(p.stem))]
    return max(generations, default=0) + 1


def clear_left_behind(folder: Path) -> dict[Path, str]:
    """Remove what a killed job left: volumes that no index names, and damaged indexes with theirs.

    Returns the damaged indexes and what is wrong with them.
    """
    clear_leftovers(folder)
    damaged = drop_damaged_indexes(folder)
    # who is dead before the indexes are read has written its last one
    dead = [path for path in folder.glob("*.volumes") if _is_dead(path)]
    indexes = read_indexes(folder).values()
    named = {entry.shard for content in indexes for entry in content["entries"]}
    for path in dead:
        if path.stem not in named:
            path.unlink(missing_ok=True)
    return damaged


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
    if damaged:  # a later index takes them back; other jobs' indexes are left alone
        writer = ShardWriter(cache)
        for entry in damaged:
            writer.keep(
                replace(entry, reason=DAMAGED, again=DAMAGED, shard="", offset=0, n_bytes=0)
            )
        writer.commit()
    return {entry.source: reason for entry, reason in damaged.items()}
