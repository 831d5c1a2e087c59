"""Shift, mirror, rotation, zoom, gain and gamma: nothing wraps, a draw can be replayed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from datasets.augmentation import Augmentation, AugmentationPlan
from utils.common.randomness import generator

SHAPE = (7, 6, 5)
VOLUME = np.arange(1, 211, dtype=np.float32).reshape(SHAPE)  # no voxel is zero, none occurs twice
SHIFTS = st.tuples(*[st.integers(-8, 8)] * 3)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(shift=SHIFTS)
def test_a_shift_never_wraps_and_fills_with_zeros(shift):
    moved = Augmentation(shift, mirrored=False).apply(VOLUME)
    for index in np.ndindex(SHAPE):
        source = tuple(i - s for i, s in zip(index, shift))
        inside = all(0 <= i < size for i, size in zip(source, SHAPE))
        assert moved[index] == (VOLUME[source] if inside else 0)


def test_mirroring_is_of_the_first_axis_and_twice_is_identity():
    mirror = Augmentation((0, 0, 0), mirrored=True)
    assert np.array_equal(mirror.apply(VOLUME), VOLUME[::-1])
    assert np.array_equal(mirror.apply(mirror.apply(VOLUME)), VOLUME)
    before = VOLUME.copy()
    Augmentation((1, -1, 2), mirrored=True).apply(VOLUME)
    assert np.array_equal(VOLUME, before)


def test_the_same_generator_state_gives_the_same_draw():
    plan = AugmentationPlan(shift_voxels=2, mirror=True)
    assert plan.draw(generator(3, "a")) == plan.draw(generator(3, "a"))
    draws = [plan.draw(generator(seed, "draw")) for seed in range(400)]
    for axis in range(3):
        assert {draw.shift[axis] for draw in draws} == {-2, -1, 0, 1, 2}
    assert 140 < sum(draw.mirrored for draw in draws) < 260
    assert not any(AugmentationPlan(2).draw(generator(s)).mirrored for s in range(50))


@pytest.mark.parametrize("plan", [AugmentationPlan(0, True), AugmentationPlan(3, False)])
def test_only_what_was_asked_for(plan):
    draws = [plan.draw(generator(seed)) for seed in range(60)]
    assert any(draw.mirrored for draw in draws) == plan.mirror
    assert any(draw.shift != (0, 0, 0) for draw in draws) == bool(plan.shift_voxels)


def homogeneous(matrix: np.ndarray | None = None, moved: np.ndarray | tuple = (0, 0, 0)):
    whole = np.eye(4)
    whole[:3, :3], whole[:3, 3] = np.eye(3) if matrix is None else matrix, moved
    return whole


def by_scipy(volume: np.ndarray, by: Augmentation, mode: str) -> np.ndarray:
    """Each change as a map of coordinates about the centre, one after the other, inverted at the end."""
    centre = (np.array(volume.shape) - 1) / 2
    rotation = Rotation.from_euler(
        "xyz", by.rotation_degrees, degrees=True
    ).as_matrix()  # extrinsic
    onward = (
        homogeneous(moved=centre)
        @ homogeneous(np.diag([-1 if by.mirrored else 1, 1, 1]))
        @ homogeneous(moved=by.shift)
        @ homogeneous(by.zoom * rotation)
        @ homogeneous(moved=-centre)
    )
    return affine_transform(volume, np.linalg.inv(onward), order=1, mode=mode, cval=0.0)


geometry = st.builds(
    Augmentation,
    shift=st.tuples(*[st.integers(-3, 3)] * 3),
    mirrored=st.booleans(),
    rotation_degrees=st.tuples(*[st.floats(-180, 180)] * 3),
    zoom=st.floats(0.5, 1.9),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(by=geometry)
def test_rotation_zoom_shift_and_mirror_are_one_affine_transform(by):
    """Outside is zero, and is interpolated with: scipy's "grid-constant", and "constant" where the border is 0."""
    volume = np.random.default_rng(1).normal(0, 1, (9, 8, 11)).astype(np.float32)
    if not by.resamples:
        return
    np.testing.assert_allclose(by.apply(volume), by_scipy(volume, by, "grid-constant"), atol=2e-6)
    within = np.pad(volume, 2)
    np.testing.assert_allclose(by.apply(within), by_scipy(within, by, "constant"), atol=2e-6)


def test_a_quarter_turn_about_each_axis_is_that_of_numpy():
    cube = np.random.default_rng(2).normal(0, 1, (5, 5, 5)).astype(np.float32)
    for axis, plane in enumerate([(1, 2), (2, 0), (0, 1)]):
        angles = tuple(90.0 if a == axis else 0.0 for a in range(3))
        turned = Augmentation((0, 0, 0), False, rotation_degrees=angles).apply(cube)
        np.testing.assert_allclose(turned, np.rot90(cube, 1, plane), atol=1e-5)


def test_a_zoom_is_about_the_centre():
    ramp = np.broadcast_to(np.arange(9, dtype=np.float32)[:, None, None], (9, 9, 9)).copy()
    larger = Augmentation((0, 0, 0), False, zoom=2.0).apply(ramp)
    np.testing.assert_allclose(larger[:, 4, 4], [2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6], rtol=1e-6)
    smaller = Augmentation((0, 0, 0), False, zoom=0.5).apply(ramp)
    np.testing.assert_allclose(smaller[:, 4, 4], [0, 0, 0, 2, 4, 6, 8, 0, 0], rtol=1e-6)


def test_voxels_that_are_only_moved_keep_their_bits():
    """The integer path and the resampling agree where both can be used."""
    volume = np.random.default_rng(3).normal(0, 1, (9, 8, 7)).astype(np.float32)
    moved = Augmentation((1, -2, 3), True)
    resampled = dataclasses.replace(moved, rotation_degrees=(360.0, 0.0, 0.0))
    assert resampled.resamples and not moved.resamples
    np.testing.assert_allclose(resampled.apply(volume), moved.apply(volume), atol=1e-6)
    assert set(np.abs(moved.apply(volume)).ravel()) <= {0.0, *np.abs(volume).ravel()}


@pytest.mark.parametrize("shift", [(0, 0, 0), (2, 0, -1)])
def test_gamma_and_gain_are_of_what_is_in_the_box(shift):
    volume = np.random.default_rng(4).normal(0, 3, (6, 7, 8)).astype(np.float32)
    volume[1] = 0
    before = volume.copy()
    moved = Augmentation(shift, True).apply(volume)
    changed = Augmentation(shift, True, gain=1.2, gamma=0.7).apply(volume)
    scale = np.abs(moved).max()
    wanted = np.sign(moved) * np.abs(moved / scale) ** 0.7 * scale * 1.2
    np.testing.assert_allclose(changed, wanted, rtol=1e-5)
    assert np.array_equal(volume, before)
    gained = Augmentation(shift, True, gain=1.2).apply(volume)
    assert np.array_equal(gained, moved * np.float32(1.2))
    brightest = np.unravel_index(np.abs(moved).argmax(), moved.shape)
    unchanged = Augmentation(shift, True, gamma=0.7).apply(volume)[brightest]
    assert unchanged == pytest.approx(moved[brightest], rel=1e-6)


def test_a_volume_that_left_its_box_stays_zero():
    volume = np.ones((4, 4, 4), np.float32)
    assert not Augmentation((4, 0, 0), False, gain=1.1, gamma=0.8).apply(volume).any()
    assert not Augmentation((9, 0, 0), False, (1.0, 0.0, 0.0), gamma=0.8).apply(volume).any()


EVERYTHING = AugmentationPlan(2, True, 10.0, 0.1, 0.2, 0.3)


def test_what_is_drawn_more_leaves_shift_and_mirror_as_they_were():
    for seed in range(50):
        plain = AugmentationPlan(2, True).draw(generator(seed))
        assert plain == Augmentation(plain.shift, plain.mirrored)
        everything = EVERYTHING.draw(generator(seed))
        assert (everything.shift, everything.mirrored) == (plain.shift, plain.mirrored)
        for name in ("rotation_degrees", "zoom_fraction", "gain_fraction", "gamma_fraction"):
            one = dataclasses.replace(
                AugmentationPlan(2, True), **{name: getattr(EVERYTHING, name)}
            )
            drawn, field = one.draw(generator(seed)), name.removesuffix("_fraction")
            wanted = {field: getattr(everything, field)}
            assert drawn == dataclasses.replace(plain, **wanted)


def test_draws_fill_their_ranges():
    draws = [EVERYTHING.draw(generator(seed, "range")) for seed in range(400)]
    for axis in range(3):
        angles = [draw.rotation_degrees[axis] for draw in draws]
        assert -10 <= min(angles) < -9 and 9 < max(angles) <= 10
    for field, fraction in (("zoom", 0.1), ("gain", 0.2), ("gamma", 0.3)):
        factors = [getattr(draw, field) for draw in draws]
        assert 1 - fraction <= min(factors) < 1 - 0.9 * fraction
        assert 1 + 0.9 * fraction < max(factors) <= 1 + fraction
