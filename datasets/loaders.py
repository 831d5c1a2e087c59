"""The volumes of one cell's subjects, and batches of them in a seeded order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from datasets.augmentation import AugmentationPlan
from datasets.volumes import VolumeError, VolumeReader
from utils.common.messages import progress
from utils.common.randomness import generator

BYTES_PER_GB = 1e9


@dataclass
class CellVolumes:
    """Subjects of one cell with the files of their volumes; read on demand, or kept in memory.

    `failures` maps the position of a subject whose volume cannot be used to the reason.
    """

    subject_ids: list[str]
    paths: list[Path]
    ages_years: np.ndarray  # (S,) float64, NaN where unknown
    reader: VolumeReader
    failures: dict[int, str] = field(default_factory=dict)
    _kept: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.subject_ids)

    @property
    def in_memory(self) -> bool:
        """Whether every usable volume is kept in memory."""
        return bool(self._kept) and len(self._kept) + len(self.failures) >= len(self)

    def keep_in_memory(self, memory_gb: float) -> bool:
        """Read every volume once and keep it, if all of them fit into `memory_gb`."""
        needed_gb = len(self) * float(np.prod(self.reader.contrast.box)) * 4 / BYTES_PER_GB
        if needed_gb > memory_gb:
            return False
        name = self.reader.contrast.name
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            read = progress(
                pool.map(self.read, range(len(self))), len(self), f"reading {name}", "vol"
            )
            for position, volume in enumerate(read):
                if isinstance(volume, np.ndarray):
                    self._kept[position] = volume
        return True

    def read(self, position: int) -> np.ndarray | str:
        """(X, Y, Z) float32 volume of the subject at `position`, or the reason why there is none."""
        if position in self.failures:
            return self.failures[position]
        if position in self._kept:
            return self._kept[position]
        try:
            return self.reader.read(self.paths[position])
        except VolumeError as error:
            self.failures[position] = str(error)
            return str(error)


@dataclass(frozen=True)
class Batch:
    """Volumes and ages of the subjects at `positions`; those that failed are left out."""

    positions: torch.Tensor  # (B,) int64
    volumes: torch.Tensor  # (B, 1, X, Y, Z) float32
    ages_years: torch.Tensor  # (B,) float32


class _EpochDataset(Dataset):
    """Positions -> volumes, with this epoch's augmentation; every draw is a function of its words."""

    def __init__(self, volumes: CellVolumes, plan: AugmentationPlan, words: tuple[int | str, ...]):
        self.volumes, self.plan, self.words = volumes, plan, words

    def __getitem__(self, position: int) -> tuple[int, np.ndarray | str]:
        volume = self.volumes.read(position)
        if isinstance(volume, np.ndarray) and self.plan != AugmentationPlan():
            subject = self.volumes.subject_ids[position]
            volume = self.plan.draw(generator(*self.words, subject)).apply(volume)
        return position, volume


def training_batches(
    volumes: CellVolumes,
    batch_size: int,
    plan: AugmentationPlan,
    seed: int,
    epoch: int,
    n_workers: int,
) -> Iterator[Batch]:
    """One epoch in an order that depends on seed and epoch alone; no batch has fewer than two subjects.

    A last batch of one would break batch-norm, so it joins the batch before it.
    """
    order = generator(seed, "order", epoch).permutation(len(volumes)).tolist()
    groups = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if len(groups) > 1 and len(groups[-1]) == 1:
        alone = groups.pop()
        groups[-1] += alone
    dataset = _EpochDataset(volumes, plan, (seed, "augmentation", epoch))
    return _batches(dataset, groups, n_workers, smallest=2)


def evaluation_batches(volumes: CellVolumes, batch_size: int, n_workers: int) -> Iterator[Batch]:
    """All subjects in their order, without augmentation."""
    order = list(range(len(volumes)))
    groups = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return _batches(_EpochDataset(volumes, AugmentationPlan(), ()), groups, n_workers, smallest=1)


def _batches(
    dataset: _EpochDataset, groups: list[list[int]], n_workers: int, smallest: int
) -> Iterator[Batch]:
    volumes = dataset.volumes
    loader = DataLoader(
        dataset,
        batch_sampler=groups,
        collate_fn=list,
        num_workers=0 if volumes.in_memory else n_workers,
    )
    for read in loader:
        usable = [(position, volume) for position, volume in read if isinstance(volume, np.ndarray)]
        for position, volume in read:
            if isinstance(volume, str):  # a worker process found it; remember it here
                volumes.failures[position] = volume
        if len(usable) < smallest:
            continue
        positions = torch.tensor([position for position, _ in usable])
        stacked = np.stack([volume for _, volume in usable])[:, None]
        ages = torch.from_numpy(volumes.ages_years[positions.numpy()].astype(np.float32))
        yield Batch(positions, torch.from_numpy(stacked), ages)
