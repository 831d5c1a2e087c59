"""The volumes of one cell's subjects: read on demand, or kept in memory; what cannot be used is remembered."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.augmentation import NO_AUGMENTATION, Augmentation
from datasets.images import ReadFaultError
from datasets.volumes import VolumeError, VolumeReader
from utils.common.messages import progress

BYTES_PER_GB = 1e9


@dataclass
class CellVolumes:
    """Subjects of one cell with the files of their volumes; read on demand, or kept in memory.

    `failures` maps the position of a subject whose volume cannot be used to the reason, `conformed`
    that of a subject whose volume was reoriented or resampled to what was done. `faults` has the reason
    where it was ever the machine's; such a volume is tried again whenever it is its turn, and leaves
    `failures` as soon as it could be read.
    """

    subject_ids: list[str]
    paths: list[Path]
    ages_years: np.ndarray  # (S,) float64, NaN where unknown
    reader: VolumeReader
    failures: dict[int, str] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)
    conformed: dict[int, str] = field(default_factory=dict)
    _kept: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.subject_ids)

    @property
    def prepared(self) -> bool:
        """Whether every volume is in the cache."""
        return not self.unprepared()

    def unprepared(self) -> list[int]:
        """Positions of the volumes that are not in the cache, and are read from their files."""
        cache = self.reader.cache
        return [i for i, path in enumerate(self.paths) if cache is None or not cache.entry(path)]

    def note_failures(self) -> None:
        """Enter what the cache knows of volumes that cannot be used; nothing is read for it."""
        cache = self.reader.cache
        for position, path in enumerate(self.paths if cache else []):
            if cache.entry(path):  # type: ignore[union-attr]
                try:
                    self.reader.divisor_of(self.reader.prepared(path))
                except VolumeError as error:
                    self.failures[position] = str(error)

    def seconds_a_volume(self) -> float:
        """How long one thread takes for the first volume that can be used and is not prepared."""
        for position in self.unprepared():
            if isinstance(self.read(position), np.ndarray):
                started = time.perf_counter()
                self.read(position)
                return time.perf_counter() - started
        return 0.0

    def gigabytes_to_keep(self) -> float:
        """What `keep_in_memory` takes."""
        return len(self.unprepared()) * math.prod(self.reader.contrast.box) * 4 / BYTES_PER_GB

    def keep_in_memory(self, n_threads: int = 1) -> None:
        """Read every volume that is not prepared once, and keep it."""
        positions, name = self.unprepared(), self.reader.contrast.name
        if not positions:
            return
        with ThreadPoolExecutor(max_workers=max(1, n_threads)) as pool:
            read = progress(
                pool.map(self.read, positions), len(positions), f"reading {name}", "vol"
            )
            for position, volume in zip(positions, read):
                if isinstance(volume, np.ndarray):
                    self._kept[position] = volume

    def fetch(self, positions: list[int]) -> None:
        """Ask the system to fetch prepared volumes that are about to be read, all at once."""
        cache = self.reader.cache
        for position in positions if cache else []:
            if entry := cache.entry(self.paths[position]):  # type: ignore[union-attr]
                cache.read_ahead(entry)  # type: ignore[union-attr]

    def read(self, position: int) -> np.ndarray | str:
        """(X, Y, Z) float32 volume of the subject at `position`, or the reason why there is none."""
        if position in self._kept:
            return self._kept[position]
        box = np.empty(self.reader.contrast.box, dtype=np.float32)
        return box if self.read_into(position, box) else self.failures[position]

    def read_into(self, position: int, box: np.ndarray, by: Augmentation = NO_AUGMENTATION) -> bool:
        """Write the augmented volume into (X, Y, Z) float32 `box`; False (see `failures`) if it failed."""
        if position in self.failures and position not in self.faults:
            return False
        if position in self._kept:
            by.apply(self._kept[position], box)
            return True
        try:
            done = self.reader.read_into(self.paths[position], box, by)
        except VolumeError as error:
            self.failures[position] = str(error)
            if isinstance(error, ReadFaultError):
                self.faults[position] = str(error)
            else:
                self.faults.pop(position, None)
            return False
        self.failures.pop(position, None)
        if done:
            self.conformed[position] = done
        return True
