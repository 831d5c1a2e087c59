"""Batches of one cell's volumes in a seeded order, read ahead by threads.

Decompression, checksums and the compiled loops release Python's lock, so threads do what process
copies would do, without copies: each volume is written straight into the memory of its batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from datasets.augmentation import AugmentationPlan
from datasets.batch_memory import batch_memory
from datasets.cell_volumes import CellVolumes
from datasets.epochs import (
    SMALLEST_GROUP,
    WHOLE,
    Epoch,
    Part,
    Share,
    evaluation_epoch,
    training_epoch,
)
from datasets.sampling import EACH

__all__ = [
    "Batch",
    "CellVolumes",
    "Epoch",
    "Share",
    "batches",
    "evaluation_batches",
    "evaluation_epoch",
    "read_ahead",
    "training_batches",
    "training_epoch",
]

T = TypeVar("T")
# Batches that are being read while one is being computed with.
N_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class Batch:
    """Volumes and ages of the subjects at `positions`; those that failed are left out.

    Its memory is used again once nobody holds `volumes` any more.
    """

    positions: torch.Tensor  # (B,) int64, on the CPU
    volumes: torch.Tensor  # (B, 1, X, Y, Z) float32
    ages_years: torch.Tensor  # (B,) float32
    step: int  # index of its group in the epoch; a group that is passed over leaves a gap
    n_in_group: int  # subjects of the group over all processes


def training_batches(
    volumes: CellVolumes,
    batch_size: int,
    plan: AugmentationPlan,
    seed: int,
    epoch: int,
    n_workers: int,
    *,
    first_step: int = 0,
    sampling: str = EACH,
    share: Share = WHOLE,
    smallest_group: int = SMALLEST_GROUP,
) -> Iterator[Batch]:
    """One epoch, a function of seed and epoch alone, from group `first_step` on.

    A batch of one would break batch-norm, and a group of fewer subjects than processes leave one without
    any: a last group with fewer than max(2, `smallest_group`, number of processes) joins the one before.
    One process with `smallest_group` n has the groups of n processes. `n_workers` threads read ahead;
    0: volumes are read when their batch is asked for.

    Raises
    ------
    UserError
        Several processes share the groups, and a volume is not prepared, or fails when it is read.
    """
    chosen = training_epoch(
        volumes, batch_size, plan, seed, epoch,
        sampling=sampling, share=share, smallest_group=smallest_group,
    )  # fmt: skip
    return batches(chosen, n_workers, first_step)


def evaluation_batches(
    volumes: CellVolumes, batch_size: int, n_workers: int, *, share: Share = WHOLE
) -> Iterator[Batch]:
    """All subjects in their order, without augmentation; a process whose part is empty gets no batch."""
    return batches(evaluation_epoch(volumes, batch_size, share=share), n_workers)


def batches(
    epoch: Epoch, n_workers: int, first_step: int = 0, pinned: bool = False
) -> Iterator[Batch]:
    """Read batch after batch into memory that is used again and again.

    `pinned` memory uploads asynchronously; it needs a CUDA device.
    """
    box = epoch.volumes.reader.contrast.box
    most = -(-max(map(len, epoch.groups), default=0) // epoch.share.n)
    memory = batch_memory((most, 1, *box))

    def start(part: Part, threads: ThreadPoolExecutor) -> Callable[[], Batch | None]:
        epoch.volumes.fetch([turn.position for turn in part.turns])
        if pinned:  # torch keeps pinned memory itself, and knows when its upload is over
            boxes = torch.empty((len(part.turns), 1, *box), pin_memory=True)
        else:
            boxes = torch.from_numpy(memory.take())
        read = [
            threads.submit(epoch.volumes.read_into, turn.position, box[0], epoch.augmentation(turn))
            for turn, box in zip(part.turns, boxes.numpy())
        ]
        return lambda: _finished(epoch, part, boxes, read)

    return read_ahead(epoch.parts(first_step), start, n_workers)


def read_ahead(
    parts: Iterable[Part],
    start: Callable[[Part, ThreadPoolExecutor], Callable[[], T | None]],
    n_workers: int,
) -> Iterator[T]:
    """Batches of the groups in their order, a few ahead of the one that is computed with.

    `start` begins to read a process's part of a group in threads and returns what waits for its batch; a
    batch that is None is passed over. With no workers a batch is read when it is asked for.
    """
    n_ahead = N_BATCHES_AHEAD if n_workers else 0
    with ThreadPoolExecutor(max_workers=max(1, n_workers)) as threads:
        started: deque[Callable[[], T | None]] = deque()
        try:
            for part in parts:
                started.append(start(part, threads))
                if len(started) > n_ahead and (batch := started.popleft()()) is not None:
                    yield batch
                    del batch  # else this name would keep its memory from being used again
            while started:
                if (batch := started.popleft()()) is not None:
                    yield batch
        finally:
            threads.shutdown(wait=True, cancel_futures=True)


def _finished(epoch: Epoch, part: Part, boxes: torch.Tensor, read: list[Future]) -> Batch | None:
    """The batch, once all its volumes are there; None if too few of them are usable."""
    usable = epoch.usable(part, [future.result() for future in read])
    if not usable:
        return None
    positions = torch.tensor([part.turns[i].position for i in usable])
    if len(usable) == len(part.turns):
        chosen = boxes[: len(usable)]
    else:
        chosen = boxes[torch.tensor(usable)]
    ages = torch.from_numpy(epoch.volumes.ages_years[positions.numpy()].astype(np.float32))
    return Batch(positions, chosen, ages, part.step, epoch.n_in_group(part, usable))
