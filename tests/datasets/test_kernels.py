"""The compiled loops against NumPy, voxel for voxel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets import kernels
from datasets.augmentation import Augmentation

KINDS = ("uint8", "int16", "uint16", "int32", "float32", "float64")
START, BOX, SHAPE = (2, 1, 3), (9, 7, 11), (13, 10, 17)
CROP = tuple(slice(start, start + size) for start, size in zip(START, BOX))


def stored(kind: str, seed: int) -> np.ndarray:
    """A volume in Fortran order, about half of it 0."""
    rng = np.random.default_rng(seed)
    values = rng.normal(20, 15, SHAPE) * (rng.random(SHAPE) < 0.5)
    return np.asfortranarray(np.abs(values) if kind.startswith("u") else values).astype(kind)


def intensities(volume: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    crop = np.ascontiguousarray(volume[CROP])
    if (slope, intercept) == (1.0, 0.0):
        return crop.astype(np.float32)
    return (crop.astype(np.float64) * slope + intercept).astype(np.float32)


shifts = st.tuples(*[st.integers(-12, 12)] * 3)


@given(st.sampled_from(KINDS), st.integers(0, 99), st.booleans(), shifts, st.booleans())
@settings(max_examples=60, deadline=None)
def test_fill_box_crops_scales_and_moves_as_numpy_does(kind, seed, scaled, shift, mirrored):
    volume, (slope, intercept) = stored(kind, seed), (0.37, -4.0) if scaled else (1.0, 0.0)
    box = np.full(BOX, np.nan, np.float32)
    kernels.fill_box(volume, *START, slope, intercept, np.float32(3.7), shift, mirrored, box)
    wanted = intensities(volume, slope, intercept) / np.float32(3.7)
    assert np.array_equal(box, Augmentation(shift, mirrored).apply(wanted))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (-0.37, 4.0)])
def test_summarise_gives_numpys_numbers(kind, slope, intercept):
    volume = stored(kind, 5)
    edges = [edge for start, size in zip(START, BOX) for edge in (start, start + size)]
    n_bad, n_mask, total, squares, smallest, largest = kernels.summarise(
        volume, *edges, slope, intercept
    )
    values = intensities(volume, slope, intercept).astype(np.float64)
    mask = values != 0
    assert (n_bad, n_mask) == (0, mask.sum())
    assert total == pytest.approx(values.sum(), rel=1e-12)
    assert squares == pytest.approx((values**2).sum(), rel=1e-12)
    assert (smallest, largest) == (values[mask].min(), values[mask].max())


def test_summarise_counts_what_is_not_finite():
    volume = stored("float64", 6)
    volume[3, 2, 4], volume[4, 2, 4], volume[0, 0, 0] = np.nan, 1e300, np.inf  # one is outside
    edges = [edge for start, size in zip(START, BOX) for edge in (start, start + size)]
    assert kernels.summarise(volume, *edges, 1.0, 0.0)[0] == 2


@given(st.integers(0, 99), st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]), shifts, st.booleans())
@settings(max_examples=60, deadline=None)
def test_runs_hold_the_mask_and_expand_to_the_moved_volume(seed, filled, shift, mirrored):
    rng = np.random.default_rng(seed)
    box = (rng.normal(0, 5, BOX) * (rng.random(BOX) < filled)).astype(np.float32)
    counts = np.empty(BOX[0] * BOX[1], np.uint16)
    starts, lengths = np.empty((2, box.size), np.uint16)
    n_runs = kernels.find_runs(box, counts, starts, lengths)
    starts, lengths = starts[:n_runs], lengths[:n_runs]
    assert counts.sum() == n_runs and lengths.sum() == np.count_nonzero(box)
    values = np.empty(np.count_nonzero(box), np.float32)
    kernels.collect_runs(box, counts, starts, lengths, values)
    assert np.array_equal(values, box[box != 0])
    moved = np.full(BOX, np.nan, np.float32)
    kernels.expand_runs(
        values, counts, starts, lengths, kernels.EXACT, 1.0, 0.0, np.float32(2.0), shift, mirrored, moved
    )  # fmt: skip
    assert np.array_equal(moved, Augmentation(shift, mirrored).apply(box / np.float32(2.0)))


def test_quantise_rounds_and_counts_what_is_cut_off():
    codes = np.empty(5, np.uint8)
    values = np.array([-3.0, -2.0, 0.26, 125.4, 126.0], np.float32)
    assert kernels.quantise(values, 0.5, -4.0, codes) == 2
    assert codes.tolist() == [0, 0, 5, 255, 255]


@given(st.integers(0, 99), st.sampled_from([0.0, 0.02, 0.5, 1.0]), shifts, st.booleans())
@settings(max_examples=60, deadline=None)
def test_moved_runs_say_where_each_voxel_goes(seed, filled, shift, mirrored):
    rng = np.random.default_rng(seed)
    box = (rng.normal(0, 5, BOX) * (rng.random(BOX) < filled)).astype(np.float32)
    values, counts, starts, lengths = runs_of(box)
    kept, firsts, jumps, sources = np.empty_like(values), *np.empty((3, len(starts)), np.int32)
    n_runs, n_voxels = kernels.move_runs(
        counts, starts, lengths, len(values), BOX, shift, mirrored, firsts, jumps, sources
    )
    kernels.keep_values(values, firsts[:n_runs], sources[:n_runs], n_voxels, kept)
    steps = np.ones(n_voxels, np.int64)
    steps[firsts[:n_runs]] = jumps[:n_runs]
    moved = np.zeros(BOX, np.float32)
    moved.reshape(-1)[np.cumsum(steps)] = kept[:n_voxels]
    wanted = Augmentation(shift, mirrored).apply(box)
    assert np.array_equal(moved, wanted) and n_voxels == np.count_nonzero(wanted)
    positions = np.flatnonzero(box).astype(np.uint32)
    targets = np.empty(len(positions), np.int32)
    n_kept = kernels.move_voxels(positions, values, BOX, shift, mirrored, kept, targets)
    alone = np.zeros(BOX, np.float32)
    alone.reshape(-1)[targets[:n_kept]] = kept[:n_kept]
    assert np.array_equal(alone, wanted)


def runs_of(box: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(values, counts, starts, lengths) of the voxels that are not 0."""
    counts = np.empty(box.shape[0] * box.shape[1], np.uint16)
    starts, lengths = np.empty((2, box.size), np.uint16)
    n_runs = kernels.find_runs(box, counts, starts, lengths)
    return box[box != 0], counts, starts[:n_runs].copy(), lengths[:n_runs].copy()


@pytest.mark.parametrize("wrong", ["too few values", "too many values", "counts", "starts"])
def test_runs_that_contradict_each_other_are_not_moved(wrong):
    values, counts, starts, lengths = runs_of(stored("float32", 3)[CROP].copy(order="C"))
    n_values = len(values)
    if wrong == "counts":
        counts[0] += 1
    elif wrong == "starts":
        starts[5] = BOX[2]
    else:
        n_values += 1 if wrong == "too many values" else -1
    places = np.empty((3, len(starts)), np.int32)
    found = kernels.move_runs(counts, starts, lengths, n_values, BOX, (0, 0, 0), False, *places)
    assert found == (-1, -1)


def test_a_voxel_outside_its_box_is_not_moved():
    positions, values = np.array([3, 9 * 7 * 11], np.uint32), np.ones(2, np.float32)
    targets = np.empty(2, np.int32)
    none = (0, 0, 0)
    assert kernels.move_voxels(positions, values, BOX, none, False, values.copy(), targets) == -1
