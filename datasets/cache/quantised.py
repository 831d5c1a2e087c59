"""Batches of prepared volumes as they are stored, for a device that expands them itself.

A stored volume is a fifth of its float32 box: what is uploaded is small, and scattering, scaling,
resampling and intensity are done where the network is. Shift and mirror change only where runs of voxels
start, a hundredth of the numbers: that is worked out here, once per run. `expanded` gives what
`loaders.batches` would have given.

What the device moves, by counting, for a 1 mm volume of N = 2.2 million voxels in the mask of a box of
V = 4.9 million, stored as uint16: 2 N bytes uploaded (and 8 for each run); the box cleared, 4 V; places
8 N written as ones, 16 N to sum them up; codes to numbers 22 N; scaling 16 N; scatter 16 N; in all
4 V + 80 N bytes = 0.2 GB, 0.05 ms at 4.3 TB/s, in about twelve launches a volume. Rotation or zoom add
100 V bytes, 0.5 GB (most of it a grid in float64), and another twenty launches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch

from datasets import kernels
from datasets.augmentation import Augmentation
from datasets.batch_memory import batch_memory
from datasets.cache.index import Prepared
from datasets.cache.reading import unpacked
from datasets.epochs import Epoch, Part
from datasets.loaders import read_ahead
from datasets.volumes import VolumeError

_ALIGNMENT = 64
# A box of zeros, from which everything was moved, stays one.
_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class StoredVolume:
    """Where a volume lies in the memory of its batch, and how it is to be expanded.

    One after the other, each padded: values as coded, int32 first voxels of the runs, their int32 jumps
    (`kernels.move_runs`), int32 places of the exact voxels, these as float32.
    """

    entry: Prepared
    offset: int
    divisor: float
    by: Augmentation
    n_voxels: int = 0  # that stay in the box
    n_runs: int = 0
    n_exact: int = 0


@dataclass(frozen=True)
class QuantisedBatch:
    """Stored numbers of the volumes at `positions`; those that failed are left out."""

    positions: torch.Tensor  # (B,) int64
    ages_years: torch.Tensor  # (B,) float32
    stored: torch.Tensor  # (N,) uint8, volume after volume
    volumes: list[StoredVolume]
    box: tuple[int, int, int]
    step: int
    n_in_group: int


def quantised_batches(
    epoch: Epoch, n_workers: int, first_step: int = 0, pinned: bool = False
) -> Iterator[QuantisedBatch]:
    """The batches of an epoch as stored numbers, in its order and with its augmentation.

    Every volume must be in the cache (`CellVolumes.prepared`). `pinned` memory uploads asynchronously.
    """

    # a power of two, so that epochs with other groups share the memory
    blocks = batch_memory((1 << (_largest_batch(epoch) - 1).bit_length(),), "uint8")

    def start(part: Part, threads: ThreadPoolExecutor) -> Callable[[], QuantisedBatch | None]:
        epoch.volumes.fetch([turn.position for turn in part.turns])
        placed, n_bytes = _placed(epoch, part)
        if pinned:  # torch keeps pinned memory itself, and knows when its upload is over
            memory = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=True)
        else:
            memory = torch.from_numpy(blocks.take())[:n_bytes]
        numbers = memory.numpy()
        copied = [
            threads.submit(_copied, epoch, turn.position, volume, numbers)
            for turn, volume in zip(part.turns, placed)
        ]
        return lambda: _finished(epoch, part, memory, copied)

    return read_ahead(epoch.parts(first_step), start, n_workers)


def _largest_batch(epoch: Epoch) -> int:
    """Bytes of the largest part's volumes."""
    cache, paths = epoch.volumes.reader.cache, epoch.volumes.paths
    n_bytes = [_n_bytes(entry) if (entry := cache.entry(path)) else 0 for path in paths]  # type: ignore[union-attr]
    parts = (sum(n_bytes[turn.position] for turn in part.turns) for part in epoch.parts())
    return max(parts, default=1)


def _places(volume: StoredVolume) -> Iterator[tuple[str, int, int]]:
    """(kind of number, byte it starts at, how many) of what a volume has in the memory of its batch."""
    entry, start = volume.entry, volume.offset
    for kind, count in _kinds(entry):
        yield kind, start, count
        start += _padded(count * np.dtype(kind).itemsize)


def _kinds(entry: Prepared) -> tuple[tuple[str, int], ...]:
    return (
        (entry.coding, entry.n_mask),
        ("int32", entry.n_runs),
        ("int32", entry.n_runs),
        ("int32", entry.n_exact),
        ("float32", entry.n_exact),
    )


def _n_bytes(entry: Prepared) -> int:
    """What a volume takes in the memory of its batch."""
    if entry.reason:
        return 0
    return sum(_padded(count * np.dtype(kind).itemsize) for kind, count in _kinds(entry))


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT


def _placed(epoch: Epoch, part: Part) -> tuple[list[StoredVolume | None], int]:
    """Where the volumes of a part go, None (see `failures`) where there is none; and bytes in all."""
    placed: list[StoredVolume | None] = []
    n_bytes, volumes = 0, epoch.volumes
    for turn in part.turns:
        volume = None
        if turn.position not in volumes.failures:
            try:
                entry = volumes.reader.prepared(volumes.paths[turn.position])
                divisor = volumes.reader.divisor_of(entry)
                volume = StoredVolume(entry, n_bytes, divisor, epoch.augmentation(turn))
                n_bytes += _n_bytes(entry)
            except VolumeError as error:
                volumes.failures[turn.position] = str(error)
        placed.append(volume)
    return placed, n_bytes


def _copied(
    epoch: Epoch, position: int, volume: StoredVolume | None, memory: np.ndarray
) -> StoredVolume | None:
    """Write a volume's numbers to its place; None (see `failures`) where they cannot be used."""
    if volume is None:
        return None
    cache = epoch.volumes.reader.cache
    assert cache is not None
    size, by = cache.key.box, volume.by.by_whole_voxels
    try:
        parts = unpacked(cache.payload(volume.entry), volume.entry, size)
        kept, firsts, jumps, places, exact = (
            memory[start : start + count * np.dtype(kind).itemsize].view(kind)
            for kind, start, count in _places(volume)
        )
        sources = np.empty_like(firsts)
        n_runs, n_voxels = kernels.move_runs(
            parts.counts, parts.starts, parts.lengths, len(parts.values), size, by.shift, by.mirrored,
            firsts, jumps, sources,
        )  # fmt: skip
        n_exact = kernels.move_voxels(
            parts.positions, parts.exact, size, by.shift, by.mirrored, exact, places
        )
        if n_runs < 0 or n_exact < 0:
            raise VolumeError("its prepared volume contradicts itself; -m prepare makes it again")
        if n_voxels == len(kept):
            kept[:] = parts.values
        else:
            bits = f"uint{8 * kept.itemsize}"  # Numba knows no float16
            values = parts.values.view(bits)
            kernels.keep_values(
                values, firsts[:n_runs], sources[:n_runs], n_voxels, kept.view(bits)
            )
    except VolumeError as error:
        epoch.volumes.failures[position] = str(error)
        return None
    return replace(volume, n_voxels=n_voxels, n_runs=n_runs, n_exact=n_exact)


def _finished(
    epoch: Epoch, part: Part, memory: torch.Tensor, copied: list[Future]
) -> QuantisedBatch | None:
    found = [future.result() for future in copied]
    usable = epoch.usable(part, [volume is not None for volume in found])
    if not usable:
        return None
    positions = [part.turns[i].position for i in usable]
    return QuantisedBatch(
        torch.tensor(positions),
        torch.from_numpy(epoch.volumes.ages_years[positions].astype(np.float32)),
        memory,
        [found[i] for i in usable],
        epoch.volumes.reader.contrast.box,
        part.step,
        epoch.n_in_group(part, usable),
    )


def expanded(batch: QuantisedBatch, device: torch.device) -> torch.Tensor:
    """(B, 1, X, Y, Z) float32 on the device: what `loaders.batches` gives for the same epoch.

    Nothing here waits for the device, or makes the host wait for it.
    """
    stored = batch.stored.to(device, non_blocking=True)
    boxes = torch.zeros((len(batch.volumes), math.prod(batch.box)), device=device)
    for box, volume in zip(boxes, batch.volumes):
        _expand(stored, volume, batch.box, box)
    return boxes.view(-1, 1, *batch.box)


def _expand(
    stored: torch.Tensor, volume: StoredVolume, size: tuple[int, int, int], box: torch.Tensor
) -> None:
    """Scatter one volume into the flat `box` of zeros, augmented."""
    entry, by = volume.entry, volume.by
    counts = (volume.n_voxels, volume.n_runs, volume.n_runs, volume.n_exact, volume.n_exact)
    values, firsts, jumps, places, exact = (
        _numbers(stored, kind, start, count)
        for (kind, start, _), count in zip(_places(volume), counts)
    )
    steps = torch.ones(volume.n_voxels, dtype=torch.int64, device=box.device)
    steps.scatter_(0, firsts.long(), jumps.long())
    box.scatter_(0, steps.cumsum(0), _scaled(values, entry, volume.divisor))
    if volume.n_exact:
        box.scatter_(0, places.long(), exact / volume.divisor)
    if by.resamples:
        box.copy_(_resampled(box.view(size), by).view(-1))
    if by.gamma != 1.0:
        scale = box.abs().amax().clamp_min_(_SMALLEST_SCALE)
        torch.copysign((box.abs() / scale).pow_(by.gamma).mul_(scale), box, out=box)
    if by.gain != 1.0:
        box.mul_(by.gain)


def _scaled(values: torch.Tensor, entry: Prepared, divisor: float) -> torch.Tensor:
    """Stored numbers -> float32 intensities / divisor, as `kernels.expand_runs` makes them."""
    if entry.linear:
        return values.float().add_(entry.intercept).mul_(entry.slope / divisor)
    if (entry.slope, entry.intercept) != (1.0, 0.0):
        values = values.double().mul_(entry.slope).add_(entry.intercept)
    return values.float() / divisor


def _resampled(volume: torch.Tensor, by: Augmentation) -> torch.Tensor:
    """(X, Y, Z) volume as `resampling.resample` makes it.

    In float64: a grid in float32 is off by a hundred-thousandth of a voxel, and so are the intensities.
    """
    matrix, offset = by.matrix_and_offset(volume.shape)
    grid = torch.empty((1, *volume.shape, 3), dtype=torch.float64, device=volume.device)
    axes = [torch.arange(n, dtype=torch.float64, device=volume.device) for n in volume.shape]
    x, y, z = axes[0][:, None, None], axes[1][:, None], axes[2]
    for axis, size in enumerate(volume.shape):
        # the last axis comes first in a grid, in which -1 and 1 are the outer edges of an axis's voxels
        a, b, c = (2.0 / size * matrix[axis]).tolist()
        at = x * a + (2.0 * float(offset[axis]) + 1.0) / size - 1.0
        torch.add(at + y * b, z * c, out=grid[0, ..., 2 - axis])
    found = torch.nn.functional.grid_sample(
        volume.double()[None, None],
        grid,
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    return found[0, 0].float()


def _numbers(stored: torch.Tensor, kind: str, start: int, count: int) -> torch.Tensor:
    """Numbers in the memory of a batch; unsigned ones of 16 bits become int32."""
    part = stored[start : start + count * np.dtype(kind).itemsize]
    if kind == "uint16":
        return part.view(torch.int16).to(torch.int32).bitwise_and_(0xFFFF)
    return part.view(getattr(torch, kind))
