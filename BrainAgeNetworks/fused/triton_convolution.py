"""Triton kernels of the first block: 3x3x3 convolution, batch statistics and pooling without the full grid.

Imported only where Triton is (`cuda.py`). Cells and positions are those of `triton_cells.py`; further:

neighbourhood
    The 4 x 4 x 4 voxels around a cell, numbered dx * 16 + dy * 4 + dz: every patch of 3 x 3 x 3 that
    the cell's eight voxels need. Reading it costs 64 loads a cell, the eight patches 216. A voxel's
    product with its patch becomes a product with the neighbourhood and weights that are zero
    elsewhere: 2.4 times the arithmetic, which the matrix units have to spare.

No atomics: each program writes its own partial sums, and torch adds them in float64 in a fixed order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from BrainAgeNetworks.fused.triton_cells import (
    cell_coordinates,
    cell_is_whole,
    gradient_that_passed,
    store_sums,
    voxel_exists,
)


@triton.jit
def _neighbourhoods(
    volumes, cells, n_cells, X: tl.constexpr, Y: tl.constexpr, Z: tl.constexpr,
    XC: tl.constexpr, YC: tl.constexpr, ZC: tl.constexpr,
):  # fmt: skip
    """(CELLS,) numbers -> (CELLS, 64) float32 voxels; zero outside the volume, as padding=1 has it."""
    batch, x, y, z = cell_coordinates(cells, XC, YC, ZC)
    voxel = tl.arange(0, 64)
    vx = (2 * x - 1)[:, None] + (voxel // 16)[None, :]
    vy = (2 * y - 1)[:, None] + (voxel // 4 % 4)[None, :]
    vz = (2 * z - 1)[:, None] + (voxel % 4)[None, :]
    inside = (vx >= 0) & (vx < X) & (vy >= 0) & (vy < Y) & (vz >= 0) & (vz < Z)
    inside = inside & (cells < n_cells)[:, None]
    first = ((batch * X + 2 * x - 1) * Y + 2 * y - 1) * Z + 2 * z - 1
    step = (voxel // 16 * Y + voxel // 4 % 4) * Z + voxel % 4
    return tl.load(volumes + first[:, None] + step[None, :], mask=inside, other=0.0)


@triton.jit
def _product(a, b, total, OPERANDS: tl.constexpr, TF32: tl.constexpr, EMULATED: tl.constexpr):
    """total + a b, the operands rounded to OPERANDS, the sum in float32.

    float32 operands are rounded to TF32 or, if that is not wanted, split into three TF32 products.
    """
    a = a.to(OPERANDS)
    b = b.to(OPERANDS)
    if EMULATED:  # Triton's interpreter multiplies the bits of bf16 as integers
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    if TF32:
        return tl.dot(a, b, total, input_precision="tf32")
    return tl.dot(a, b, total, input_precision="tf32x3")


@triton.jit
def _position_weights(weights, position, channels, C: tl.constexpr):
    """(64, CHANNELS) of the expanded weights (8, 64, C); zero beyond C."""
    rows = (position * 64 + tl.arange(0, 64)) * C
    return tl.load(
        weights + rows[:, None] + channels[None, :], mask=channels[None, :] < C, other=0.0
    )


@triton.jit
def convolve_and_pool(
    volumes, weights, gamma, pooled, positions, tile_shift, tile_sum, tile_squares, tile_count, n_cells,
    X: tl.constexpr, Y: tl.constexpr, Z: tl.constexpr, C: tl.constexpr,
    CELLS: tl.constexpr, TILES: tl.constexpr, CHANNELS: tl.constexpr,
    OPERANDS: tl.constexpr, TF32: tl.constexpr, EMULATED: tl.constexpr,
):  # fmt: skip
    """Convolve, keep of each cell what batch-norm and max-pooling will choose, sum for statistics.

    volumes (B, X, Y, Z) float32; weights (8, 64, C), negated where gamma (C,) is negative, so that
    the largest product wins; where gamma is zero, all are equal after batch-norm and the first wins.
    Writes pooled (B, X // 2, Y // 2, Z // 2, C), positions likewise, uint8; and per program and
    channel, over all voxels of its cells, those that pooling drops included: a shift, the sum of
    (y - shift), the sum of its squares; and per program the number of voxels.

    The shift is the mean of position 0 in the program's first tile: a mean over at least
    1 / (8 TILES) of the values it is subtracted from, so it lies within sqrt(8 TILES) standard
    deviations of theirs and the sum of squares cannot cancel by more than that many units.
    """
    XC: tl.constexpr = (X + 1) // 2
    YC: tl.constexpr = (Y + 1) // 2
    ZC: tl.constexpr = (Z + 1) // 2
    program = tl.program_id(0)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = channels < C
    undecided = (tl.load(gamma + channels, mask=known, other=1.0) == 0)[None, :]

    cells = program * (TILES * CELLS) + tl.arange(0, CELLS)
    near = _neighbourhoods(volumes, cells, n_cells, X, Y, Z, XC, YC, ZC)
    # Read before the loop and never changed: the compiler keeps all eight in shared memory (32 KB in bf16).
    tables = (
        _position_weights(weights, 0, channels, C),
        _position_weights(weights, 1, channels, C),
        _position_weights(weights, 2, channels, C),
        _position_weights(weights, 3, channels, C),
        _position_weights(weights, 4, channels, C),
        _position_weights(weights, 5, channels, C),
        _position_weights(weights, 6, channels, C),
        _position_weights(weights, 7, channels, C),
    )
    zeros = tl.zeros((CELLS, CHANNELS), tl.float32)
    first = _product(near, tables[0], zeros, OPERANDS, TF32, EMULATED)
    counted = (cells < n_cells).to(tl.float32)
    shift = tl.sum(first * counted[:, None], axis=0) / tl.sum(counted, axis=0)

    sums = tl.zeros((CELLS, CHANNELS), tl.float32)
    squares = tl.zeros((CELLS, CHANNELS), tl.float32)
    count = tl.zeros((CELLS,), tl.float32)
    for tile in range(TILES):
        cells = (program * TILES + tile) * CELLS + tl.arange(0, CELLS)
        batch, x, y, z = cell_coordinates(cells, XC, YC, ZC)
        near = _neighbourhoods(volumes, cells, n_cells, X, Y, Z, XC, YC, ZC)
        best = tl.zeros((CELLS, CHANNELS), tl.float32)
        where = tl.zeros((CELLS, CHANNELS), tl.int32)
        for position in tl.static_range(8):
            value = _product(near, tables[position], zeros, OPERANDS, TF32, EMULATED)
            exists = voxel_exists(position, cells, n_cells, x, y, z, X, Y, Z)
            centred = tl.where(exists[:, None], value - shift[None, :], 0.0)
            sums += centred
            squares += centred * centred
            count += exists.to(tl.float32)
            if position == 0:
                best = value
            else:  # strictly: the first of equal values stays
                better = value > best
                best = tl.where(better, value, best)
                where = tl.where(better, position, where)
        where = tl.where(undecided, 0, where)
        whole = cell_is_whole(cells, n_cells, x, y, z, X, Y, Z)
        row = ((batch * (X // 2) + x) * (Y // 2) + y) * (Z // 2) + z
        at = row[:, None] * C + channels[None, :]
        written = whole[:, None] & known[None, :]
        tl.store(pooled + at, best.to(pooled.dtype.element_ty), mask=written)
        tl.store(positions + at, where.to(tl.uint8), mask=written)

    store_sums(
        tile_shift, tile_sum, tile_squares, tile_count, shift, sums, squares, count, channels, C
    )


@triton.jit
def gather_gradients(
    volumes, out_gradient, out, positions, products, moments, neighbour_sums, gradient_sums, n_cells,
    X: tl.constexpr, Y: tl.constexpr, Z: tl.constexpr, C: tl.constexpr,
    CELLS: tl.constexpr, CHANNELS: tl.constexpr,
    OPERANDS: tl.constexpr, TF32: tl.constexpr, EMULATED: tl.constexpr,
):  # fmt: skip
    """Sums over whole cells from which every gradient of the first block follows.

    With N (64,) a cell's neighbourhood and g its pooled gradient where ReLU let it through, placed
    at its winning position: products[n, k, c] = sum N[n] g[k, c]; moments = sum N N^T;
    neighbour_sums = sum N; gradient_sums[c] = sum g[c]. One row of each per program; programs take
    tiles in turn, program by program.
    """
    XC: tl.constexpr = X // 2
    YC: tl.constexpr = Y // 2
    ZC: tl.constexpr = Z // 2
    program = tl.program_id(0)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = (channels < C)[None, :]
    sum_0 = tl.zeros((64, CHANNELS), tl.float32)  # products, by position
    sum_1 = tl.zeros((64, CHANNELS), tl.float32)
    sum_2 = tl.zeros((64, CHANNELS), tl.float32)
    sum_3 = tl.zeros((64, CHANNELS), tl.float32)
    sum_4 = tl.zeros((64, CHANNELS), tl.float32)
    sum_5 = tl.zeros((64, CHANNELS), tl.float32)
    sum_6 = tl.zeros((64, CHANNELS), tl.float32)
    sum_7 = tl.zeros((64, CHANNELS), tl.float32)
    moment = tl.zeros((64, 64), tl.float32)
    near_sum = tl.zeros((CELLS, 64), tl.float32)  # over cells at the end, not for each tile
    passed_sum = tl.zeros((CELLS, CHANNELS), tl.float32)
    for tile in range(program, tl.cdiv(n_cells, CELLS), tl.num_programs(0)):
        cells = tile * CELLS + tl.arange(0, CELLS)
        near = _neighbourhoods(volumes, cells, n_cells, X, Y, Z, XC, YC, ZC).to(OPERANDS)
        at = cells.to(tl.int64)[:, None] * C + channels[None, :]
        read = (cells < n_cells)[:, None] & known
        passed = gradient_that_passed(out_gradient, out, at, read)
        where = tl.load(positions + at, mask=read, other=0).to(tl.int32)
        near_transposed = tl.trans(near)
        placed = tl.where(where == 0, passed, 0.0)
        sum_0 = _product(near_transposed, placed, sum_0, OPERANDS, TF32, EMULATED)
        placed = tl.where(where == 1, passed, 0.0)
        sum_1 = _product(near_transposed, placed, sum_1, OPERANDS, TF32, EMULATED)
        placed = tl.where(where == 2, passed, 0.0)
        sum_2 = _product(near_transposed, placed, sum_2, OPERANDS, TF32, EMULATED)
        placed = tl.where(where == 3, passed, 0.0)
        sum_3 = _product(near_transposed, placed, sum_3, OPERANDS, TF32, EMULATED)
        placed = tl.where(where == 4, passed, 0.0)
        sum_4 = _product(near_transposed, placed, sum_4, OPERANDS, TF32, EMULATED)
        placed = tl.where(where == 5, passed, 0.0)
        sum_5 = _product(near_transposed, placed, sum_5, OPERANDS, TF32, EMULATED)
        placed = tl.where(where == 6, passed, 0.0)
        sum_6 = _product(near_transposed, placed, sum_6, OPERANDS, TF32, EMULATED)
        placed = tl.where(where == 7, passed, 0.0)
        sum_7 = _product(near_transposed, placed, sum_7, OPERANDS, TF32, EMULATED)
        moment = _product(near_transposed, near, moment, OPERANDS, TF32, EMULATED)
        near_sum += near.to(tl.float32)
        passed_sum += passed

    voxel = tl.arange(0, 64)
    row = products + (program * 64 + voxel)[:, None] * (8 * C) + channels[None, :]
    tl.store(row + 0 * C, sum_0, mask=known)
    tl.store(row + 1 * C, sum_1, mask=known)
    tl.store(row + 2 * C, sum_2, mask=known)
    tl.store(row + 3 * C, sum_3, mask=known)
    tl.store(row + 4 * C, sum_4, mask=known)
    tl.store(row + 5 * C, sum_5, mask=known)
    tl.store(row + 6 * C, sum_6, mask=known)
    tl.store(row + 7 * C, sum_7, mask=known)
    tl.store(gradient_sums + program * C + channels, tl.sum(passed_sum, axis=0), mask=channels < C)
    if tl.program_id(1) == 0:  # the input's own sums are the same for every block of channels
        tl.store(moments + (program * 64 + voxel)[:, None] * 64 + voxel[None, :], moment)
        tl.store(neighbour_sums + program * 64 + voxel, tl.sum(near_sum, axis=0))
