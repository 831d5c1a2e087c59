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
