"""Kernels of the first block: a convolution of one channel that keeps only the winners of the pooling.

The output of the first convolution is the largest tensor of a network (32 numbers a voxel) and is never
written: eight neighbours are convolved in registers and the largest is kept. What batch-norm has to know
of all of them follows from the input alone: with P the 27 x N matrix of patches, the outputs y = W P have
the sums W (P 1) and the squares diag(W (P P^T) W^T).

Arrays: volumes (B, X, Y, Z); what is pooled is flat (B, X // 2, Y // 2, Z // 2, C); weights are flat
(C / lanes, 27, lanes). `lanes` is explained in `vectors`; a slab is explained in `slabs`.
"""

from __future__ import annotations

import numpy as np

from BrainAgeNetworks.fused.vectors import (
    above,
    add,
    add_to,
    choose,
    equal,
    load,
    multiply_add,
    replaces,
    spread_at,
    store,
    whole_like,
    zeros_like,
)
from utils.common.compiling import compiled

# Lags between two of the 27 taps: (0..2) x (-2..2) x (-2..2); one more for the sum of voxels alone.
N_LAGS = 76
_SUM = 75


@compiled
def _fill_planes(volume, first_x, margin, planes):
    """Planes `first_x`.. of (X, Y, Z) with zeros around them, `margin` voxels of Y and Z in front."""
    size_x, size_y, size_z = volume.shape
    for i in range(len(planes)):
        x = first_x + i
        if 0 <= x < size_x:
            planes[i, margin : margin + size_y, margin : margin + size_z] = volume[x]
        else:
            planes[i] = 0


@compiled
def convolve_and_pool(volumes, weights, shift, out, which, lanes, first_slab, behind_slab):
    """out = ReLU(largest of eight convolved neighbours + shift); which = the place of the largest."""
    _, size_x, size_y, size_z = volumes.shape
    pooled_x, pooled_y, pooled_z = size_x // 2, size_y // 2, size_z // 2
    n_channels, n_lanes = len(shift), len(lanes)
    planes = np.zeros((4, size_y + 2, size_z + 2), volumes.dtype)
    voxels = planes.reshape(-1)
    row = size_z + 2
    plane = row * (size_y + 2)
    for slab in range(first_slab, behind_slab):
        _fill_planes(volumes[slab // pooled_x], 2 * (slab % pooled_x) - 1, 1, planes)
        for py in range(pooled_y):
            for pz in range(pooled_z):
                target = ((slab * pooled_y + py) * pooled_z + pz) * n_channels
                for channel in range(0, n_channels, n_lanes):
                    shifts = load(shift, channel, lanes)
                    zeros = zeros_like(shifts)
                    y0, y1, y2, y3 = zeros, zeros, zeros, zeros
                    y4, y5, y6, y7 = zeros, zeros, zeros, zeros
                    for tap_x in range(3):
                        for tap_y in range(3):
                            at = tap_x * plane + (2 * py + tap_y) * row + 2 * pz
                            tap = channel * 27 + (tap_x * 3 + tap_y) * 3 * n_lanes
                            for tap_z in range(3):
                                weight = load(weights, tap + tap_z * n_lanes, lanes)
                                i = at + tap_z
                                y0 = multiply_add(spread_at(voxels, i, lanes), weight, y0)
                                y1 = multiply_add(spread_at(voxels, i + 1, lanes), weight, y1)
                                i += row
                                y2 = multiply_add(spread_at(voxels, i, lanes), weight, y2)
                                y3 = multiply_add(spread_at(voxels, i + 1, lanes), weight, y3)
                                i += plane - row
                                y4 = multiply_add(spread_at(voxels, i, lanes), weight, y4)
                                y5 = multiply_add(spread_at(voxels, i + 1, lanes), weight, y5)
                                i += row
                                y6 = multiply_add(spread_at(voxels, i, lanes), weight, y6)
                                y7 = multiply_add(spread_at(voxels, i + 1, lanes), weight, y7)
                    largest, place = y0, whole_like(shifts, 0)
                    number = 1
                    for y in (y1, y2, y3, y4, y5, y6, y7):
                        larger = replaces(y, largest)
                        largest = choose(larger, y, largest)
                        place = choose(larger, whole_like(shifts, number), place)
                        number += 1
                    largest = add(largest, shifts)
                    store(out, target + channel, choose(above(zeros, largest), zeros, largest))
                    store(which, target + channel, place)


@compiled
def weigh_patches(
    volumes, gradient, out, which, weighted, sums, shift, lanes, first_slab, behind_slab
):
    """Per slab: sum of the gradient, and of the gradient times the patch around the winner.

    gradient and out are those of the pooled output; the gradient counts where out > 0.
    weighted : (slabs, C / lanes * 27 * lanes) float64 ; sums : (slabs, C) float64; both overwritten.
    """
    _, size_x, size_y, size_z = volumes.shape
    pooled_x, pooled_y, pooled_z = size_x // 2, size_y // 2, size_z // 2
    n_channels, n_lanes = sums.shape[1], len(lanes)
    planes = np.zeros((4, size_y + 2, size_z + 2), volumes.dtype)
    voxels = planes.reshape(-1)
    row = size_z + 2
    plane = row * (size_y + 2)
    chunk = 16  # pooled voxels whose eight neighbours' gradients stay in the nearest cache
    length = 2 * chunk
    scattered = np.zeros(4 * length * n_lanes, shift.dtype)  # two by two rows
    zeros = zeros_like(load(shift, 0, lanes))
    for slab in range(first_slab, behind_slab):
        _fill_planes(volumes[slab // pooled_x], 2 * (slab % pooled_x) - 1, 1, planes)
        weighted[slab] = 0
        sums[slab] = 0
        for py in range(pooled_y):
            for start in range(0, pooled_z, chunk):
                n = min(chunk, pooled_z - start)
                for channel in range(0, n_channels, n_lanes):
                    total = zeros
                    for i in range(n):
                        at = ((slab * pooled_y + py) * pooled_z + start + i) * n_channels + channel
                        part = choose(
                            above(load(out, at, lanes), zeros), load(gradient, at, lanes), zeros
                        )
                        total = add(total, part)
                        place = load(which, at, lanes)
                        for p in range(8):
                            mine = equal(place, whole_like(zeros, p))
                            target = (p // 2 * length + 2 * i + p % 2) * n_lanes
                            store(scattered, target, choose(mine, part, zeros))
                    add_to(sums[slab], channel, total)
                    for tap_x in range(3):
                        w0, w1, w2, w3, w4 = zeros, zeros, zeros, zeros, zeros
                        w5, w6, w7, w8 = zeros, zeros, zeros, zeros
                        for r in range(4):
                            near = (tap_x + r // 2) * plane + (2 * py + r % 2) * row + 2 * start
                            for z in range(2 * n):
                                d = load(scattered, (r * length + z) * n_lanes, lanes)
                                i = near + z
                                w0 = multiply_add(spread_at(voxels, i, lanes), d, w0)
                                w1 = multiply_add(spread_at(voxels, i + 1, lanes), d, w1)
                                w2 = multiply_add(spread_at(voxels, i + 2, lanes), d, w2)
                                i += row
                                w3 = multiply_add(spread_at(voxels, i, lanes), d, w3)
                                w4 = multiply_add(spread_at(voxels, i + 1, lanes), d, w4)
                                w5 = multiply_add(spread_at(voxels, i + 2, lanes), d, w5)
                                i += row
                                w6 = multiply_add(spread_at(voxels, i, lanes), d, w6)
                                w7 = multiply_add(spread_at(voxels, i + 1, lanes), d, w7)
                                w8 = multiply_add(spread_at(voxels, i + 2, lanes), d, w8)
                        at = channel * 27 + tap_x * 9 * n_lanes
                        for w in (w0, w1, w2, w3, w4, w5, w6, w7, w8):
                            add_to(weighted[slab], at, w)
                            at += n_lanes


@compiled
def lagged_products(volumes, products, lanes, first_x, behind_x):
    """Sums of voxel times voxel at a lag, for planes first_x.. of all volumes put one behind another.

    products : (B * X, 3, 3, N_LAGS) float64, overwritten: per plane; rows that are the first, others,
    the last of Y; voxels that are the first, others, the last of Z. Lag (x, y, z), x 0..2, y and z
    -2..2, has number (x * 5 + y + 2) * 5 + z + 2; the last number is that of the voxels' own sum.
    """
    _, size_x, size_y, size_z = volumes.shape
    n_lanes = len(lanes)
    rounds = -(-size_z // n_lanes)
    planes = np.zeros((3, size_y + 4, rounds * n_lanes + 4), volumes.dtype)
    voxels = planes.reshape(-1)
    row = planes.shape[2]
    zeros = zeros_like(load(voxels, 0, lanes))
    lane_sums = np.zeros(5 * n_lanes)
    for slab in range(first_x, behind_x):
        _fill_planes(volumes[slab // size_x], slab % size_x, 2, planes)
        products[slab] = 0
        for y in range(size_y):
            kind = 0 if y == 0 else (2 if y == size_y - 1 else 1)
            mine = (y + 2) * row + 2
            for lag_x in range(3):
                for lag_y in range(0 if lag_x == 0 else -2, 3):
                    other = (lag_x * (size_y + 4) + y + lag_y + 2) * row
                    s0, s1, s2, s3, s4 = zeros, zeros, zeros, zeros, zeros
                    for i in range(0, rounds * n_lanes, n_lanes):
                        here = load(voxels, mine + i, lanes)
                        s0 = multiply_add(here, load(voxels, other + i, lanes), s0)
                        s1 = multiply_add(here, load(voxels, other + i + 1, lanes), s1)
                        s2 = multiply_add(here, load(voxels, other + i + 2, lanes), s2)
                        s3 = multiply_add(here, load(voxels, other + i + 3, lanes), s3)
                        s4 = multiply_add(here, load(voxels, other + i + 4, lanes), s4)
                    lane_sums[:] = 0
                    at = 0
                    for s in (s0, s1, s2, s3, s4):
                        add_to(lane_sums, at, s)
                        at += n_lanes
                    for lag_z in range(5):
                        lag = (lag_x * 5 + lag_y + 2) * 5 + lag_z
                        front = np.float64(voxels[mine]) * np.float64(voxels[other + lag_z])
                        end = size_z - 1
                        back = np.float64(voxels[mine + end]) * np.float64(
                            voxels[other + end + lag_z]
                        )
                        total = 0.0
                        for lane in range(n_lanes):
                            total += lane_sums[lag_z * n_lanes + lane]
                        products[slab, kind, 0, lag] += front
                        products[slab, kind, 1, lag] += total - front - back
                        products[slab, kind, 2, lag] += back
            total = 0.0
            for z in range(1, size_z - 1):
                total += np.float64(voxels[mine + z])
            products[slab, kind, 0, _SUM] += np.float64(voxels[mine])
            products[slab, kind, 1, _SUM] += total
            products[slab, kind, 2, _SUM] += np.float64(voxels[mine + size_z - 1])
