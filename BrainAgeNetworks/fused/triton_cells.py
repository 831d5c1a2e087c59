"""What the Triton kernels share: cells of 2 x 2 x 2 voxels, their numbering, and which voxel wins.

Imported only where Triton is. Words used in the kernels:

cell
    The 2 x 2 x 2 voxels that become one pooled value, numbered (b, x, y, z), z fastest. Where an axis
    is odd its last cell is partial: pooling drops it, the batch statistics count it.
position
    Which of a cell's eight voxels: kx * 4 + ky * 2 + kz, the order in which max-pooling scans.

X, Y, Z and C are compile-time constants: the divisions become multiplications and the compiler sees
how far reads are aligned. A network is trained on one box, so each kernel is compiled once per block.
Rows are int64: twelve volumes of 160 x 192 x 160 with 32 channels have 1.9e9 values, near 2^31.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def cell_coordinates(cells, XC: tl.constexpr, YC: tl.constexpr, ZC: tl.constexpr):
    """Numbers of cells, XC x YC x ZC of them a volume -> b (int64), x, y, z of the cell."""
    z = cells % ZC
    rest = cells // ZC
    y = rest % YC
    rest = rest // YC
    return (rest // XC).to(tl.int64), rest % XC, y, z


@triton.jit
def voxel_exists(
    position: tl.constexpr,
    cells,
    n_cells,
    x,
    y,
    z,
    X: tl.constexpr,
    Y: tl.constexpr,
    Z: tl.constexpr,
):
    """Whether the cell has this voxel: a partial cell lacks some, one beyond the last has none."""
    return (
        (cells < n_cells)
        & (2 * x + position // 4 < X)
        & (2 * y + position // 2 % 2 < Y)
        & (2 * z + position % 2 < Z)
    )


@triton.jit
def cell_is_whole(cells, n_cells, x, y, z, X: tl.constexpr, Y: tl.constexpr, Z: tl.constexpr):
    """Whether pooling makes a value of the cell."""
    return (cells < n_cells) & (x < X // 2) & (y < Y // 2) & (z < Z // 2)


@triton.jit
def direction_of(gamma, channels, C: tl.constexpr):
    """(1, CHANNELS): 1, -1 or 0, as gamma: the largest value wins, the smallest, or (all equal) the first."""
    value = tl.load(gamma + channels, mask=channels < C, other=0.0)
    return tl.where(value > 0, 1.0, tl.where(value < 0, -1.0, 0.0))[None, :]


@triton.jit
def store_sums(
    tile_shift,
    tile_sum,
    tile_squares,
    tile_count,
    shift,
    sums,
    squares,
    count,
    channels,
    C: tl.constexpr,
):
    """One row a program: per channel the shift, sum (y - shift) and sum (y - shift)^2; how many values."""
    at = tl.program_id(0) * C + channels
    tl.store(tile_shift + at, shift, mask=channels < C)
    tl.store(tile_sum + at, tl.sum(sums, axis=0), mask=channels < C)
    tl.store(tile_squares + at, tl.sum(squares, axis=0), mask=channels < C)
    tl.store(tile_count + tl.program_id(0), tl.sum(count, axis=0))


@triton.jit
def gradient_that_passed(out_gradient, out, at, read):
    """The pooled gradient where ReLU let it through, else 0; float32."""
    passed = tl.load(out_gradient + at, mask=read, other=0.0).to(tl.float32)
    return tl.where(tl.load(out + at, mask=read, other=0.0).to(tl.float32) > 0, passed, 0.0)
