"""Prepared volumes on disk; the only file that knows their format.

A cache folder belongs to one contrast and one way of cropping, conforming and storing it (`CacheKey`).
In it lie shards: `NAME.volumes` holds the volumes one after the other, `NAME.json` says what is where
and ends with its own checksum. A shard is written by one process only, volumes first, then the index
beside and renamed: a volume counts from the moment an index on disk names it, whatever happens later.
Readers take all indexes together; where two name the same source, the later generation holds.

A volume holds the voxels of its mask (those that are not 0), as runs along the last axis:

    runs of each row (X * Y, uint16), starts and lengths of the runs (uint16),
    positions (uint32) and values (float32) of voxels that are kept exactly, values of all runs

each part padded to 8 bytes, under one crc32 that is verified whenever a volume is read.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import threading
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from datasets import kernels
from datasets.augmentation import Augmentation
from datasets.compression import crc32
from datasets.contrasts import Contrast
from datasets.images import VolumeError
from utils.common.errors import UserError
from utils.common.files import write_bytes

FORMAT_VERSION = 1
STORAGES = ("uint16", "uint8", "float16", "float32")
_ALIGNMENT = 8
_INDEX_ENDING, _VOLUMES_ENDING = ".json", ".volumes"


class DamagedIndexError(UserError):
    """An index is not as it was written."""


@dataclass(frozen=True)
class CacheKey:
    """What makes a prepared volume: another value of any of these is another volume."""

    format_version: int
    contrast: str
    shape: tuple[int, ...]
    voxel_mm: float
    crop: tuple[tuple[int, int], ...]
    volume_index: int | None
    conform: str
    storage: str

    @classmethod
    def of(cls, contrast: Contrast, conform: str, storage: str) -> CacheKey:
        """The key of a contrast as the settings have it."""
        return cls(
            FORMAT_VERSION, contrast.name, contrast.shape, contrast.voxel_mm, contrast.crop,
            contrast.volume_index, conform, storage,
        )  # fmt: skip

    def plain(self) -> dict[str, Any]:
        """As JSON would give it back."""
        return json.loads(json.dumps(asdict(self)))

    @property
    def folder_name(self) -> str:
        """`T1_nonlinear-1a2b3c4d`."""
        text = json.dumps(self.plain(), sort_keys=True)
        return f"{self.contrast}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @property
    def box(self) -> tuple[int, int, int]:
        """Shape of a cropped volume."""
        return tuple(stop - start for start, stop in self.crop)  # type: ignore[return-value]

    def differences(self, other: dict[str, Any]) -> list[str]:
        """In what another key differs from this one."""
        mine = self.plain()
        return [
            f"{name} was {other.get(name)!r} and is {value!r}"
            for name, value in mine.items()
            if other.get(name) != value
        ]


@dataclass(frozen=True)
class Prepared:
    """One source file in the cache: what it was, what came of it, and where that lies."""

    source: str
    n_source_bytes: int  # with the time of change: decides whether the content is hashed again
    source_time_ns: int
    source_hash: str  # sha256 of the file; "" where it could not be read
    reason: str = ""  # why there is no volume; "" where there is one
    done: str = ""  # what conforming did
    shard: str = ""
    offset: int = 0
    n_bytes: int = 0
    checksum: int = 0
    coding: str = ""  # kind of number of the values
    lossless: bool = True
    slope: float = 1.0
    intercept: float = 0.0
    n_runs: int = 0
    n_exact: int = 0
    n_mask: int = 0
    mean: float = 0.0  # of the crop, background included
    mask_mean: float = 0.0
    mask_sd: float = 0.0
    smallest: float = 0.0
    largest: float = 0.0
    height: float | None = None  # what `scale_factor = auto` looks at

    @property
    def linear(self) -> bool:
        """Whether a voxel is (value + intercept) * slope; else it is value * slope + intercept."""
        return not self.lossless


_FIELDS = [f.name for f in fields(Prepared)]


@dataclass
class ContrastCache:
    """Prepared volumes of one contrast, memory-mapped; reading is safe from many threads."""

    folder: Path
    key: CacheKey
    entries: dict[str, Prepared] = field(default_factory=dict)
    _maps: dict[str, mmap.mmap] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def open(cls, folder: Path, key: CacheKey) -> ContrastCache:
        """What all indexes in `folder` name; an absent folder is an empty cache.

        All shards are opened here: what another job removes later stays readable.

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
        parts = unpacked(self.payload(entry), entry, self.key.box)
        factor = np.float32(divisor)
        if entry.linear:
            how, slope = kernels.LINEAR, entry.slope / divisor
        else:
            how, slope = kernels.EXACT, entry.slope
        values = parts.values
        if values.dtype == np.float16:
            values = values.astype(np.float32)
        kernels.expand_runs(
            values, parts.counts, parts.starts, parts.lengths, how, slope, entry.intercept, factor,
            by.shift, by.mirrored, box,
        )  # fmt: skip
        if entry.n_exact:
            kernels.place_voxels(parts.positions, parts.exact, factor, by.shift, by.mirrored, box)

    def payload(self, entry: Prepared) -> memoryview:
        """The stored bytes of a volume, verified; as they are for a device that expands them itself."""
        if entry.reason:
            raise VolumeError(entry.reason)
        mapped = self._map(entry.shard)
        stop = entry.offset + entry.n_bytes
        if stop > len(mapped):
            raise VolumeError(f"its prepared volume is cut off in {self._path(entry.shard)}")
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
        return self.folder / f"{shard}{_VOLUMES_ENDING}"

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


def source_of(path: str | Path) -> str:
    """How a source file is named in an index: its absolute path, symbolic links kept."""
    return os.path.abspath(path)  # noqa: PTH100 - Path.resolve would follow links


def index_paths(folder: Path) -> list[Path]:
    """Indexes of a cache folder, earlier generations first."""
    return sorted(folder.glob(f"*{_INDEX_ENDING}")) if folder.is_dir() else []


def cache_folders(root: Path, contrasts: list[str]) -> list[Path]:
    """Cache folders of these contrasts, whatever their key."""
    pattern = re.compile(f"({'|'.join(map(re.escape, contrasts))})-[0-9a-f]{{8}}")
    there = root.iterdir() if root.is_dir() else []
    return sorted(path for path in there if path.is_dir() and pattern.fullmatch(path.name))


def volumes_path(index_path: Path) -> Path:
    """The volumes of an index."""
    return index_path.with_suffix(_VOLUMES_ENDING)


def write_index(path: Path, key: CacheKey, entries: list[Prepared]) -> None:
    """Write an index beside and rename it; its last line is the checksum of what stands before."""
    rows = [[getattr(entry, name) for name in _FIELDS] for entry in entries]
    content = {"key": key.plain(), "fields": _FIELDS, "entries": rows}
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"
    data = text.encode("utf-8", "surrogateescape")
    write_bytes(data + hashlib.sha256(data).hexdigest().encode("ascii") + b"\n", path)


def read_indexes(folder: Path) -> dict[Path, dict[str, Any]]:
    """Every index of a cache folder; looks again where another job removed one meanwhile.

    Raises
    ------
    UserError
        As `read_index`.
    """
    while True:
        paths = index_paths(folder)
        try:
            return {path: read_index(path) for path in paths}
        except UserError:
            if index_paths(folder) == paths:
                raise


def read_index(path: Path) -> dict[str, Any]:
    """Key and entries of an index.

    Raises
    ------
    UserError
        It cannot be read.
    DamagedIndexError
        Its checksum differs.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error
    text, _, checksum = data.removesuffix(b"\n").rpartition(b"\n")
    if hashlib.sha256(text + b"\n").hexdigest().encode("ascii") != checksum:
        raise DamagedIndexError(
            f"{path}: this index of prepared volumes is damaged (its checksum differs). Run -m prepare, "
            "which prepares its volumes anew."
        )
    content = json.loads(text.decode("utf-8", "surrogateescape"))
    if content["key"].get("format_version") != FORMAT_VERSION:
        content["entries"] = []
        return content
    content["entries"] = [
        Prepared(**dict(zip(content["fields"], row))) for row in content["entries"]
    ]
    return content


def other_caches(root: Path, key: CacheKey, sources: set[str]) -> list[tuple[Path, list[str]]]:
    """Caches of the same contrast under another key that hold some of these sources, and what differs.

    Damaged indexes are passed over: nothing is read from them.
    """
    found = []
    for folder in cache_folders(root, [key.contrast]):
        if folder.name == key.folder_name:
            continue
        for path in index_paths(folder):
            try:
                content = read_index(path)
            except UserError:
                continue
            same = content["key"].get("contrast") == key.contrast
            differences = key.differences(content["key"])
            held = any(entry.source in sources for entry in content["entries"])
            if same and differences and (held or not content["entries"]):
                found.append((folder, differences))
                break
    return found
