"""Batches of prepared volumes as they are stored, for a device that expands them itself.

A stored volume is a fifth of its float32 box: what is uploaded is small, and scaling, shift and mirror are
done where the network is. `expanded` gives what `loaders.training_batches` would have given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch

from datasets.augmentation import NO_AUGMENTATION, Augmentation
from datasets.cache.index import Prepared
from datasets.cache.reading import layout
from datasets.loaders import CellVolumes, Epoch, batch_memory, read_ahead
from datasets.volumes import VolumeError

_ALIGNMENT = 64


@dataclass(frozen=True)
class StoredVolume:
    """Where a volume lies in the memory of its batch, and how it is to be expanded."""

    entry: Prepared
    offset: int
    divisor: float
    by: Augmentation


@dataclass(frozen=True)
class QuantisedBatch:
    """Stored bytes of the volumes at `positions`; those that failed are left out."""

    positions: torch.Tensor  # (B,) int64
    ages_years: torch.Tensor  # (B,) float32
    stored: torch.Tensor  # (N,) uint8, volume after volume
    volumes: list[StoredVolume]
    box: tuple[int, int, int]


def quantised_batches(
    epoch: Epoch, n_workers: int, pinned: bool = False
) -> Iterator[QuantisedBatch]:
    """The batches of an epoch as stored bytes, in its order and with its augmentation.

    Every volume must be in the cache (`CellVolumes.prepared`). `pinned` memory uploads asynchronously.
    """

    # a power of two, so that epochs with other groups share the memory
    blocks = batch_memory((1 << (_largest_batch(epoch) - 1).bit_length(),), "uint8")

    def start(group: list[int], threads: ThreadPoolExecutor) -> Callable[[], QuantisedBatch | None]:
        epoch.volumes.fetch(group)
        found = {position: _located(epoch, position) for position in group}
        usable = {position: volume for position, volume in found.items() if volume}
        n_bytes = [_padded(volume.entry.n_bytes) for volume in usable.values()]
        offsets = np.cumsum([0, *n_bytes])
        if pinned:  # torch keeps pinned memory itself, and knows when its upload is over
            memory = torch.empty(int(offsets[-1]), dtype=torch.uint8, pin_memory=True)
        else:
            memory = torch.from_numpy(blocks.take())
        placed = {
            position: replace(volume, offset=int(offset))
            for (position, volume), offset in zip(usable.items(), offsets)
        }
        copied = [
            threads.submit(_copy, epoch.volumes, position, volume, memory.numpy())
            for position, volume in placed.items()
        ]
        return lambda: _finished(epoch, placed, memory, copied)

    return read_ahead(epoch.groups, start, n_workers)


def _largest_batch(epoch: Epoch) -> int:
    """Bytes of the largest group's volumes."""
    cache, paths = epoch.volumes.reader.cache, epoch.volumes.paths
    n_bytes = [_padded(entry.n_bytes) if (entry := cache.entry(path)) else 0 for path in paths]  # type: ignore[union-attr]
    return max((sum(n_bytes[position] for position in group) for group in epoch.groups), default=1)


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT


def _located(epoch: Epoch, position: int) -> StoredVolume | None:
    """A volume with its divisor and augmentation; None (see `failures`) where there is none."""
    volumes = epoch.volumes
    if position in volumes.failures:
        return None
    try:
        entry = volumes.reader.prepared(volumes.paths[position])
        divisor = volumes.reader.divisor_of(entry)
    except VolumeError as error:
        volumes.failures[position] = str(error)
        return None
    return StoredVolume(entry, 0, divisor, epoch.augmentation(position))


def _copy(volumes: CellVolumes, position: int, volume: StoredVolume, memory: np.ndarray) -> bool:
    try:
        stored = volumes.reader.cache.payload(volume.entry)  # type: ignore[union-attr]
    except VolumeError as error:
        volumes.failures[position] = str(error)
        return False
    memory[volume.offset : volume.offset + len(stored)] = np.frombuffer(stored, np.uint8)
    return True


def _finished(
    epoch: Epoch, placed: dict[int, StoredVolume], memory: torch.Tensor, copied: list[Future]
) -> QuantisedBatch | None:
    usable = [position for position, future in zip(placed, copied) if future.result()]
    if len(usable) < epoch.smallest:
        return None
    volumes = epoch.volumes
    return QuantisedBatch(
        torch.tensor(usable),
        torch.from_numpy(volumes.ages_years[usable].astype(np.float32)),
        memory,
        [placed[position] for position in usable],
        volumes.reader.contrast.box,
    )


def expanded(batch: QuantisedBatch, device: torch.device) -> torch.Tensor:
    """(B, 1, X, Y, Z) float32 on the device: what `loaders.training_batches` gives for the same epoch."""
    stored = batch.stored.to(device, non_blocking=True)
    n_voxels = math.prod(batch.box)
    boxes = torch.zeros((len(batch.volumes), n_voxels + 1), device=device)
    for box, volume in zip(boxes, batch.volumes):
        _expand(stored, volume, batch.box, box)
    return boxes[:, :n_voxels].reshape(len(batch.volumes), 1, *batch.box)


def _expand(
    stored: torch.Tensor, volume: StoredVolume, size: tuple[int, int, int], box: torch.Tensor
) -> None:
    """Scatter one volume into the flat `box`, whose last element takes what moves out of it."""
    entry = volume.entry
    counts, starts, lengths, positions, exact, values = _parts(stored, volume, size)
    rows = torch.arange(len(counts), device=box.device)
    rows = torch.repeat_interleave(rows, counts, output_size=entry.n_runs)
    before = rows * size[2] + starts - (torch.cumsum(lengths, 0) - lengths)
    where = torch.repeat_interleave(before, lengths, output_size=entry.n_mask)
    where += torch.arange(entry.n_mask, device=box.device)
    if entry.linear:
        voxels = (values.float() + entry.intercept) * (entry.slope / volume.divisor)
    else:
        voxels = values
        if (entry.slope, entry.intercept) != (1.0, 0.0):
            voxels = values.double() * entry.slope + entry.intercept
        voxels = voxels.float() / volume.divisor
    box[_moved(where, volume.by, size)] = voxels
    if entry.n_exact:
        box[_moved(positions, volume.by, size)] = exact / volume.divisor


def _moved(where: torch.Tensor, by: Augmentation, size: tuple[int, int, int]) -> torch.Tensor:
    """Flat positions after shift and mirror; one past the end for what leaves the box."""
    if by == NO_AUGMENTATION:
        return where
    x = where // (size[1] * size[2]) + by.shift[0]
    y = where // size[2] % size[1] + by.shift[1]
    z = where % size[2] + by.shift[2]
    inside = (x >= 0) & (x < size[0]) & (y >= 0) & (y < size[1]) & (z >= 0) & (z < size[2])
    if by.mirrored:
        x = size[0] - 1 - x
    return torch.where(inside, (x * size[1] + y) * size[2] + z, math.prod(size))


def _parts(
    stored: torch.Tensor, volume: StoredVolume, size: tuple[int, int, int]
) -> list[torch.Tensor]:
    """The parts of a stored volume (`reading.layout`) as tensors; unsigned numbers become int64."""
    parts, offset = [], volume.offset
    for kind, count, n_bytes in layout(volume.entry, size):
        part = stored[offset : offset + count * np.dtype(kind).itemsize]
        if kind == "uint16":
            part = part.view(torch.int16).long() & 0xFFFF
        elif kind == "uint32":
            part = part.view(torch.int32).long() & 0xFFFFFFFF
        else:
            part = part.view(getattr(torch, kind))
        parts.append(part)
        offset += n_bytes
    return parts
