"""Reading prepared volumes: memory-mapped, verified, expanded straight into a batch."""

from __future__ import annotations

import mmap
import threading
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

import numpy as np

from datasets import kernels
from datasets.augmentation import Augmentation, memory_before
from datasets.cache.index import (
    VOLUMES_ENDING,
    CacheKey,
    Prepared,
    index_paths,
    read_indexes,
    source_of,
)
from datasets.compression import crc32
from datasets.images import VolumeError
from utils.common.errors import UserError

_ALIGNMENT = 8


@dataclass
class ContrastCache:
    """Prepared volumes of one contrast, memory-mapped; reading is safe from many threads."""

    folder: Path
    key: CacheKey
    entries: dict[str, Prepared] = field(default_factory=dict)
    _maps: dict[str, mmap.mmap] = field(default_factory=dict, repr=False)
    _sizes: dict[str, int] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def open(cls, folder: Path, key: CacheKey) -> ContrastCache:
        """What all indexes in `folder` name; an absent folder is an empty cache.

        All shards are opened here: what another job of this machine removes later stays readable.

        Raises
        ------
        UserError
            An index is damaged, or was written for another key.
        """
        while True:
            cache, indexes = cls(folder, key), read_indexes(folder)
            for path, content in indexes.items():
                differences = key.differences(content["key"])
                if differences:
                    raise UserError(f"{path}: does not fit: {'; '.join(differences)}.")
                cache.entries.update((entry.source, entry) for entry in content["entries"])
            if cache._hold_shards() or list(indexes) == index_paths(folder):
                return cache

    def entry(self, path: str | Path) -> Prepared | None:
        """What is known of a source file; None where it was not prepared."""
        return self.entries.get(source_of(path))

    @cached_property
    def n_volumes(self) -> int:
        """Sources that have a volume."""
        return sum(not entry.reason for entry in self.entries.values())

    def expand(self, entry: Prepared, divisor: float, by: Augmentation, box: np.ndarray) -> None:
        """Write a prepared volume / divisor, augmented, into (X, Y, Z) float32 `box`.

        Raises
        ------
        VolumeError
            There is no volume, or its bytes are damaged.
        """
        before = memory_before(by, box)
        self._expand(entry, divisor, by.by_whole_voxels, before)
        by.finish(before, box)

    def _expand(self, entry: Prepared, divisor: float, by: Augmentation, box: np.ndarray) -> None:
        """`expand` for what only shifts and mirrors."""
        parts = unpacked(self.payload(entry), entry, self.key.box)
        factor = np.float32(divisor)
        if entry.linear:
            how, slope = kernels.LINEAR, entry.slope / divisor
        else:
            how, slope = kernels.EXACT, entry.slope
        values = parts.values
        if values.dtype == np.float16:
            values = values.astype(np.float32)
        fits = kernels.expand_runs(
            values, parts.counts, parts.starts, parts.lengths, how, slope, entry.intercept, factor,
            by.shift, by.mirrored, box,
        )  # fmt: skip
        if not fits or (entry.n_exact and int(parts.positions.max()) >= box.size):
            raise VolumeError("its prepared volume contradicts itself; -m prepare makes it again")
        if entry.n_exact:
            kernels.place_voxels(parts.positions, parts.exact, factor, by.shift, by.mirrored, box)

    def is_stored(self, entry: Prepared) -> bool:
        """Whether the bytes of a volume are there (not whether they are whole)."""
        if entry.shard not in self._sizes:
            path = self._path(entry.shard)
            self._sizes[entry.shard] = path.stat().st_size if path.is_file() else -1
        return entry.offset + entry.n_bytes <= self._sizes[entry.shard]

    def payload(self, entry: Prepared) -> memoryview:
        """The stored bytes of a volume, verified; as they are for a device that expands them itself."""
        if entry.reason:
            raise VolumeError(entry.reason)
        mapped = self._map(entry.shard)
        stop = entry.offset + entry.n_bytes
        if stop > len(mapped):
            raise VolumeError(f"its prepared volume is cut off in {self._path(entry.shard)}")
        if sum(n_bytes for *_, n_bytes in layout(entry, self.key.box)) != entry.n_bytes:
            raise VolumeError(
                "its prepared volume contradicts its index; -m prepare makes it again"
            )
        stored = memoryview(mapped)[entry.offset : stop]
        if crc32(stored) != entry.checksum:
            raise VolumeError(
                f"its prepared volume is damaged (checksum) in {self._path(entry.shard)}; -m verify "
                "drops it, and -m prepare makes it again"
            )
        return stored

    def read_ahead(self, entry: Prepared) -> None:
        """Ask the system to fetch a volume that is about to be read."""
        if entry.reason or not hasattr(mmap, "MADV_WILLNEED"):
            return
        try:
            mapped = self._map(entry.shard)
        except VolumeError:
            return  # reading it says why
        start = entry.offset // mmap.PAGESIZE * mmap.PAGESIZE
        stop = min(entry.offset + entry.n_bytes, len(mapped))
        if start < stop:
            mapped.madvise(mmap.MADV_WILLNEED, start, stop - start)

    def _hold_shards(self) -> bool:
        """Open every shard that is used; False where one is missing, which its volumes say when read."""
        try:
            for shard in {entry.shard for entry in self.entries.values() if not entry.reason}:
                self._map(shard)
        except VolumeError:
            return False
        return True

    def _path(self, shard: str) -> Path:
        return self.folder / f"{shard}{VOLUMES_ENDING}"

    def _map(self, shard: str) -> mmap.mmap:
        with self._lock:
            if shard not in self._maps:
                path = self._path(shard)
                try:
                    with path.open("rb") as handle:
                        self._maps[shard] = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
                except (OSError, ValueError) as error:
                    raise VolumeError(
                        f"its prepared volume cannot be read: {path} ({error})"
                    ) from error
            return self._maps[shard]


@dataclass(frozen=True)
class Parts:
    """The parts of a prepared volume."""

    counts: np.ndarray  # (X * Y,) uint16 runs of each row
    starts: np.ndarray  # (n_runs,) uint16
    lengths: np.ndarray  # (n_runs,) uint16
    positions: np.ndarray  # (n_exact,) uint32 flat position in the box
    exact: np.ndarray  # (n_exact,) float32 stored intensity
    values: np.ndarray  # (n_mask,) as coded

    def packed(self) -> bytes:
        """The parts one after the other, each padded."""
        return b"".join(_padded(getattr(self, f.name).tobytes()) for f in fields(self))


def unpacked(stored: memoryview, entry: Prepared, box: tuple[int, int, int]) -> Parts:
    """The parts of a stored volume, without copying."""
    parts, offset = [], 0
    for kind, count, n_bytes in layout(entry, box):
        parts.append(np.frombuffer(stored, np.dtype(kind).newbyteorder("<"), count, offset))
        offset += n_bytes
    return Parts(*parts)


def layout(entry: Prepared, box: tuple[int, int, int]) -> list[tuple[str, int, int]]:
    """(kind of number, how many, bytes with padding) of the parts of a stored volume."""
    parts = (
        ("uint16", box[0] * box[1]),
        ("uint16", entry.n_runs),
        ("uint16", entry.n_runs),
        ("uint32", entry.n_exact),
        ("float32", entry.n_exact),
        (entry.coding, entry.n_mask),
    )
    return [
        (kind, count, -(-count * np.dtype(kind).itemsize // _ALIGNMENT) * _ALIGNMENT)
        for kind, count in parts
    ]


def _padded(part: bytes) -> bytes:
    return part + b"\x00" * (-len(part) % _ALIGNMENT)
