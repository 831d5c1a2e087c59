"""Curves, image quality and selective presence: regressions of statsmodels, and effects put into the data."""

import numpy as np
import pytest
import statsmodels.api as sm

from utils.association.inference.missing_selection import selection_by_presence
from utils.association.inference.sensitivity import quality_halves, squared_delta_test
from utils.association.inference.shared_rows import ConfoundBases, SharedRows


def simulated(seed, n=400, curve=0.0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 3))
    d = rng.normal(size=n) + 2 * z[:, 0]
    left = d - 2 * z[:, 0]
    return d, (0.3 * left + curve * left**2 + z[:, 1] + rng.normal(size=n))[:, None], z


@pytest.mark.parametrize(("seed", "curve"), [(1, 0.0), (2, 0.2), (3, -0.4)])
def test_the_squared_delta_is_a_term_of_the_regression(seed, curve):
    d, y, z = simulated(seed, curve=curve)
    shared = SharedRows.of(np.arange(400), z)
    left = shared.residuals(d)
    found = squared_delta_test(left, shared.residuals(y), shared)
    fit = sm.OLS(y[:, 0], np.column_stack([left**2, d, np.ones(400), z])).fit()
    assert found.t[0] == pytest.approx(fit.tvalues[0], rel=1e-10)
    assert found.nlog10p[0] == pytest.approx(-np.log10(fit.pvalues[0]), rel=1e-8)


def test_a_square_of_age_in_the_delta_is_no_curve():
    """The raw delta's square is full of age: with it, age squared in the nIDP would look like a curve."""
    rng = np.random.default_rng(4)
    age = rng.uniform(-2, 2, 3000)
    z = np.column_stack([age, age**2])
    d = 3 * age + rng.normal(size=3000)
    y = (age**2 + rng.normal(size=3000))[:, None]
    shared = SharedRows.of(np.arange(3000), z)
    assert squared_delta_test(shared.residuals(d), shared.residuals(y), shared).nlog10p[0] < 3


def test_a_binary_delta_has_no_square_of_its_own():
    shared = SharedRows.of(np.arange(40), np.empty((40, 0)))
    d = shared.residuals(np.repeat([0.0, 1.0], 20))
    y = shared.residuals(np.random.default_rng(5).normal(size=(40, 1)))
    assert np.isnan(squared_delta_test(d, y, shared).t[0])


def test_quality_halves_are_regressions_in_each_half():
    d, y, z = simulated(6)
    quality = np.round(np.random.default_rng(7).normal(size=400), 1)
    quality[:5] = np.nan
    found = quality_halves(d, y, quality, np.arange(400), ConfoundBases.of(z))
    middle = np.median(quality[5:])
    z_values, weights = [], []
    for half, r in ((quality <= middle, found.r_lower[0]), (quality > middle, found.r_upper[0])):
        x = np.column_stack([d[half], np.ones(half.sum()), z[half]])
        fit = sm.OLS(y[half, 0], x).fit()
        t = fit.tvalues[0]
        assert r == pytest.approx(t / np.sqrt(t**2 + fit.df_resid), rel=1e-10)
        z_values.append(np.arctanh(r))
        weights.append(fit.df_resid - 1)
    z_difference = (z_values[0] - z_values[1]) / np.sqrt(sum(1 / w for w in weights))
    from scipy import stats

    assert found.nlog10p[0] == pytest.approx(-np.log10(2 * stats.norm.sf(abs(z_difference))))


def test_an_association_made_by_motion_stands_in_the_worse_half():
    rng = np.random.default_rng(8)
    motion = rng.exponential(size=4000)
    artefact = np.where(motion > 0.7, rng.normal(size=4000), 0.0)
    d, y = artefact + rng.normal(size=4000), (artefact + rng.normal(size=4000))[:, None]
    bases = ConfoundBases.of(rng.normal(size=(4000, 2)))
    found = quality_halves(d, y, motion, np.arange(4000), bases)
    assert abs(found.r_lower[0]) < 0.06 and found.r_upper[0] > 0.4 and found.nlog10p[0] > 10


@pytest.mark.parametrize("quality", [np.full(400, np.nan), np.full(400, 2.0)])
def test_quality_without_two_halves_is_nan(quality):
    d, y, z = simulated(9)
    assert np.isnan(quality_halves(d, y, quality, np.arange(400), ConfoundBases.of(z)).nlog10p[0])


def test_presence_against_the_plain_formulas():
    d, _, z = simulated(10)
    rng = np.random.default_rng(11)
    age = 60 + 5 * z[:, 0]
    present = np.column_stack([rng.random(400) < 0.7, d + rng.normal(size=400) > 0])
    shared = SharedRows.of(np.arange(400), z)
    found = selection_by_presence(d, age, present, shared, 10)
    for column in range(2):
        with_it = present[:, column]
        assert found.n_without[column] == (~with_it).sum()
        for values, difference in ((age, found.age_difference_sd), (d, found.delta_difference_sd)):
            a, b = values[with_it], values[~with_it]
            pooled = np.sqrt((((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum()) / 398)
            assert difference[column] == pytest.approx((a.mean() - b.mean()) / pooled, rel=1e-10)
        x = np.column_stack([d, np.ones(400), z])
        fit = sm.OLS(with_it.astype(float), x).fit()
        assert found.presence_nlog10p[column] == pytest.approx(-np.log10(fit.pvalues[0]), rel=1e-8)
    assert found.presence_nlog10p[1] > 5 > found.presence_nlog10p[0]


def test_presence_needs_subjects_on_both_sides():
    d, _, z = simulated(12)
    present = np.ones((400, 3), dtype=bool)
    present[:9, 1] = False
    present[:10, 2] = False
    shared = SharedRows.of(np.arange(400), z)
    found = selection_by_presence(d, z[:, 0], present, shared, 10)
    np.testing.assert_array_equal(found.n_without, [0, 9, 10])
    np.testing.assert_array_equal(np.isnan(found.presence_r), [True, True, False])
    np.testing.assert_array_equal(np.isnan(found.age_difference_sd), [True, True, False])
