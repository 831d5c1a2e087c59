"""Moments with missing values: against direct maximisation, closed forms, and complete data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from utils.evaluation.incomplete_moments import Moments, moments_of


def normal(seed=0, n=60, n_columns=3):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(n_columns, n_columns)) + np.eye(n_columns)
    return 60 + 5 * rng.normal(size=(n, n_columns)) @ mixing.T


def holed(values, share, seed=0, whole=()):
    """Values missing at random; the columns `whole` stay; a row keeps at least one value."""
    missing = np.random.default_rng(seed).random(values.shape) < share
    missing[:, list(whole)] = False
    missing[missing.all(axis=1), 0] = False
    return np.where(missing, np.nan, values)


def log_likelihood(values, means, covariance):
    """Pattern by pattern with solve and slogdet on what is present."""
    total = 0.0
    present = np.isfinite(values)
    for there in np.unique(present, axis=0):
        rows = values[(present == there).all(axis=1)][:, there] - means[there]
        part = covariance[np.ix_(there, there)]
        constant = there.sum() * np.log(2 * np.pi) + np.linalg.slogdet(part)[1]
        total -= 0.5 * (len(rows) * constant + np.sum(rows * np.linalg.solve(part, rows.T).T))
    return float(total)


@pytest.mark.parametrize("n_columns", [1, 2, 8])
def test_complete_rows_give_the_plain_moments_exactly(n_columns):
    values = normal(n_columns=n_columns)
    moments = moments_of(values, prior_subjects=3.0)
    centred = values - values.mean(axis=0)
    np.testing.assert_array_equal(moments.means, values.mean(axis=0))
    np.testing.assert_array_equal(moments.covariance, centred.T @ centred / len(values))
    assert moments.converged and moments.n_iterations == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("prior", [0.0, 3.0])
def test_it_is_the_maximum_that_a_direct_search_finds(seed, prior):
    values = holed(normal(seed, 40), 0.25, seed)
    moments = moments_of(values, prior_subjects=prior)
    centre, spread = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    standard = (values - centre) / spread
    below = np.tril_indices(3)

    def lost(parameters):
        root = np.zeros((3, 3))
        root[below] = parameters[3:]
        covariance = root @ root.T
        penalty = (
            0.5 * prior * (np.linalg.slogdet(covariance)[1] + np.trace(np.linalg.inv(covariance)))
        )
        return penalty - log_likelihood(standard, parameters[:3], covariance)

    found = minimize(lost, np.concatenate([np.zeros(3), np.eye(3)[below]]), method="BFGS", tol=1e-7)
    root = np.zeros((3, 3))
    root[below] = found.x[3:]
    np.testing.assert_allclose((moments.means - centre) / spread, found.x[:3], atol=2e-5)
    scaled = moments.covariance / np.outer(spread, spread)
    np.testing.assert_allclose(scaled, root @ root.T, atol=5e-5)
    last = -lost(found.x) - np.isfinite(values).sum(axis=0) @ np.log(spread)
    assert moments.log_likelihoods[-1] == pytest.approx(last, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_two_columns_of_which_one_is_incomplete_have_a_closed_form(seed, share):
    """Anderson 1957: regression of the incomplete column on the complete one, then the latter's own moments."""
    values = holed(normal(seed, 80, 2), share, seed, whole=[0])
    x, y = values.T
    both = np.isfinite(y)
    slope = np.cov(x[both], y[both], ddof=0)[0, 1] / np.var(x[both])
    about = np.var(y[both] - slope * x[both])
    moments = moments_of(values, tolerance=1e-13)
    mean_y = y[both].mean() + slope * (x.mean() - x[both].mean())
    np.testing.assert_allclose(moments.means, [x.mean(), mean_y], rtol=1e-9)
    covariance = [[np.var(x), slope * np.var(x)], [slope * np.var(x), about + slope**2 * np.var(x)]]
    np.testing.assert_allclose(moments.covariance, covariance, rtol=1e-8)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("prior", [0.0, 3.0])
def test_the_likelihood_never_falls(seed, prior):
    values = holed(normal(seed, 300, 6), 0.1 + 0.04 * seed, seed)
    moments = moments_of(values, prior_subjects=prior)
    steps = np.diff(moments.log_likelihoods)
    assert steps.min() > -1e-8 and moments.converged and moments.n_iterations > 3


def test_the_log_likelihood_is_that_of_scipy():
    values = holed(normal(3, 50, 4), 0.3)
    first = moments_of(values)
    expected = 0.0
    for row in values:
        there = np.isfinite(row)
        density = multivariate_normal(first.means[there], first.covariance[np.ix_(there, there)])
        expected += float(density.logpdf(row[there]))
    assert first.log_likelihoods[-1] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("prior", [0.0, 3.0])
def test_many_subjects_missing_at_random_give_the_moments_of_complete_data(prior):
    values = normal(1, 20_000, 5)
    complete, incomplete = moments_of(values), moments_of(holed(values, 0.3), prior_subjects=prior)
    sd = np.sqrt(np.diag(complete.covariance))
    np.testing.assert_allclose(incomplete.means / sd, complete.means / sd, atol=0.02)
    scale = np.outer(sd, sd)
    np.testing.assert_allclose(
        incomplete.covariance / scale, complete.covariance / scale, atol=0.02
    )


def test_selection_by_a_present_value_does_not_bias_what_available_values_would():
    """Missing at random, not completely: the second is missing where the first is high."""
    values = normal(2, 20_000, 2)
    values[values[:, 0] > np.median(values[:, 0]), 1] = np.nan
    whole = normal(2, 20_000, 2).mean(axis=0)[1]
    assert (
        abs(moments_of(values).means[1] - whole) < 0.3 < 0.6 < abs(np.nanmean(values[:, 1]) - whole)
    )


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_counts_repeat_rows(share):
    values = holed(normal(4, 50), share)
    counts = np.random.default_rng(4).integers(0, 4, 50).astype(float)
    repeated = moments_of(np.repeat(values, counts.astype(int), axis=0))
    counted = moments_of(values, counts)
    np.testing.assert_allclose(counted.means, repeated.means, rtol=1e-9)
    np.testing.assert_allclose(counted.covariance, repeated.covariance, rtol=1e-6)
    assert counted.n == counts.sum()


@pytest.mark.parametrize("seed", range(3))
def test_order_units_and_start_do_not_matter(seed):
    values = holed(normal(seed, 80, 4), 0.25, seed)
    moments = moments_of(values, tolerance=1e-11, prior_subjects=3.0)
    order = np.random.default_rng(seed).permutation(80)
    columns = [2, 0, 3, 1]
    scale = np.array([1.0, 1000.0, 1e-3, 7.0])
    turned = moments_of((values * scale)[order][:, columns], tolerance=1e-11, prior_subjects=3.0)
    np.testing.assert_allclose(turned.means, (moments.means * scale)[columns], rtol=1e-8)
    expected = (moments.covariance * np.outer(scale, scale))[np.ix_(columns, columns)]
    np.testing.assert_allclose(turned.covariance, expected, rtol=1e-6)
    start = Moments(np.full(4, 50.0), 4 * np.eye(4), 80.0)
    other = moments_of(values, start=start, tolerance=1e-11, prior_subjects=3.0)
    np.testing.assert_allclose(other.covariance, moments.covariance, rtol=1e-6)


def test_the_prior_holds_where_the_likelihood_has_no_bound():
    """More columns than subjects have: without the prior, correlations run to one."""
    values = holed(normal(5, 25, 30), 0.2)
    moments = moments_of(values, prior_subjects=3.0)
    eigenvalues = np.linalg.eigvalsh(moments.covariance)
    assert moments.converged and eigenvalues[0] > 0
    loose = moments_of(values, maximum_iterations=50)
    assert np.linalg.eigvalsh(loose.covariance)[0] < eigenvalues[0] / 100


def test_identical_and_constant_columns_stay_finite():
    values = normal(6, 60, 4)
    values[:, 1], values[:, 2] = values[:, 0], 63.0
    moments = moments_of(holed(values, 0.2), prior_subjects=3.0)
    assert np.isfinite(moments.covariance).all()
    assert moments.means[2] == pytest.approx(63.0)


def test_iterations_that_do_not_suffice_are_told():
    moments = moments_of(holed(normal(7, 60), 0.4), maximum_iterations=2)
    assert not moments.converged and moments.n_iterations == 2


def test_nothing_to_learn_from_is_named():
    values = normal()
    values[:, 1] = np.nan
    with pytest.raises(ValueError, match="column without any value"):
        moments_of(values)
    values[0] = np.nan
    with pytest.raises(ValueError, match="row without any value"):
        moments_of(values)
