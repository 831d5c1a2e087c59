"""The scan: other programs' numbers, its invariances, its traps, and uniform p without effect."""

import json
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from utils.association.scan import PairLimits, orthonormal_basis, scan_pairs

REFERENCE = json.loads(
    (Path(__file__).parents[2] / "reference" / "association_reference.json").read_text()
)
LOOSE = PairLimits(minimum_n=5, minimum_df=1, df_per_rank=0.0, minimum_class=1)


def scan(d, y, z, limits=LOOSE, binary=None):
    d, y = (v[:, None] if v.ndim == 1 else v for v in (np.asarray(d, float), np.asarray(y, float)))
    binary = np.zeros(y.shape[1], dtype=bool) if binary is None else np.asarray(binary)
    return scan_pairs(d, y, np.asarray(z, float), binary, limits)


def data(seed=0, n=200, n_contrasts=3, n_nidps=5, n_confounds=4, missing=0.0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, n_confounds))
    d = rng.normal(size=(n, n_contrasts)) + z[:, :1]
    y = rng.normal(size=(n, n_nidps)) + 0.3 * d[:, :1] - z[:, :1]
    if missing:
        d[rng.random(d.shape) < missing] = np.nan
        y[rng.random(y.shape) < missing] = np.nan
    return d, y, z


@pytest.mark.parametrize("case", REFERENCE["partial"])
def test_recorded_statsmodels_numbers(case):
    out = scan(case["delta"], case["nidp"], case["confounds"])
    assert out.df[0, 0] == case["df"]
    assert out.t[0, 0] == pytest.approx(case["t"], rel=1e-12)


def test_every_pair_with_missing_values_is_its_own_regression():
    d, y, z = data(missing=0.25)
    out = scan(d, y, z)
    for c in range(d.shape[1]):
        for j in range(y.shape[1]):
            rows = np.isfinite(d[:, c]) & np.isfinite(y[:, j])
            standard = [
                (v - v.mean(axis=0)) / v.std(axis=0) for v in (d[rows, c], y[rows, j], z[rows])
            ]
            x = np.column_stack([standard[0], np.ones(rows.sum()), standard[2]])
            fit = sm.OLS(standard[1], x).fit()
            assert out.n[c, j] == rows.sum()
            assert out.df[c, j] == fit.df_resid
            assert out.t[c, j] == pytest.approx(fit.tvalues[0], rel=1e-11)
            assert out.nlog10p[c, j] == pytest.approx(-np.log10(fit.pvalues[0]), rel=1e-9)
            y_per_sd = y[rows, j] / y[rows, j].std(ddof=1)
            years = sm.OLS(d[rows, c], np.column_stack([y_per_sd, x[:, 1:]])).fit().params[0]
            assert out.delta_years_per_sd[c, j] == pytest.approx(years, rel=1e-9)


def test_without_confounds_it_is_pearson():
    d, y, _ = data()
    out = scan(d, y, np.empty((200, 0)))
    expected = stats.pearsonr(d[:, 1], y[:, 2])
    assert out.r[1, 2] == pytest.approx(expected.statistic, abs=1e-14)
    assert out.nlog10p[1, 2] == pytest.approx(-np.log10(expected.pvalue), rel=1e-10)
    low, high = out.interval()
    np.testing.assert_allclose((low[1, 2], high[1, 2]), expected.confidence_interval(), rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-6, 1e6), shift=st.floats(-1e6, 1e6))
def test_order_scale_shift_and_confound_combinations_do_not_matter(seed, scale, shift):
    d, y, z = data(seed, n=90, missing=0.2)
    rng = np.random.default_rng(seed)
    expected = scan(d, y, z)
    order = rng.permutation(90)
    changed = scan(
        (d * 3 + z @ rng.normal(size=(4, 3)))[order],
        (y * scale + shift * scale)[order],
        (z * 50 - 7)[order],
    )
    np.testing.assert_allclose(changed.r, expected.r, atol=1e-9)
    np.testing.assert_array_equal(changed.df, expected.df)


def test_deconfounding_twice_is_deconfounding_once():
    d, y, z = data()
    basis = np.column_stack([np.ones(200) / np.sqrt(200), orthonormal_basis(z)])
    once = y - basis @ (basis.T @ y)
    np.testing.assert_allclose(scan(d, once, z).r, scan(d, y, z).r, atol=1e-14)


def test_rank_is_counted_on_the_pairs_rows():
    d, y, z = data()
    rng = np.random.default_rng(1)
    site = np.zeros(200)
    site[:6] = 1
    y[:6, 0] = np.nan  # the site vanishes for this nIDP
    doubled = np.column_stack([z, 2 * z[:, 0] + 5, z @ rng.normal(size=4), site])
    out = scan(d, y, doubled)
    assert (out.rank[:, 0] == 5).all() and (out.rank[:, 1:] == 6).all()
    np.testing.assert_array_equal(out.df, out.n - out.rank - 1)
    np.testing.assert_allclose(out.r[:, 0], scan(d, y, z).r[:, 0], atol=1e-13)


def test_raw_age_and_its_square_and_large_offsets_lose_nothing():
    rng = np.random.default_rng(2)
    age = rng.uniform(45, 82, 300)
    d, y = rng.normal(size=300) + age / 10, rng.normal(size=300) + age / 5
    raw = np.column_stack([age, age**2, 20_230_000 + age * 0.01 + rng.normal(size=300)])
    standard = (raw - raw.mean(axis=0)) / raw.std(axis=0)
    x = np.column_stack([(d - d.mean()) / d.std(), np.ones(300), standard])
    t = sm.OLS((y - y.mean()) / y.std(), x).fit().tvalues[0]
    out = scan(d, y + 1e6, raw)
    assert out.rank[0, 0] == 4
    assert out.t[0, 0] == pytest.approx(t, rel=1e-7)  # y + 1e6 itself rounds y at 1e-10


def test_the_degrees_of_freedom_are_not_n_minus_2():
    """With 60 subjects and 30 confounds n - 2 makes t sqrt(58 / 28) = 1.44 times too large."""
    d, y, z = data(n=60, n_confounds=30)
    out = scan(d, y, z)
    assert (out.df == 60 - 31 - 1).all()


def test_a_reason_stands_where_there_is_no_test():
    d, y, z = data(n_nidps=8)
    y[:, 0] = np.nan
    y[:, 1] = 3.7
    y[:, 2] = 2 * z[:, 1] - z[:, 3] + 4
    y[:, 3] = 5 * d[:, 0] - 1
    y[:, 4] = 0.0
    y[:3, 4] = 1.0
    y[40:, 5] = np.nan
    out = scan(d, y, z, PairLimits(), binary=[False] * 4 + [True] + [False] * 3)
    reasons = list(out.reason[0])
    assert reasons == [
        "too_few_subjects", "constant", "collinear_with_confounds", "degenerate", "too_few_cases",
        "too_few_subjects", "", "",
    ]  # fmt: skip
    np.testing.assert_array_equal(np.isnan(out.nlog10p), out.reason != "")
    assert out.n_cases[0, 4] == 3
    assert out.r[0, 3] == pytest.approx(1.0)
    assert out.reason[1, 3] == ""


def test_a_delta_that_the_confounds_explain_is_not_tested():
    d, y, z = data()
    d[:, 1] = z[:, 0] * 3
    d[:, 2] = 4.0
    out = scan(d, y, z)
    assert set(out.reason[1]) == {"delta_collinear_with_confounds"}
    assert set(out.reason[2]) == {"delta_constant"}


def test_too_few_degrees_of_freedom_for_many_confounds():
    d, y, z = data(n=100, n_confounds=60)
    assert set(scan(d, y, z, PairLimits()).reason.ravel()) == {"too_few_degrees_of_freedom"}
    d, y, z = data(n=60, n_confounds=100)  # more confounds than subjects
    assert set(scan(d, y, z, PairLimits()).reason.ravel()) == {"too_few_degrees_of_freedom"}


def test_missing_confounds_are_refused():
    d, y, z = data()
    z[3, 1] = np.nan
    with pytest.raises(ValueError, match="confounds must be complete"):
        scan(d, y, z)


def test_p_is_uniform_without_effect_under_many_confounds():
    """n = 600, 200 confounds that drive both sides: with df n - 2 this fails clearly."""
    rng = np.random.default_rng(11)
    z = rng.normal(size=(600, 200))
    d = rng.normal(size=(600, 1)) + z[:, :5].sum(axis=1, keepdims=True)
    y = rng.normal(size=(600, 2000)) + z[:, :5].sum(axis=1, keepdims=True)
    out = scan(d, y, z, PairLimits(df_per_rank=1.0))
    p = 10 ** -out.nlog10p.ravel()
    assert stats.kstest(p, "uniform").pvalue > 0.01
    wrong = 2 * stats.t.sf(np.abs(out.r * np.sqrt(598 / (1 - out.r**2))).ravel(), 598)
    assert stats.kstest(wrong, "uniform").pvalue < 1e-6
