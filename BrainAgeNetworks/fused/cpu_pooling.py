"""Kernels of batch-norm, max-pool and ReLU in one: what is not pooled is read once and written once.

Batch-norm is an affine map of each channel, so it commutes with the choice of the largest of eight
voxels, but where gamma < 0 the smallest is chosen. The first kernel therefore collects the sums for the
statistics and the extremes at once; only the extremes, an eighth, are normalised.

Arrays: y is flat (B, X, Y, Z, C); what is pooled is flat (B, X // 2, Y // 2, Z // 2, C). `box` is
(X, Y, Z); `lanes` is explained in `vectors`; a slab is explained in `slabs`.
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
    multiply,
    multiply_add,
    replaces,
    store,
    subtract,
    whole_like,
    zeros_like,
)
from utils.common.compiling import compiled


@compiled
def _add_run(y, at, n_voxels, pivot, row_sums, lanes):
    """Add a run of voxels, less the pivot, and their squares to row_sums (2 * C,)."""
    n_channels, n_lanes = len(pivot), len(lanes)
    for channel in range(0, n_channels, n_lanes):
        pivots = load(pivot, channel, lanes)
        total = load(row_sums, channel, lanes)
        squares = load(row_sums, n_channels + channel, lanes)
        for i in range(n_voxels):
            value = subtract(load(y, at + i * n_channels + channel, lanes), pivots)
            total = add(total, value)
            squares = multiply_add(value, value, squares)
        store(row_sums, channel, total)
        store(row_sums, n_channels + channel, squares)


@compiled
def find_extremes(y, sign, pivot, extremes, which, sums, box, lanes, first_slab, behind_slab):
    """Extremes of eight neighbours and their places; sums for the statistics of all voxels.

    sign : (C,) 1 for the largest, -1 for the smallest, 0 for the first (all are equal after the norm).
    sums : (slabs, 2 * C) float64, overwritten: of y - pivot, and of its square.
    """
    size_x, size_y, size_z = box
    pooled_x, pooled_y, pooled_z = size_x // 2, size_y // 2, size_z // 2
    n_channels, n_lanes = len(sign), len(lanes)
    row, plane = size_z * n_channels, size_y * size_z * n_channels
    row_sums = np.zeros(2 * n_channels, pivot.dtype)
    for slab in range(first_slab, behind_slab):
        sums[slab] = 0
        px = slab % pooled_x
        corner = (slab // pooled_x * size_x + 2 * px) * plane
        for py in range(pooled_y):
            row_sums[:] = 0
            for pz in range(pooled_z):
                target = ((slab * pooled_y + py) * pooled_z + pz) * n_channels
                source = corner + 2 * py * row + 2 * pz * n_channels
                for channel in range(0, n_channels, n_lanes):
                    signs = load(sign, channel, lanes)
                    pivots = load(pivot, channel, lanes)
                    total = load(row_sums, channel, lanes)
                    squares = load(row_sums, n_channels + channel, lanes)
                    best = load(y, source + channel, lanes)
                    value = subtract(best, pivots)
                    total = add(total, value)
                    squares = multiply_add(value, value, squares)
                    signed = multiply(best, signs)
                    place = whole_like(best, 0)
                    for p in range(1, 8):
                        at = source + (p >> 2) * plane + (p >> 1 & 1) * row + (p & 1) * n_channels
                        here = load(y, at + channel, lanes)
                        value = subtract(here, pivots)
                        total = add(total, value)
                        squares = multiply_add(value, value, squares)
                        candidate = multiply(here, signs)
                        better = replaces(candidate, signed)
                        signed = choose(better, candidate, signed)
                        best = choose(better, here, best)
                        place = choose(better, whole_like(best, p), place)
                    store(row_sums, channel, total)
                    store(row_sums, n_channels + channel, squares)
                    store(extremes, target + channel, best)
                    store(which, target + channel, place)
            if size_z % 2:
                for r in range(4):
                    last = (r >> 1) * plane + (2 * py + (r & 1)) * row + row - n_channels
                    _add_run(y, corner + last, 1, pivot, row_sums, lanes)
            _add_rows(sums[slab], row_sums, lanes)
        if size_y % 2:
            for x in range(2):
                row_sums[:] = 0
                _add_run(y, corner + (x + 1) * plane - row, size_z, pivot, row_sums, lanes)
                _add_rows(sums[slab], row_sums, lanes)
        if size_x % 2 and px == pooled_x - 1:
            for i in range(size_y):
                row_sums[:] = 0
                _add_run(y, corner + 2 * plane + i * row, size_z, pivot, row_sums, lanes)
                _add_rows(sums[slab], row_sums, lanes)


@compiled
def _add_rows(sums, row_sums, lanes):
    for i in range(0, len(row_sums), len(lanes)):
        add_to(sums, i, load(row_sums, i, lanes))


@compiled
def scale_and_rectify(extremes, scale, shift, out, lanes, first_voxel, behind_voxel):
    """out = ReLU(extremes * scale + shift)."""
    n_channels, n_lanes = len(scale), len(lanes)
    for voxel in range(first_voxel, behind_voxel):
        for channel in range(0, n_channels, n_lanes):
            at = voxel * n_channels + channel
            shifts = load(shift, channel, lanes)
            value = multiply_add(load(extremes, at, lanes), load(scale, channel, lanes), shifts)
            zeros = zeros_like(value)
            store(out, at, choose(above(zeros, value), zeros, value))


@compiled
def sum_gradient(gradient, extremes, scale, shift, pivot, sums, n, lanes, first_slab, behind_slab):
    """Per slab of n pooled voxels: sums of the gradient and of gradient * (extreme - pivot).

    The gradient of the pooled output counts where that was above 0. sums : (slabs, 2 * C) float64.
    """
    n_channels, n_lanes = len(scale), len(lanes)
    chunk = 64  # voxels that are added up in the numbers' own precision
    for slab in range(first_slab, behind_slab):
        sums[slab] = 0
        for start in range(slab * n, (slab + 1) * n, chunk):
            behind = min(start + chunk, (slab + 1) * n)
            for channel in range(0, n_channels, n_lanes):
                scales, shifts = load(scale, channel, lanes), load(shift, channel, lanes)
                pivots = load(pivot, channel, lanes)
                zeros = zeros_like(scales)
                total, weighted = zeros, zeros
                for voxel in range(start, behind):
                    at = voxel * n_channels + channel
                    extreme = load(extremes, at, lanes)
                    counts = above(multiply_add(extreme, scales, shifts), zeros)
                    part = choose(counts, load(gradient, at, lanes), zeros)
                    total = add(total, part)
                    weighted = multiply_add(part, subtract(extreme, pivots), weighted)
                add_to(sums[slab], channel, total)
                add_to(sums[slab], n_channels + channel, weighted)


@compiled
def _fill_run(y, at, n_voxels, offset, slope, gradient_y, lanes):
    n_channels, n_lanes = len(offset), len(lanes)
    for voxel in range(n_voxels):
        for channel in range(0, n_channels, n_lanes):
            here = at + voxel * n_channels + channel
            value = load(y, here, lanes)
            value = multiply_add(value, load(slope, channel, lanes), load(offset, channel, lanes))
            store(gradient_y, here, value)


@compiled
def spread_gradient(
    y, gradient, extremes, which, scale, shift, offset, slope, gradient_y, box, lanes,
    first_slab, behind_slab,
):  # fmt: skip
    """gradient_y = offset + slope * y, and scale * gradient more where a voxel won and was above 0."""
    size_x, size_y, size_z = box
    pooled_x, pooled_y, pooled_z = size_x // 2, size_y // 2, size_z // 2
    n_channels, n_lanes = len(scale), len(lanes)
    row, plane = size_z * n_channels, size_y * size_z * n_channels
    for slab in range(first_slab, behind_slab):
        px = slab % pooled_x
        corner = (slab // pooled_x * size_x + 2 * px) * plane
        for py in range(pooled_y):
            for pz in range(pooled_z):
                source = ((slab * pooled_y + py) * pooled_z + pz) * n_channels
                target = corner + 2 * py * row + 2 * pz * n_channels
                for channel in range(0, n_channels, n_lanes):
                    scales, shifts = load(scale, channel, lanes), load(shift, channel, lanes)
                    offsets, slopes = load(offset, channel, lanes), load(slope, channel, lanes)
                    zeros = zeros_like(scales)
                    extreme = load(extremes, source + channel, lanes)
                    counts = above(multiply_add(extreme, scales, shifts), zeros)
                    part = choose(counts, load(gradient, source + channel, lanes), zeros)
                    part = multiply(part, scales)
                    place = load(which, source + channel, lanes)
                    for p in range(8):
                        at = target + (p >> 2) * plane + (p >> 1 & 1) * row + (p & 1) * n_channels
                        here = multiply_add(load(y, at + channel, lanes), slopes, offsets)
                        won = equal(place, whole_like(zeros, p))
                        store(gradient_y, at + channel, add(here, choose(won, part, zeros)))
            if size_z % 2:
                for r in range(4):
                    last = (r >> 1) * plane + (2 * py + (r & 1)) * row + row - n_channels
                    _fill_run(y, corner + last, 1, offset, slope, gradient_y, lanes)
        if size_y % 2:
            for x in range(2):
                last = corner + (x + 1) * plane - row
                _fill_run(y, last, size_z, offset, slope, gradient_y, lanes)
        if size_x % 2 and px == pooled_x - 1:
            _fill_run(y, corner + 2 * plane, size_y * size_z, offset, slope, gradient_y, lanes)
