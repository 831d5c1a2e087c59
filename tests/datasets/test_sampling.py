"""Age-balanced sampling: weights by hand, frequencies, and functions of seed and epoch."""

from __future__ import annotations

import numpy as np
import pytest

from datasets.sampling import age_weights, sampled
from utils.common.errors import UserError
from utils.common.randomness import generator

# Ten of one age, two of another, and one alone.
AGES = np.array([60.0] * 10 + [70.0, 71.0, 80.0])


def test_weights_by_hand():
    """1 / how many are within 2.5 years, both ends included."""
    weights = age_weights(np.array([50.0, 52.5, 55.0, 60.0]))
    assert weights.tolist() == [1 / 2, 1 / 3, 1 / 2, 1]
    assert age_weights(AGES).tolist() == [0.1] * 10 + [0.5, 0.5, 1.0]


def test_no_weight_is_above_ten_times_the_smallest():
    weights = age_weights(np.array([60.0] * 40 + [70.0] * 8 + [80.0]))
    assert weights.tolist() == pytest.approx([1 / 40] * 40 + [1 / 8] * 8 + [10 / 40])


def test_ages_come_equally_often():
    drawn = np.concatenate([sampled(AGES, 3, epoch, "age_balanced") for epoch in range(3000)])
    share = np.bincount(drawn, minlength=13) / len(drawn)
    np.testing.assert_allclose(share, age_weights(AGES) / age_weights(AGES).sum(), atol=0.008)


def test_each_is_the_present_order_and_the_draw_a_function_of_seed_and_epoch():
    ages = np.linspace(45, 80, 40)
    assert sampled(ages, 7, 2) == generator(7, "order", 2).permutation(40).tolist()
    first = sampled(ages, 7, 2, "age_balanced")
    assert len(first) == 40 and len(set(first)) < 40
    assert first == sampled(ages, 7, 2, "age_balanced")
    assert first != sampled(ages, 7, 3, "age_balanced")
    assert first != sampled(ages, 8, 2, "age_balanced")


def test_balancing_needs_ages():
    with pytest.raises(
        UserError, match=r"sampling = age_balanced: 1 training subject\(s\) have no"
    ):
        sampled(np.array([50.0, np.nan]), 1, 1, "age_balanced")
    with pytest.raises(ValueError, match="'often', it can be each or age_balanced"):
        sampled(AGES, 1, 1, "often")
    assert sampled(np.empty(0), 1, 1, "each") == []
