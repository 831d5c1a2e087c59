"""The GPD tail: hand numbers, scipy, known tails recovered, the test's level, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from utils.association.inference.generalised_pareto import (
    CRITICAL_STATISTICS,
    TABLE_SHAPES,
    ParetoTail,
    anderson_darling,
    fit_tail,
    is_accepted,
    moment_estimates,
    survival,
)
from utils.common.randomness import generator

REFERENCE = json.loads(
    (Path(__file__).parents[2] / "reference" / "pareto_reference.json").read_text()
)
SHAPES = [-0.4, -0.1, 0.0, 0.2, 0.5]


def sample(shape: float, n: int, *words) -> np.ndarray:
    u = generator("pareto", *words).uniform(size=n)
    return -np.log(u) if shape == 0 else (1 - u**shape) / shape


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_survival_agrees_with_scipy_whose_shape_has_the_other_sign(shape, scale):
    y = np.array([0.0, 0.01, 0.4, 0.59, 1.3, 5.0])
    np.testing.assert_allclose(
        survival(y, scale, shape), stats.genpareto.sf(y, -shape, scale=scale), rtol=1e-12
    )


@pytest.mark.parametrize("scale", [0.5, 2.0])
@pytest.mark.parametrize("shape", [-0.2, 0.0, 0.3])
def test_moments_of_the_distribution_give_its_parameters(scale, shape):
    mean, variance = stats.genpareto.stats(-shape, scale=scale)
    two_points = mean + np.array([-1.0, 1.0]) * np.sqrt(variance / 2)  # these moments exactly
    np.testing.assert_allclose(moment_estimates(two_points), (scale, shape), atol=1e-12)


def test_moments_by_hand():
    # mean 2, variance 2: m^2/s^2 = 2, scale 2 (2 + 1) / 2 = 3, shape (2 - 1) / 2
    assert moment_estimates(np.array([1.0, 3.0])) == (3.0, 0.5)


def test_anderson_darling_by_hand_and_at_the_ends():
    # n = 1: -1 - (ln u + ln(1 - u))
    assert anderson_darling(np.array([0.25])) == pytest.approx(-1 - np.log(0.25 * 0.75))
    u = np.array([0.7, 0.2])
    by_hand = -2 - (np.log(0.2) + np.log(0.3) + 3 * (np.log(0.7) + np.log(0.8))) / 2
    assert anderson_darling(u) == pytest.approx(by_hand)
    assert anderson_darling(np.array([0.0, 0.5])) == np.inf
    assert anderson_darling(np.array([0.5, 1.0])) == np.inf


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_anderson_darling_agrees_with_scipy(seed):
    x = generator("normal", seed).normal(size=40)
    fitted = stats.norm.cdf(x, x.mean(), x.std(ddof=1))
    given = stats.goodness_of_fit(
        stats.norm, x, known_params={"loc": x.mean(), "scale": x.std(ddof=1)}, statistic="ad",
        n_mc_samples=1, rng=np.random.default_rng(0),
    )  # fmt: skip
    assert anderson_darling(fitted) == pytest.approx(float(given.statistic), rel=1e-10)


def test_critical_values_are_those_simulated():
    table = REFERENCE["moments"]
    np.testing.assert_array_equal(TABLE_SHAPES, table["shapes"])
    np.testing.assert_allclose(CRITICAL_STATISTICS, table["critical_5_percent"], atol=6e-4)
    assert is_accepted(0.97, 0.0) and not is_accepted(0.99, 0.0)
    assert is_accepted(1.32, -3.0) and not is_accepted(1.33, -3.0)  # the end of the table


def test_published_table_holds_for_likelihood_with_the_sign_of_the_shape_reversed():
    for row in REFERENCE["likelihood"]:
        assert row["simulated_median"] == pytest.approx(
            row["published_median_at_minus_shape"], rel=0.04
        )


@pytest.mark.parametrize("shape", [-0.1, 0.0, 0.1])
def test_level_of_the_test_with_estimated_parameters(shape):
    n_runs, rejected = 400, 0
    for run in range(n_runs):
        y = sample(shape, 250, "level", run)
        fitted = moment_estimates(y)
        rejected += not is_accepted(anderson_darling(1 - survival(y, *fitted)), fitted[1])
    assert stats.binomtest(rejected, n_runs, 0.05).pvalue > 0.001


@pytest.mark.parametrize("shape", [-0.1, 0.0, 0.2])
def test_a_known_tail_is_recovered(shape):
    values = 3.0 + 0.5 * sample(shape, 20_000, "known")
    tail = fit_tail(values)
    exact_end = 3.0 + 0.5 * (1 - 0.249**shape) / shape if shape else 3.0 - 0.5 * np.log(0.249)
    assert tail.threshold == pytest.approx(exact_end, rel=0.01)
    assert tail.share == pytest.approx(0.249, abs=2e-4)
    assert tail.shape == pytest.approx(shape, abs=0.05)
    assert tail.scale == pytest.approx(0.5 * 0.249**shape, rel=0.05)
    for p in (0.1, 0.01, 0.001):
        true = 3.0 + 0.5 * ((1 - p**shape) / shape if shape else -np.log(p))
        assert float(tail.p(true)) == pytest.approx(p, rel=0.25)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("p", [0.2, 0.05, 1e-4])
def test_quantile_inverts_p(shape, p):
    tail = ParetoTail(threshold=4.0, share=0.249, scale=0.43, shape=shape)
    assert float(tail.p(tail.quantile(p))) == pytest.approx(p, rel=1e-9)


def test_maxima_of_independent_tests_have_an_exponential_tail_on_this_scale():
    # -log10 of the smallest of many uniform p: P(T > t) = M 10^-t far out, shape 0 and scale 1 / ln 10
    maxima = -np.log10(generator("uniform").beta(1, 500, size=20_000))
    tail = fit_tail(maxima)
    assert abs(tail.shape) < 0.06 and tail.scale == pytest.approx(1 / np.log(10), rel=0.15)


def test_threshold_moves_up_until_the_tail_fits():
    rng = generator("two parts")
    body = rng.uniform(0, 1.0, 17_000)  # no tail of a GPD together with what follows
    mixed = np.r_[body, 1.0 + rng.exponential(2.0, 3000)]
    tail = fit_tail(mixed)
    assert tail.share <= 0.16 and tail.scale == pytest.approx(2.0, rel=0.1)


def test_no_tail_without_enough_or_with_tied_or_short_ended_maxima():
    assert fit_tail(generator("few").exponential(size=999)) is None
    assert fit_tail(np.ones(5000)) is None
    assert fit_tail(np.repeat(np.arange(10.0), 200)) is None
    short_ended = 1.0 - generator("short").uniform(size=5000) ** 2  # shape 1 at its end
    assert fit_tail(short_ended) is None or fit_tail(short_ended).shape <= 0.5
