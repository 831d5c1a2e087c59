"""The volumes of one cell's subjects, and batches of them in a seeded order, read ahead by threads.

Decompression, checksums and the compiled loops release Python's lock, so threads do what process
copies would do, without copies: each volume is written straight into the memory of its batch.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import DTypeLike

from datasets.augmentation import NO_AUGMENTATION, Augmentation, AugmentationPlan
from datasets.images import ReadFaultError
from datasets.volumes import VolumeError, VolumeReader
from utils.common.messages import progress
from utils.common.randomness import generator

T = TypeVar("T")
BYTES_PER_GB = 1e9
# Batches that are being read while one is being computed with.
N_BATCHES_AHEAD = 2


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


@dataclass(frozen=True)
class Batch:
    """Volumes and ages of the subjects at `positions`; those that failed are left out.

    Its memory is used again once nobody holds `volumes` any more.
    """

    positions: torch.Tensor  # (B,) int64
    volumes: torch.Tensor  # (B, 1, X, Y, Z) float32
    ages_years: torch.Tensor  # (B,) float32


@dataclass(frozen=True)
class Epoch:
    """Which subjects form which batch, and how each is augmented: a function of seed and epoch."""

    volumes: CellVolumes
    groups: list[list[int]]
    plan: AugmentationPlan
    words: tuple[int | str, ...]
    smallest: int  # a batch with fewer usable subjects is passed over

    def augmentation(self, position: int) -> Augmentation:
        if self.plan == AugmentationPlan():
            return NO_AUGMENTATION
        return self.plan.draw(generator(*self.words, self.volumes.subject_ids[position]))


def training_batches(
    volumes: CellVolumes,
    batch_size: int,
    plan: AugmentationPlan,
    seed: int,
    epoch: int,
    n_workers: int,
) -> Iterator[Batch]:
    """One epoch in an order that depends on seed and epoch alone; no batch has fewer than two subjects.

    A last batch of one would break batch-norm, so it joins the batch before it. `n_workers` threads
    read ahead; 0: volumes are read when their batch is asked for.
    """
    return _batches(training_epoch(volumes, batch_size, plan, seed, epoch), n_workers)


def training_epoch(
    volumes: CellVolumes, batch_size: int, plan: AugmentationPlan, seed: int, epoch: int
) -> Epoch:
    """Order, groups and augmentation of one epoch; see `training_batches`."""
    order = generator(seed, "order", epoch).permutation(len(volumes)).tolist()
    groups = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if len(groups) > 1 and len(groups[-1]) == 1:
        alone = groups.pop()
        groups[-1] += alone
    return Epoch(volumes, groups, plan, (seed, "augmentation", epoch), 2)


def evaluation_batches(volumes: CellVolumes, batch_size: int, n_workers: int) -> Iterator[Batch]:
    """All subjects in their order, without augmentation."""
    order = list(range(len(volumes)))
    groups = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return _batches(Epoch(volumes, groups, AugmentationPlan(), (), 1), n_workers)


def _batches(epoch: Epoch, n_workers: int) -> Iterator[Batch]:
    """Read batch after batch into memory that is used again and again."""
    most = max(map(len, epoch.groups), default=0)
    memory = batch_memory((most, 1, *epoch.volumes.reader.contrast.box))

    def start(group: list[int], threads: ThreadPoolExecutor) -> Callable[[], Batch | None]:
        epoch.volumes.fetch(group)
        boxes = memory.take()
        read = [
            threads.submit(epoch.volumes.read_into, position, box[0], epoch.augmentation(position))
            for position, box in zip(group, boxes)
        ]
        return lambda: _finished(epoch, group, boxes, read)

    return read_ahead(epoch.groups, start, n_workers)


def read_ahead(
    groups: list[list[int]],
    start: Callable[[list[int], ThreadPoolExecutor], Callable[[], T | None]],
    n_workers: int,
) -> Iterator[T]:
    """Batches of the groups in their order, a few ahead of the one that is computed with.

    `start` begins to read a group in threads and returns what waits for its batch; a batch that is
    None is passed over. With no workers a batch is read when it is asked for.
    """
    n_ahead = N_BATCHES_AHEAD if n_workers else 0
    with ThreadPoolExecutor(max_workers=max(1, n_workers)) as threads:
        started: deque[Callable[[], T | None]] = deque()
        try:
            for group in groups:
                started.append(start(group, threads))
                if len(started) > n_ahead and (batch := started.popleft()()) is not None:
                    yield batch
                    del batch  # else this name would keep its memory from being used again
            while started:
                if (batch := started.popleft()()) is not None:
                    yield batch
        finally:
            threads.shutdown(wait=True, cancel_futures=True)


def _finished(
    epoch: Epoch, group: list[int], boxes: np.ndarray, read: list[Future]
) -> Batch | None:
    """The batch, once all its volumes are there; None if too few of them are usable."""
    usable = [i for i, future in enumerate(read) if future.result()]
    if len(usable) < epoch.smallest:
        return None
    positions = torch.tensor([group[i] for i in usable])
    stacked = boxes[: len(group)] if len(usable) == len(group) else boxes[usable]
    ages = torch.from_numpy(epoch.volumes.ages_years[positions.numpy()].astype(np.float32))
    return Batch(positions, torch.from_numpy(stacked), ages)


class BatchMemory:
    """Memory for batches that is given again as soon as nobody else holds it.

    Fresh memory costs more than the decoding it is for: the system has to clear every page of it.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike):
        self.shape, self.dtype = shape, dtype
        self._blocks: list[np.ndarray] = []
        self._lock = threading.Lock()

    def take(self) -> np.ndarray:
        """Memory of that shape, not cleared."""
        with self._lock:
            for i in range(len(self._blocks)):
                if _references(self._blocks, i) == _REFERENCES_WHEN_FREE:
                    return self._blocks[i]
            self._blocks.append(np.empty(self.shape, dtype=self.dtype))
            return self._blocks[-1]


def _references(blocks: list[np.ndarray], i: int) -> int:
    """How many references there are to a block, those of the list and of this call among them."""
    return sys.getrefcount(blocks[i])


# What the same call says of a block that nobody but its list holds: versions of Python differ.
_REFERENCES_WHEN_FREE = _references([np.empty(0)], 0)


@cache
def batch_memory(shape: tuple[int, ...], kind: str = "float32") -> BatchMemory:
    """Memory of a shape that all epochs share: a gigabyte for full-size volumes, cleared once."""
    return BatchMemory(shape, kind)
