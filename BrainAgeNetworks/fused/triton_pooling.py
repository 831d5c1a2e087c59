"""Triton kernels of batch-norm -> max-pool 2 -> ReLU for the blocks after the first.

Imported only where Triton is (`cuda.py`). All tensors lie channels last, so a row of channels is
contiguous and so are the two z voxels of a cell. Cells and positions are those of
`triton_cells.py`.

No atomics: each program writes its own partial sums, and torch adds them in float64 in a fixed order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from BrainAgeNetworks.fused.triton_cells import (
    cell_coordinates,
    cell_is_whole,
    direction_of,
    gradient_that_passed,
    store_sums,
    voxel_exists,
)


@triton.jit
def _cell_rows(cells, X: tl.constexpr, Y: tl.constexpr, Z: tl.constexpr):
    """Numbers of cells, partial ones included -> x, y, z, first voxel's row, pooled row (rows int64)."""
    ZC: tl.constexpr = (Z + 1) // 2
    YC: tl.constexpr = (Y + 1) // 2
    XC: tl.constexpr = (X + 1) // 2
    batch, x, y, z = cell_coordinates(cells, XC, YC, ZC)
    voxel = ((batch * X + 2 * x) * Y + 2 * y) * Z + 2 * z
    pooled = ((batch * (X // 2) + x) * (Y // 2) + y) * (Z // 2) + z
    return x, y, z, voxel, pooled


@triton.jit
def pool_and_sum(
    values, gamma, pooled, positions, tile_shift, tile_sum, tile_squares, tile_count, n_cells,
    X: tl.constexpr, Y: tl.constexpr, Z: tl.constexpr, C: tl.constexpr,
    CELLS: tl.constexpr, TILES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Keep of each cell the extreme that batch-norm and max-pooling will choose, sum for statistics.

    values (B, X, Y, Z, C). Writes what `triton_convolution.convolve_and_pool` writes, with the same
    choice of winner and the same shift.
    """
    program = tl.program_id(0)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = channels < C
    direction = direction_of(gamma, channels, C)

    cells = program * (TILES * CELLS) + tl.arange(0, CELLS)
    x, y, z, voxel, pooled_row = _cell_rows(cells, X, Y, Z)
    read = (cells < n_cells)[:, None] & known[None, :]
    first = tl.load(values + voxel[:, None] * C + channels[None, :], mask=read, other=0.0)
    counted = (cells < n_cells).to(tl.float32)
    shift = tl.sum(first.to(tl.float32), axis=0) / tl.sum(counted, axis=0)

    sums = tl.zeros((CELLS, CHANNELS), tl.float32)
    squares = tl.zeros((CELLS, CHANNELS), tl.float32)
    count = tl.zeros((CELLS,), tl.float32)
    for tile in range(TILES):
        cells = (program * TILES + tile) * CELLS + tl.arange(0, CELLS)
        x, y, z, voxel, pooled_row = _cell_rows(cells, X, Y, Z)
        best = tl.zeros((CELLS, CHANNELS), tl.float32)
        where = tl.zeros((CELLS, CHANNELS), tl.int32)
        for position in tl.static_range(8):
            exists = voxel_exists(position, cells, n_cells, x, y, z, X, Y, Z)
            row = voxel + ((position // 4) * Y + position // 2 % 2) * Z + position % 2
            read = exists[:, None] & known[None, :]
            value = tl.load(values + row[:, None] * C + channels[None, :], mask=read, other=0.0)
            value = value.to(tl.float32)
            centred = tl.where(exists[:, None], value - shift[None, :], 0.0)
            sums += centred
            squares += centred * centred
            count += exists.to(tl.float32)
            if position == 0:
                best = value
            else:  # strictly: the first of equal values stays
                better = value * direction > best * direction
                best = tl.where(better, value, best)
                where = tl.where(better, position, where)
        whole = cell_is_whole(cells, n_cells, x, y, z, X, Y, Z)
        at = pooled_row[:, None] * C + channels[None, :]
        written = whole[:, None] & known[None, :]
        tl.store(pooled + at, best.to(pooled.dtype.element_ty), mask=written)
        tl.store(positions + at, where.to(tl.uint8), mask=written)

    store_sums(
        tile_shift, tile_sum, tile_squares, tile_count, shift, sums, squares, count, channels, C
    )


@triton.jit
def normalise_and_rectify(
    pooled,
    mean,
    scale,
    beta,
    out,
    n_rows,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """out = ReLU((pooled - mean) * scale + beta), (rows, C); out may be pooled itself."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = channels < C
    at = rows.to(tl.int64)[:, None] * C + channels[None, :]
    used = (rows < n_rows)[:, None] & known[None, :]
    value = tl.load(pooled + at, mask=used, other=0.0).to(tl.float32)
    value = value - tl.load(mean + channels, mask=known, other=0.0)[None, :]
    value = value * tl.load(scale + channels, mask=known, other=0.0)[None, :]
    value = value + tl.load(beta + channels, mask=known, other=0.0)[None, :]
    value = tl.where(value < 0, 0.0, value)  # not maximum(): NaN must pass
    tl.store(out + at, value.to(out.dtype.element_ty), mask=used)


@triton.jit
def sum_gradients(
    out_gradient, out, pooled, mean, gradient_sums, value_sums, n_rows,
    C: tl.constexpr, ROWS: tl.constexpr, TILES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Per program and channel: the sum of g and of g (pooled - mean), g the gradient ReLU let through."""
    program = tl.program_id(0)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = channels < C
    centre = tl.load(mean + channels, mask=known, other=0.0)[None, :]
    passed_sum = tl.zeros((ROWS, CHANNELS), tl.float32)
    value_sum = tl.zeros((ROWS, CHANNELS), tl.float32)
    for tile in range(TILES):
        rows = (program * TILES + tile) * ROWS + tl.arange(0, ROWS)
        at = rows.to(tl.int64)[:, None] * C + channels[None, :]
        used = (rows < n_rows)[:, None] & known[None, :]
        passed = gradient_that_passed(out_gradient, out, at, used)
        value = tl.load(pooled + at, mask=used, other=0.0).to(tl.float32)
        passed_sum += passed
        value_sum += passed * (value - centre)
    at = program * C + channels
    tl.store(gradient_sums + at, tl.sum(passed_sum, axis=0), mask=known)
    tl.store(value_sums + at, tl.sum(value_sum, axis=0), mask=known)


@triton.jit
def spread_gradients(
    values, out_gradient, out, positions, mean, scale, constant, slope, value_gradient, n_cells,
    X: tl.constexpr, Y: tl.constexpr, Z: tl.constexpr, C: tl.constexpr,
    CELLS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """value_gradient = g scale at the winning position + constant + slope (values - mean), every voxel."""
    cells = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = channels < C
    x, y, z, voxel, pooled_row = _cell_rows(cells, X, Y, Z)
    whole = cell_is_whole(cells, n_cells, x, y, z, X, Y, Z)
    at = pooled_row[:, None] * C + channels[None, :]
    read = whole[:, None] & known[None, :]
    passed = gradient_that_passed(out_gradient, out, at, read)
    passed = passed * tl.load(scale + channels, mask=known, other=0.0)[None, :]
    where = tl.load(positions + at, mask=read, other=0).to(tl.int32)
    centre = tl.load(mean + channels, mask=known, other=0.0)[None, :]
    level = tl.load(constant + channels, mask=known, other=0.0)[None, :]
    steep = tl.load(slope + channels, mask=known, other=0.0)[None, :]
    for position in tl.static_range(8):
        exists = voxel_exists(position, cells, n_cells, x, y, z, X, Y, Z)
        row = voxel + ((position // 4) * Y + position // 2 % 2) * Z + position % 2
        at = row[:, None] * C + channels[None, :]
        used = exists[:, None] & known[None, :]
        value = tl.load(values + at, mask=used, other=0.0).to(tl.float32)
        gradient = tl.where(where == position, passed, 0.0) + (level + steep * (value - centre))
        tl.store(value_gradient + at, gradient.to(value_gradient.dtype.element_ty), mask=used)
