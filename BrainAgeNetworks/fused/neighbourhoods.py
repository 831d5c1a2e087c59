"""The first convolution seen from cells of 2 x 2 x 2 voxels: neighbourhoods of 4 x 4 x 4, patches of 3 x 3 x 3.

Numbering as in the kernels (`triton_cells.py`, `triton_convolution.py`); taps as torch lays out weights.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch.nn.functional import pad


@functools.cache
def slots(device: torch.device) -> torch.Tensor:
    """(8, 27): where in a cell's neighbourhood of 4 x 4 x 4 the voxel at a position meets each tap."""
    two, three = torch.arange(2), torch.arange(3)
    axis = two[:, None] + three[None, :]  # (2, 3): 0..3
    numbers = (
        16 * axis[:, None, None, :, None, None]
        + 4 * axis[None, :, None, None, :, None]
        + axis[None, None, :, None, None, :]
    )
    return numbers.reshape(8, 27).to(device)


def expanded_weights(weight: torch.Tensor) -> torch.Tensor:
    """(C, 1, 3, 3, 3) -> (8, 64, C): a position's weights on the neighbourhood, zero off its patch."""
    n_channels = weight.shape[0]
    expanded = weight.new_zeros(8, 64, n_channels)
    taps = weight.detach().reshape(n_channels, 27).T
    meets = slots(weight.device)
    expanded.scatter_(
        1, meets[:, :, None].expand(8, 27, n_channels), taps.expand(8, 27, n_channels)
    )
    return expanded


def dropped_patches(volumes: torch.Tensor) -> Iterator[torch.Tensor]:
    """The patches (n, 27), float64, of the voxels that pooling drops: the last of each odd axis."""
    sizes = volumes.shape[2:]
    padded = pad(volumes, (1,) * 6) if any(size % 2 for size in sizes) else None
    for axis, size in enumerate(sizes):
        if padded is None or size % 2 == 0:
            continue
        # Patches of even part on the axes before, of the last voxel here, of everything after.
        around = [
            slice(0, (other // 2 * 2 if i < axis else other) + 2) for i, other in enumerate(sizes)
        ]
        around[axis] = slice(size - 1, size + 2)
        slab = padded[:, 0][(slice(None), *around)]
        patches = slab.unfold(1, 3, 1).unfold(2, 3, 1).unfold(3, 3, 1)
        yield patches.reshape(-1, 27).double()
