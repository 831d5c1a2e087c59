"""Disattenuated correlations: values, an interval that covers, and reliabilities that cannot be used."""

import numpy as np
import pytest

from utils.association.inference.reliability_correction import disattenuate


@pytest.mark.parametrize(("r", "reliability", "expected"), [
    (0.3, 0.81, 1 / 3), (-0.3, 0.81, -1 / 3), (0.2, 1.0, 0.2), (0.0, 0.5, 0.0), (0.9, 0.49, 9 / 7),
])  # fmt: skip
def test_r_over_the_root_of_the_reliability(r, reliability, expected):
    found = disattenuate(r, r - 0.1, r + 0.1, reliability, reliability - 0.1, reliability)
    assert found.r == pytest.approx(expected)
    assert found.low < found.r < found.high


def test_a_known_reliability_divides_the_ends():
    found = disattenuate([0.2, -0.2, 0.01], [0.1, -0.3, -0.1], [0.3, -0.1, 0.12], 0.64, 0.64, 0.64)
    np.testing.assert_allclose(found.low, [0.125, -0.375, -0.125])
    np.testing.assert_allclose(found.high, [0.375, -0.125, 0.15])


def test_a_mirrored_r_has_the_mirrored_interval():
    first = disattenuate([0.2, 0.05], [0.1, -0.05], [0.3, 0.15], 0.7, 0.5, 0.82)
    other = disattenuate([-0.2, -0.05], [-0.3, -0.15], [-0.1, 0.05], 0.7, 0.5, 0.82)
    np.testing.assert_allclose(first.low, -other.high)
    np.testing.assert_allclose(first.high, -other.low)


def test_an_uncertain_reliability_widens_the_interval():
    known = disattenuate(0.3, 0.25, 0.35, 0.7, 0.7, 0.7)
    uncertain = disattenuate(0.3, 0.25, 0.35, 0.7, 0.5, 0.85)
    assert uncertain.low < known.low and uncertain.high > known.high


@pytest.mark.parametrize("truth", [0.0, 0.05, -0.3, 0.6])
def test_the_interval_covers_the_truth(truth):
    """r and the reliability each estimated from bivariate normal data: 400 subjects, and 60 measured twice."""
    rng = np.random.default_rng(1)
    reliability, n, n_twice, trials = 0.75, 400, 60, 4000
    z = np.arctanh(truth * np.sqrt(reliability)) + rng.normal(size=trials) / np.sqrt(n - 3)
    w = np.arctanh(reliability) + rng.normal(size=trials) / np.sqrt(n_twice - 3)
    half, half_w = 1.96 / np.sqrt(n - 3), 1.96 / np.sqrt(n_twice - 3)
    ends = [np.tanh(v) for v in (z, z - half, z + half, w, w - half_w, w + half_w)]
    found = disattenuate(*ends)
    covered = ((found.low <= truth) & (truth <= found.high)).mean()
    assert 0.935 < covered < 0.965


def test_reliabilities_that_cannot_be_used():
    found = disattenuate(0.3, 0.2, 0.4, [0.0, -0.2, np.nan, 0.3], [0, -0.4, np.nan, -0.1], 0.6)
    np.testing.assert_array_equal(np.isnan(found.r), [True, True, True, False])
    assert np.isnan(found.high).all()
    assert np.isnan(
        disattenuate(0.3, 0.2, 0.4, 0.1, 0.01, 0.6).low
    )  # its upper end is six times it
