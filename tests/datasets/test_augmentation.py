"""Shift and mirror: nothing wraps, a draw can be replayed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
