"""Weights from frozen moments against refitting on each pattern's columns with other programs."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.optimize import nnls
from sklearn.covariance import ledoit_wolf
from sklearn.covariance import ledoit_wolf_shrinkage as sklearn_shrinkage
from sklearn.linear_model import ElasticNet, LinearRegression, Ridge

from utils.evaluation.combination_weights import (
    WEIGHTS,
    Tuning,
    elastic_net_path,
    error_covariance,
    ridge_path,
    shrunk,
    weights_for,
)
from utils.evaluation.error_shrinkage import ledoit_wolf_shrinkage
from utils.evaluation.incomplete_moments import moments_of
from utils.evaluation.signed_least_squares import signed_least_squares

TUNED = {
    "mean": Tuning(),
    "inverse_variance": Tuning(),
    "gls": Tuning(shrinkage=0.1),
    "ridge": Tuning(0.03),
    "nonnegative": Tuning(),
    "elastic_net": Tuning(0.05, 0.5),
}
PATTERNS = ["111111", "101011", "011000", "000111", "100000"]
DATA = [
    (0, 300, 0.5),
    (1, 60, 2.0),
    (2, 1000, 0.1),
]  # seed, subjects, SD of what is a contrast's own


def joint_of(seed=0, n=300, own=0.5, n_contrasts=6):
    """Predictions that share an error and age; the less of their own they have, the more alike they are."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(45, 82, n)
    shared = rng.normal(0, 2, n)
    noise = rng.normal(size=(n, n_contrasts)) * own * rng.uniform(0.5, 3, n_contrasts)
    slope = rng.uniform(0.5, 1.0, n_contrasts)
    predicted = 63 + slope * ((age - 63 + shared)[:, None] + noise)
    return np.column_stack([predicted, age])


def masked(pattern):
    return np.array([flag == "1" for flag in pattern])


def cases():
    return [pytest.param(*d, p, id=f"{d[0]}-{p}") for d in DATA for p in PATTERNS]


def columns_of(joint, pattern):
    return joint[:, :-1][:, masked(pattern)], joint[:, -1]


def weights_of(method, joint, pattern, tuning):
    return weights_for(method, moments_of(joint).covariance, masked(pattern), tuning)


@pytest.mark.parametrize(("seed", "n", "own", "pattern"), cases())
def test_least_squares_of_a_pattern_is_that_of_its_columns(seed, n, own, pattern):
    joint = joint_of(seed, n, own)
    x, age = columns_of(joint, pattern)
    expected = LinearRegression().fit(x, age).coef_
    scale = np.abs(expected).max()
    weights = weights_of("ridge", joint, pattern, Tuning(0.0))
    np.testing.assert_allclose(weights / scale, expected / scale, rtol=0, atol=5e-12)


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 3.0])
@pytest.mark.parametrize(("seed", "n", "own", "pattern"), cases())
def test_ridge_of_a_pattern_is_that_of_its_standardised_columns(seed, n, own, pattern, penalty):
    joint = joint_of(seed, n, own)
    x, age = columns_of(joint, pattern)
    sd = x.std(axis=0)
    expected = Ridge(penalty * n, solver="svd").fit((x - x.mean(axis=0)) / sd, age).coef_ / sd
    weights = weights_of("ridge", joint, pattern, Tuning(penalty))
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("seed", "n", "own", "pattern"), cases())
def test_nonnegative_is_scipys(seed, n, own, pattern):
    joint = joint_of(seed, n, own)
    x, age = columns_of(joint, pattern)
    expected = nnls(x - x.mean(axis=0), age - age.mean())[0]
    weights = weights_of("nonnegative", joint, pattern, Tuning())
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-11)
    assert ((weights == 0) == (expected == 0)).all()


@pytest.mark.parametrize(("alpha", "l1_ratio"), [(0.5, 0.5), (0.05, 0.9), (0.01, 0.1)])
@pytest.mark.parametrize(("seed", "n", "own", "pattern"), cases())
def test_elastic_net_is_that_of_scikit_learn(seed, n, own, pattern, alpha, l1_ratio):
    joint = joint_of(seed, n, own)
    x, age = columns_of(joint, pattern)
    sd = x.std(axis=0)
    standard = (x - x.mean(axis=0)) / sd
    model = ElasticNet(alpha=alpha, l1_ratio=l1_ratio, tol=1e-14, max_iter=500_000)
    expected = model.fit(standard, age - age.mean()).coef_ / sd
    weights = weights_of("elastic_net", joint, pattern, Tuning(alpha, l1_ratio))
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("shrinkage", [0.0, 0.2])
@pytest.mark.parametrize(("seed", "n", "own", "pattern"), cases())
def test_gls_is_generalised_least_squares_of_a_constant(seed, n, own, pattern, shrinkage):
    joint = joint_of(seed, n, own)
    there = masked(pattern)
    errors = shrunk(np.cov((joint[:, :-1] - joint[:, -1:]).T, ddof=0), shrinkage)
    values = np.random.default_rng(9).normal(size=there.sum())
    sigma = errors[np.ix_(there, there)]
    expected = sm.GLS(values, np.ones(there.sum()), sigma=sigma).fit().params[0]
    weights = weights_of("gls", joint, pattern, Tuning(shrinkage=shrinkage))
    assert weights @ values == pytest.approx(expected, rel=1e-8)
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("seed", "n", "own", "pattern"), cases())
def test_inverse_variance_by_hand(seed, n, own, pattern):
    joint = joint_of(seed, n, own)
    x, age = columns_of(joint, pattern)
    precision = 1 / np.var(x - age[:, None], axis=0)
    weights = weights_of("inverse_variance", joint, pattern, Tuning())
    np.testing.assert_allclose(weights, precision / precision.sum(), rtol=1e-10)


@pytest.mark.parametrize(("seed", "n", "own"), DATA)
def test_shrinkage_is_that_of_scikit_learn(seed, n, own):
    joint = joint_of(seed, n, own)
    errors = joint[:, :-1] - joint[:, -1:]
    covariance = np.cov(errors.T, ddof=0)
    mine = ledoit_wolf_shrinkage(errors, covariance)
    assert mine == pytest.approx(sklearn_shrinkage(errors), rel=1e-9)
    np.testing.assert_allclose(shrunk(covariance, mine), ledoit_wolf(errors)[0], rtol=1e-9)


def test_shrinkage_with_missing_values_is_near_that_without_and_needs_no_met_pair():
    joint = joint_of(3, 400, 2.0)
    errors = joint[:, :-1] - joint[:, -1:]
    covariance = np.cov(errors.T, ddof=0)
    whole = ledoit_wolf_shrinkage(errors, covariance)
    holed = np.where(np.random.default_rng(0).random(errors.shape) < 0.2, np.nan, errors)
    assert whole < ledoit_wolf_shrinkage(holed, covariance) < 2.5 * whole
    apart = errors.copy()
    apart[:200, 0], apart[200:, 1] = np.nan, np.nan
    assert whole < ledoit_wolf_shrinkage(apart, covariance) <= 1.0
    assert ledoit_wolf_shrinkage(errors[:, :1], covariance[:1, :1]) == 0.0


@pytest.mark.parametrize("method", WEIGHTS)
@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_contrasts_turns_the_weights(method, seed):
    joint = joint_of(seed, 200, 1.0)
    order = np.random.default_rng(seed).permutation(6)
    weights = weights_of(method, joint, "111111", TUNED[method])
    turned = weights_of(method, joint[:, [*order, 6]], "111111", TUNED[method])
    np.testing.assert_allclose(turned, weights[order], rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", ["mean", "inverse_variance", "gls"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_averages_have_weights_that_sum_to_one(method, pattern):
    weights = weights_of(method, joint_of(5, 100, 2.0), pattern, TUNED[method])
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("method", ["ridge", "nonnegative", "elastic_net"])
def test_a_contrast_of_noise_has_next_to_no_weight(method):
    joint = joint_of(6, 4000, 1.0)
    joint[:, 2] = 63 + np.random.default_rng(1).normal(0, 8, len(joint))
    weights = weights_of(method, joint, "111111", TUNED[method])
    assert abs(weights[2]) < 0.02 < np.abs(weights).max()


@pytest.mark.parametrize("method", ["ridge", "nonnegative", "elastic_net"])
def test_units_of_a_contrast_do_not_matter(method):
    joint = joint_of(7, 200, 1.0)
    weights = weights_of(method, joint, "111111", TUNED[method])
    scaled = joint * np.array([1, 100, 1, 1e-3, 1, 1, 1])
    again = weights_of(method, scaled, "111111", TUNED[method])
    np.testing.assert_allclose(again[[0, 1, 3]], weights[[0, 1, 3]] / [1, 100, 1e-3], rtol=1e-7)


@pytest.mark.parametrize("method", ["ridge", "elastic_net"])
def test_identical_contrasts_share_their_weight(method):
    joint = joint_of(8, 200, 1.0)
    joint[:, 3] = joint[:, 0]
    weights = weights_of(method, joint, "111111", TUNED[method])
    assert weights[3] == pytest.approx(weights[0], abs=1e-9)


def test_singular_moments_are_solved():
    joint = joint_of(8, 200, 1.0)
    joint[:, 3] = joint[:, 0]
    x, age = columns_of(joint, "111111")
    centred = x - x.mean(axis=0)
    fitted = centred @ weights_of("ridge", joint, "111111", Tuning(0.0))
    expected = centred @ np.linalg.lstsq(centred, age - age.mean(), rcond=None)[0]
    np.testing.assert_allclose(fitted, expected, atol=1e-8)
    assert np.isfinite(weights_of("gls", joint, "111111", Tuning(shrinkage=0.0))).all()
    positive = centred @ weights_of("nonnegative", joint, "111111", Tuning())
    np.testing.assert_allclose(positive, centred @ nnls(centred, age - age.mean())[0], atol=1e-8)


def test_a_perfect_contrast_takes_all_the_weight():
    joint = joint_of(9, 200, 1.0)
    joint[:, 1] = joint[:, -1]
    for method in ("inverse_variance", "gls", "nonnegative"):
        weights = weights_of(method, joint, "111111", Tuning())
        assert weights[1] == pytest.approx(1.0, abs=1e-5)


def test_a_contrast_without_spread_has_no_weight_in_a_regression():
    joint = joint_of(9, 200, 1.0)
    joint[:, 1] = 60.0
    for method in ("ridge", "nonnegative", "elastic_net"):
        assert weights_of(method, joint, "111111", TUNED[method])[1] == 0.0


def test_paths_are_the_single_solutions():
    covariance = moments_of(joint_of(10, 150, 1.0)).covariance
    there = masked("110111")
    ridges = [Tuning(penalty) for penalty in (0.0, 0.1, 1.0)]
    for tuning, weights in zip(ridges, ridge_path(covariance, there, ridges)):
        np.testing.assert_allclose(weights, weights_for("ridge", covariance, there, tuning))
    nets = [Tuning(alpha, ratio) for ratio in (0.1, 0.9) for alpha in (1.0, 0.1, 0.01)]
    for tuning, weights in zip(nets, elastic_net_path(covariance, there, nets)):
        single = weights_for("elastic_net", covariance, there, tuning)
        np.testing.assert_allclose(weights, single, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("nonnegative", [False, True])
def test_57_alike_contrasts_meet_the_conditions_of_a_minimum(seed, nonnegative):
    joint = joint_of(seed, 120, 0.3, n_contrasts=57)
    moments = moments_of(joint).covariance
    gram, target, penalty = moments[:-1, :-1], moments[:-1, -1], 0.02
    weights = signed_least_squares(gram, target, penalty, nonnegative)
    gradient = target - gram @ weights
    active = weights != 0
    np.testing.assert_allclose(gradient[active], penalty * np.sign(weights[active]), atol=1e-8)
    outside = gradient[~active] if nonnegative else np.abs(gradient[~active])
    assert (outside <= penalty + 1e-8).all() and 0 < active.sum() < 57
    assert not nonnegative or (weights >= 0).all()


def test_a_start_does_not_change_the_minimum():
    moments = moments_of(joint_of(11, 100, 0.5)).covariance
    gram, target = moments[:-1, :-1], moments[:-1, -1]
    cold = signed_least_squares(gram, target, 0.5)
    warm = signed_least_squares(gram, target, 0.5, start=np.array([3.0, -2, 0, 1, -1, 0]))
    np.testing.assert_allclose(warm, cold, atol=1e-11)
    assert (signed_least_squares(gram, target, 1e6) == 0).all()


def test_errors_of_predictions_from_joint_moments():
    joint = joint_of()
    expected = np.cov((joint[:, :-1] - joint[:, -1:]).T, ddof=0)
    np.testing.assert_allclose(error_covariance(moments_of(joint).covariance), expected, rtol=1e-9)
