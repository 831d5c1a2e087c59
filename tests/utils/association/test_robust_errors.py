"""HC3 after taking the confounds out: statsmodels' HC3 of the whole regression, single-subject sites, failures."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from utils.association.inference.robust_errors import hc3_test
from utils.association.inference.shared_rows import ConfoundBases, SharedRows, partial_correlations


def shared_rows(confounds):
    return SharedRows.of(np.arange(len(confounds)), np.asarray(confounds, float))


def hc3_of(d, y, z):
    shared = shared_rows(z)
    return hc3_test(shared.residuals(d), shared.residuals(y), shared)


def simulated(seed, n, n_confounds, kind):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, n_confounds))
    d = rng.normal(size=n) + z[:, 0]
    y = 0.2 * d[:, None] - z[:, :1] + rng.normal(size=(n, 3))
    if kind == "unequal":
        y += (0.5 * np.abs(d) ** 1.5 * rng.normal(size=n))[:, None]
    if kind == "binary":
        y = (y > 1.5).astype(float)
    if kind == "leverage":
        d[0] = 40.0
    return d, y, z


@pytest.mark.parametrize("kind", ["equal", "unequal", "binary", "leverage"])
@pytest.mark.parametrize(("seed", "n", "n_confounds"), [(1, 80, 1), (2, 300, 6), (3, 120, 40)])
def test_it_is_the_hc3_of_statsmodels(kind, seed, n, n_confounds):
    d, y, z = simulated(seed, n, n_confounds, kind)
    found = hc3_of(d, y, z)
    for column in range(3):
        ordinary = sm.OLS(y[:, column], np.column_stack([d, np.ones(n), z])).fit()
        robust = ordinary.get_robustcov_results("HC3", use_t=True)
        assert found.t[column] == pytest.approx(robust.tvalues[0], rel=1e-10)
        assert found.ratio[column] == pytest.approx(robust.bse[0] / ordinary.bse[0], rel=1e-10)
        assert found.nlog10p[column] == pytest.approx(-np.log10(robust.pvalues[0]), rel=1e-8)


def test_variance_that_grows_with_the_delta_is_seen():
    d, y, z = simulated(5, 2000, 2, "unequal")
    assert (hc3_of(d, y, z).ratio > 1.2).all()
    d, y, z = simulated(5, 2000, 2, "equal")
    np.testing.assert_allclose(hc3_of(d, y, z).ratio, 1.0, atol=0.1)


def test_the_only_subject_of_a_site_has_no_say():
    d, y, z = simulated(6, 100, 3, "equal")
    site = np.zeros((100, 1))
    site[7] = 1.0
    found = hc3_of(d, y, np.hstack([z, site]))
    without = hc3_of(*(np.delete(v, 7, axis=0) for v in (d, y, z)))
    np.testing.assert_allclose(found.t, without.t, rtol=1e-10)
    np.testing.assert_allclose(found.ratio, without.ratio, rtol=1e-10)


def test_a_delta_that_one_subject_decides_has_no_hc3():
    _, y, z = simulated(7, 60, 2, "equal")
    d = np.zeros(60)
    d[3] = 1.0
    found = hc3_of(d, y, z)
    assert np.isnan(found.t).all() and np.isnan(found.nlog10p).all() and np.isnan(found.ratio).all()


def test_nothing_left_is_nan_and_not_an_error():
    d, y, z = simulated(8, 60, 2, "equal")
    assert np.isnan(hc3_of(z[:, 0] * 3 + 1, y, z).t).all()
    assert np.isnan(hc3_of(d, 2 * z[:, :1] - 1, z).t).all()
    assert np.isnan(hc3_of(d, np.full((60, 1), 4.7), z).t).all()


def test_hc3_holds_its_level_where_the_ordinary_t_does_not():
    rng = np.random.default_rng(9)
    d = rng.normal(size=400)
    y = d[:, None] ** 2 * rng.normal(size=(400, 2000))
    shared = shared_rows(rng.normal(size=(400, 2)))
    d_left, y_left = shared.residuals(d), shared.residuals(y)
    false_alarms = (hc3_test(d_left, y_left, shared).nlog10p > -np.log10(0.05)).mean()
    ordinary = partial_correlations(d_left, y_left, shared.df)
    assert false_alarms < 0.07
    assert (ordinary.nlog10p > -np.log10(0.05)).mean() > 0.2


@pytest.mark.parametrize("missing", [0.0, 0.2, 0.6])
def test_bases_of_rows_span_the_confounds_there(missing):
    rng = np.random.default_rng(10)
    age = rng.uniform(45, 82, 500)
    site = rng.integers(0, 3, 500)
    z = np.column_stack([age, age**2, 2e7 + age, site == 1, site == 2, rng.normal(size=(500, 4))])
    z = np.column_stack([z, z[:, 0] * 2 + 3])
    rows = np.flatnonzero(rng.random(500) >= missing)
    bases = ConfoundBases.of(z)
    found, expected = bases.on(rows), SharedRows.of(rows, bases.confounds)
    assert found.rank == expected.rank
    identity = found.basis.T @ found.basis
    np.testing.assert_allclose(identity, np.eye(found.rank - 1), atol=1e-13)
    np.testing.assert_allclose(found.basis.sum(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(
        found.basis @ found.basis.T, expected.basis @ expected.basis.T, atol=1e-12
    )
    np.testing.assert_allclose(found.leverage, expected.leverage, atol=1e-13)


def test_a_site_that_vanishes_from_the_rows_costs_no_rank():
    rng = np.random.default_rng(11)
    site = np.arange(200) < 6
    z = np.column_stack([rng.normal(size=(200, 3)), site])
    bases = ConfoundBases.of(z)
    assert bases.on(np.arange(200)).rank == 5
    assert bases.on(np.arange(6, 200)).rank == 4
    assert bases.on(np.arange(5, 200)).rank == 5


def test_partial_correlation_without_confounds_is_pearson():
    rng = np.random.default_rng(12)
    d, y = rng.normal(size=50), rng.normal(size=(50, 1))
    shared = SharedRows.of(np.arange(50), np.empty((50, 0)))
    found = partial_correlations(shared.residuals(d), shared.residuals(y), shared.df)
    expected = stats.pearsonr(d, y[:, 0])
    assert found.r[0] == pytest.approx(expected.statistic, abs=1e-14)
    assert found.nlog10p[0] == pytest.approx(-np.log10(expected.pvalue), rel=1e-10)
