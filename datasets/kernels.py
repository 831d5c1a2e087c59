"""The loops over voxels that NumPy would need several passes for, compiled by Numba; they release the lock.

A volume as stored has its first axis contiguous (Fortran order), a network's input its last (C order):
`fill_box` crops, converts, scales and turns in one pass. A prepared volume holds only the voxels of
its mask (those that are not 0), as runs along the last axis: `expand_runs` writes them into a box,
`move_runs` says where a device has to write them.
"""

from __future__ import annotations

import numpy as np

from utils.common.compiling import compiled

# Edge of the tiles in which the axes are swapped; measured: 8 takes half the time of 16 or 32.
_TILE = 8


# How `expand_runs` turns a stored number into a voxel.
EXACT, LINEAR = 0, 1


@compiled
def summarise(stored, x0, x1, y0, y1, z0, z1, slope, intercept):
    """Numbers of the crop of a stored volume: n not finite, n not 0, sums of v and v^2, smallest, largest.

    stored is (X, Y, Z) in Fortran order; a voxel is float32(stored * slope + intercept); sums run over
    the voxels that are not 0, in float64; smallest and largest over those of them that are finite.
    """
    plain = slope == 1.0 and intercept == 0.0
    n_bad, n_mask = 0, 0
    total, squares = 0.0, 0.0
    smallest, largest = np.inf, -np.inf
    for z in range(z0, z1):
        for y in range(y0, y1):
            row = stored[x0:x1, y, z]
            row_sum, row_squares = 0.0, 0.0
            for x in range(len(row)):
                if plain:
                    value = np.float64(np.float32(row[x]))
                else:
                    value = np.float64(np.float32(np.float64(row[x]) * slope + intercept))
                if value != 0.0:
                    if np.isfinite(value):
                        n_mask += 1
                        row_sum += value
                        row_squares += value * value
                        smallest = min(smallest, value)
                        largest = max(largest, value)
                    else:
                        n_bad += 1
            total += row_sum
            squares += row_squares
    return n_bad, n_mask, total, squares, smallest, largest


@compiled
def fill_box(stored, x0, y0, z0, slope, intercept, divisor, shift, mirrored, box):
    """Write the crop that starts at (x0, y0, z0) into `box`, moved by `shift` voxels, then mirrored.

    stored : (X, Y, Z) in Fortran order; box : (x, y, z) float32 in C order, overwritten whole.
    A voxel becomes float32(stored * slope + intercept) / divisor; what moves in is 0.
    """
    size_x, size_y, size_z = box.shape
    shift_x, shift_y, shift_z = shift
    plain = slope == 1.0 and intercept == 0.0
    first_x, last_x = max(shift_x, 0), min(size_x + shift_x, size_x)
    first_z, last_z = max(shift_z, 0), min(size_z + shift_z, size_z)
    if shift_x != 0 or shift_y != 0 or shift_z != 0:
        box[:] = np.float32(0.0)
    for y in range(max(shift_y, 0), min(size_y + shift_y, size_y)):
        source_y = y0 + y - shift_y
        for z_tile in range(first_z, last_z, _TILE):
            z_stop = min(z_tile + _TILE, last_z)
            for x_tile in range(first_x, last_x, _TILE):
                for x in range(x_tile, min(x_tile + _TILE, last_x)):
                    target = box[size_x - 1 - x if mirrored else x, y]
                    source_x = x0 + x - shift_x
                    for z in range(z_tile, z_stop):
                        voxel = stored[source_x, source_y, z0 + z - shift_z]
                        if plain:
                            target[z] = np.float32(voxel) / divisor
                        else:
                            target[z] = np.float32(np.float64(voxel) * slope + intercept) / divisor


@compiled
def find_runs(box, counts, starts, lengths):
    """Runs of voxels that are not 0 along the last axis of (x, y, z) `box`; returns their number.

    counts (x * y,) gets the runs of each row; starts and lengths (at least x * y * ceil(z / 2)) theirs.
    """
    size_x, size_y, size_z = box.shape
    n_runs = 0
    for x in range(size_x):
        for y in range(size_y):
            row = box[x, y]
            first, z = n_runs, 0
            while z < size_z:
                if row[z] == 0:
                    z += 1
                    continue
                start = z
                while z < size_z and row[z] != 0:
                    z += 1
                starts[n_runs] = start
                lengths[n_runs] = z - start
                n_runs += 1
            counts[x * size_y + y] = n_runs - first
    return n_runs


@compiled
def collect_runs(box, counts, starts, lengths, values):
    """Copy the voxels of the runs of (x, y, z) `box` into (N,) `values`, run after run."""
    size_x, size_y, _ = box.shape
    run, n = 0, 0
    for x in range(size_x):
        for y in range(size_y):
            row = box[x, y]
            for _ in range(counts[x * size_y + y]):
                for z in range(starts[run], starts[run] + lengths[run]):
                    values[n] = row[z]
                    n += 1
                run += 1


@compiled
def expand_runs(
    values, counts, starts, lengths, how, slope, intercept, divisor, shift, mirrored, box
):
    """Write the runs of a prepared volume into `box`, moved by `shift` voxels, then mirrored.

    box : (x, y, z) float32 in C order, overwritten whole; what is in no run is 0. A voxel becomes
    float32(value * slope + intercept) / divisor (EXACT), or (value + intercept) * slope with float32
    slope and intercept (LINEAR). False where counts, runs and values do not fit each other.
    """
    size_x, size_y, size_z = box.shape
    shift_x, shift_y, shift_z = shift
    plain = slope == 1.0 and intercept == 0.0
    factor, offset = np.float32(slope), np.float32(intercept)
    run, n = np.int64(0), np.int64(0)
    for source_x in range(size_x):
        x = source_x + shift_x
        for source_y in range(size_y):
            y = source_y + shift_y
            n_runs = counts[source_x * size_y + source_y]
            if run + n_runs > len(lengths):
                return False
            if x < 0 or x >= size_x or y < 0 or y >= size_y:
                for _ in range(n_runs):
                    n += np.int64(lengths[run])
                    run += 1
                continue
            row = box[size_x - 1 - x if mirrored else x, y]
            done = 0  # voxels of this row that are written
            for _ in range(n_runs):
                start = np.int64(starts[run]) + shift_z
                first = max(start, 0)
                last = min(start + np.int64(lengths[run]), size_z)
                if n + np.int64(lengths[run]) > len(values):
                    return False
                if first < last:
                    row[done:first] = np.float32(0.0)
                    source = values[n + first - start : n + last - start]
                    target = row[first:last]
                    if how == LINEAR:
                        for i in range(len(source)):
                            target[i] = (np.float32(source[i]) + offset) * factor
                    elif plain:
                        for i in range(len(source)):
                            target[i] = np.float32(source[i]) / divisor
                    else:
                        for i in range(len(source)):
                            target[i] = (
                                np.float32(np.float64(source[i]) * slope + intercept) / divisor
                            )
                    done = last
                n += np.int64(lengths[run])
                run += 1
            row[done:] = np.float32(0.0)
    _clear_unreached(shift_x, shift_y, mirrored, box)
    return run == len(lengths) and n == len(values)


@compiled
def _clear_unreached(shift_x, shift_y, mirrored, box):
    """Zero the rows that no row of the source was moved to."""
    size_x, size_y, _ = box.shape
    for x in range(size_x):
        for y in range(size_y):
            if not (0 <= x - shift_x < size_x and 0 <= y - shift_y < size_y):
                box[size_x - 1 - x if mirrored else x, y] = np.float32(0.0)


@compiled
def place_voxels(positions, values, divisor, shift, mirrored, box):
    """Write single voxels (flat position in the unmoved box, value / divisor) into a moved `box`."""
    size_x, size_y, size_z = box.shape
    shift_x, shift_y, shift_z = shift
    for i in range(len(positions)):
        position = np.int64(positions[i])
        z = position % size_z + shift_z
        y = position // size_z % size_y + shift_y
        x = position // (size_z * size_y) + shift_x
        if 0 <= x < size_x and 0 <= y < size_y and 0 <= z < size_z:
            box[size_x - 1 - x if mirrored else x, y, z] = values[i] / divisor


@compiled
def quantise(values, step, first, codes):
    """codes (N,) = round(values / step) - first, cut off at both ends; returns how many were cut off."""
    largest = np.float64(2 ** (8 * codes.itemsize) - 1)
    n_outside = 0
    for i in range(len(values)):
        code = np.rint(np.float64(values[i]) / step) - first
        if code < 0.0:
            n_outside += 1
            code = 0.0
        elif code > largest:
            n_outside += 1
            code = largest
        codes[i] = np.uint16(code)
    return n_outside


@compiled
def move_runs(counts, starts, lengths, n_values, size, shift, mirrored, firsts, jumps, sources):
    """Where the voxels of a prepared volume go in a box that is moved; what leaves it is dropped.

    firsts and jumps (int32, like starts) get the places of the voxels that stay: the n-th of them goes to
    flat position step[0] + ... + step[n], where step[firsts[i]] = jumps[i] for the i-th run and 1
    everywhere else. sources gets which of the volume's voxels each run begins with. Returns the numbers
    of runs and of voxels that stay; (-1, -1) where counts and runs do not fit each other, the number of
    values, or (x, y, z) `size`.
    """
    size_x, size_y, size_z = size
    shift_x, shift_y, shift_z = shift
    run, n = np.int64(0), np.int64(0)
    n_runs_kept, n_kept, before = 0, np.int64(0), np.int64(0)
    for source_x in range(size_x):
        x = source_x + shift_x
        for source_y in range(size_y):
            y = source_y + shift_y
            n_runs = np.int64(counts[source_x * size_y + source_y])
            if run + n_runs > len(lengths):
                return -1, -1
            stays = 0 <= x < size_x and 0 <= y < size_y
            row = ((size_x - 1 - x if mirrored else x) * size_y + y) * size_z
            for _ in range(n_runs):
                start, length = np.int64(starts[run]), np.int64(lengths[run])
                if start + length > size_z:
                    return -1, -1
                first = max(start + shift_z, 0)
                last = min(start + shift_z + length, size_z)
                if stays and first < last:
                    firsts[n_runs_kept] = n_kept
                    jumps[n_runs_kept] = row + first - before
                    sources[n_runs_kept] = n + first - start - shift_z
                    before = row + last - 1
                    n_runs_kept += 1
                    n_kept += last - first
                n += length
                run += 1
    if run != len(lengths) or n != n_values:
        return -1, -1
    return n_runs_kept, n_kept


@compiled
def keep_values(values, firsts, sources, n_voxels, kept):
    """Copy the (n_voxels,) values that stay, see `move_runs`."""
    for i in range(len(firsts)):
        last = firsts[i + 1] if i + 1 < len(firsts) else n_voxels
        source = values[sources[i] : sources[i] + last - firsts[i]]
        target = kept[firsts[i] : last]
        for j in range(len(target)):
            target[j] = source[j]


@compiled
def move_voxels(positions, values, size, shift, mirrored, kept, targets):
    """Flat positions (int32 `targets`) of single voxels in a box that is moved, and their values (`kept`).

    Returns how many stay in the box; -1 where a position is not of a box of (x, y, z) `size`.
    """
    size_x, size_y, size_z = size
    shift_x, shift_y, shift_z = shift
    n_kept = 0
    for i in range(len(positions)):
        position = np.int64(positions[i])
        if position >= size_x * size_y * size_z:
            return -1
        z = position % size_z + shift_z
        y = position // size_z % size_y + shift_y
        x = position // (size_z * size_y) + shift_x
        if 0 <= x < size_x and 0 <= y < size_y and 0 <= z < size_z:
            targets[n_kept] = ((size_x - 1 - x if mirrored else x) * size_y + y) * size_z + z
            kept[n_kept] = values[i]
            n_kept += 1
    return n_kept
