"""What lies where in a cache: the key of a folder, the entry of a volume, the indexes on disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from datasets.contrasts import AGEMAPPER, Contrast
from utils.common.errors import UserError
from utils.common.files import write_bytes

FORMAT_VERSION = 1
N_TRIES = 5
INDEX_ENDING, VOLUMES_ENDING = ".json", ".volumes"


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
    preprocessing: str = AGEMAPPER

    @classmethod
    def of(cls, contrast: Contrast, conform: str, storage: str) -> CacheKey:
        """The key of a contrast as the settings have it."""
        return cls(
            FORMAT_VERSION, contrast.name, contrast.shape, contrast.voxel_mm, contrast.crop,
            contrast.volume_index, conform, storage, contrast.preprocessing,
        )  # fmt: skip

    def plain(self) -> dict[str, Any]:
        """As JSON would give it back; the preprocessing that caches always had is not written."""
        content = json.loads(json.dumps(asdict(self)))
        if self.preprocessing == AGEMAPPER:
            del content["preprocessing"]
        return content

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
        mine = {"preprocessing": AGEMAPPER, **self.plain()}
        other = {"preprocessing": AGEMAPPER, **other}
        return [
            f"{name} was {other.get(name)!r} and is {value!r}"
            for name, value in mine.items()
            if other.get(name) != value
        ]


@dataclass(frozen=True, slots=True)
class Prepared:
    """One source file in the cache: what it was, what came of it, and where that lies."""

    source: str
    n_source_bytes: int  # with the time of change: decides whether the content is hashed again
    source_time_ns: int  # summed over the files of an image, as is the size
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
    mean: float = (
        0.0  # of the crop, or (preprocessing `peng`) of the whole volume; background included
    )
    mask_mean: float = 0.0
    mask_sd: float = 0.0
    smallest: float = 0.0
    largest: float = 0.0
    again: str = ""  # with a reason: why the next preparation tries again
    percentile: float | None = None  # of the crop, that `scale_factor = auto` looks at

    @property
    def linear(self) -> bool:
        """Whether a voxel is (value + intercept) * slope; else it is value * slope + intercept."""
        return not self.lossless


_FIELDS = [f.name for f in fields(Prepared)]


def source_of(path: str | Path) -> str:
    """How a source file is named in an index: its absolute path, as given (`..` may lead through a link)."""
    return os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118


def index_paths(folder: Path) -> list[Path]:
    """Indexes of a cache folder, earlier generations first."""
    return sorted(folder.glob(f"*{INDEX_ENDING}")) if folder.is_dir() else []


def cache_folders(root: Path, contrasts: list[str]) -> list[Path]:
    """Cache folders of these contrasts, whatever their key."""
    pattern = re.compile(f"({'|'.join(map(re.escape, contrasts))})-[0-9a-f]{{8}}")
    there = root.iterdir() if root.is_dir() else []
    return sorted(path for path in there if path.is_dir() and pattern.fullmatch(path.name))


def volumes_path(index_path: Path) -> Path:
    """The volumes of an index."""
    return index_path.with_suffix(VOLUMES_ENDING)


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


def _read_again_if_stale(path: Path) -> bytes:
    """The bytes of a file that another machine may just be replacing (network file systems)."""
    for _ in range(N_TRIES):
        try:
            return path.read_bytes()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            time.sleep(0.1)
    return path.read_bytes()


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
        data = _read_again_if_stale(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error
    text, _, checksum = data.removesuffix(b"\n").rpartition(b"\n")
    if hashlib.sha256(text + b"\n").hexdigest().encode("ascii") != checksum:
        raise DamagedIndexError(
            f"{path}: this index of prepared volumes is damaged (its checksum differs). Run -m prepare, "
            "which prepares its volumes anew."
        )
    content = json.loads(text.decode("utf-8", "surrogateescape"))
    named = content["fields"].index("source")  # so in every format
    content["sources"] = {row[named] for row in content["entries"]}
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
            held = not sources.isdisjoint(content["sources"])
            if same and differences and held:
                found.append((folder, differences))
                break
    return found
