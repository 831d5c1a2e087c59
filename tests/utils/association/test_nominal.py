"""The overall F of a nominal nIDP: statsmodels' comparison of models, mpmath's tail, levels that cost nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm

from utils.association.inference.nominal import nlog10p_from_f, overall_f_test
from utils.association.inference.shared_rows import SharedRows
from utils.association.tails import nlog10p_from_t

REFERENCE = json.loads(
    (Path(__file__).parents[2] / "reference" / "recheck_reference.json").read_text()
)["f"]


def simulated(seed, n=300, n_levels=4, n_confounds=3):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, n_confounds))
    level = rng.integers(0, n_levels, n)
    d = rng.normal(size=n) + z[:, 0] + 0.3 * (level == 1)
    return d, (level[:, None] == np.arange(n_levels)).astype(float), z


def overall(d, indicators, z):
    return overall_f_test(d, indicators, SharedRows.of(np.arange(len(d)), z))


@pytest.mark.parametrize(("seed", "n", "n_levels", "n_confounds"), [
    (1, 300, 4, 3), (2, 90, 2, 1), (3, 500, 12, 8), (4, 60, 7, 20),
])  # fmt: skip
def test_statsmodels_comparison_of_models(seed, n, n_levels, n_confounds):
    d, indicators, z = simulated(seed, n, n_levels, n_confounds)
    found = overall(d, indicators, z)
    null = np.column_stack([np.ones(n), z])
    full = sm.OLS(d, np.column_stack([null, indicators[:, 1:]])).fit()
    f, p, df_levels = full.compare_f_test(sm.OLS(d, null).fit())
    assert found.f == pytest.approx(f, rel=1e-10)
    assert found.nlog10p == pytest.approx(-np.log10(p), rel=1e-9)
    assert (found.df_levels, found.df_residual) == (df_levels, full.df_resid)


@pytest.mark.parametrize("case", REFERENCE)
def test_recorded_mpmath_tails(case):
    found = nlog10p_from_f(case["f"], case["between"], case["within"])
    assert found == pytest.approx(case["nlog10p"], rel=2e-12)


@pytest.mark.parametrize("df", [1, 7, 200, 19_978])
def test_with_one_level_it_is_the_t_test(df):
    t = np.array([0.01, 0.5, 2.0, 9.0, 40.0, 300.0])
    np.testing.assert_allclose(nlog10p_from_f(t**2, 1, df), nlog10p_from_t(t, df), rtol=1e-11)


def test_no_f_is_nan_and_a_huge_one_is_finite():
    values = nlog10p_from_f([np.nan, -1.0, np.inf, 1e12, 0.0, 3.0], [2, 2, 2, 2, 2, 0], 10_000)
    np.testing.assert_array_equal(np.isfinite(values), [False, False, False, True, True, False])
    assert values[4] == 0.0 and values[3] > 30_000


def test_the_reference_level_and_levels_the_confounds_explain_cost_nothing():
    d, indicators, z = simulated(5)
    first = overall(d, indicators[:, 1:], z)
    for same in (indicators, indicators[:, [3, 0, 1]], indicators * 7 - 2):
        found = overall(d, same, z)
        assert found.df_levels == 3
        assert found.f == pytest.approx(first.f, rel=1e-10)
    confounded = overall(d, indicators, np.column_stack([z, indicators[:, 2]]))
    assert confounded.df_levels == 2
    assert confounded.df_residual == first.df_residual


def test_no_free_level_and_no_degree_of_freedom_are_nan():
    d, indicators, z = simulated(6)
    assert np.isnan(overall(d, np.ones((300, 1)), z).nlog10p)
    assert overall(d, indicators, np.column_stack([z, indicators])).df_levels == 0
    assert np.isnan(overall(d[:6], indicators[:6], z[:6]).nlog10p)
