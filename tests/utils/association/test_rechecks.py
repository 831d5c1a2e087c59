"""The table of second looks: every row is its pair's own regressions, with missing values, reasons and notes."""

from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm

from utils.association.inference.recheck_columns import COLUMNS, FLAGS
from utils.association.inference.rechecks import RecheckData, RecheckLimits, recheck

KINDS = ["continuous", "skewed", "binary", "rare", "of=a", "of=b", "explained", "constant"]


def cohort(seed=0, n=900, missing=0.15):
    """Two deltas and eight nIDPs of all kinds with missing values; age, its square and four confounds."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(45, 82, n)
    z = np.column_stack([age, age**2, rng.normal(size=(n, 4))])
    d = rng.normal(size=(n, 2)) * 3 + 0.1 * (age[:, None] - 60) + z[:, 2:3]
    left = d[:, 0] / 3
    level = np.argmax(rng.normal(size=(n, 3)) + 0.3 * left[:, None] * [1, 0, -1], axis=1)
    y = np.column_stack([
        0.3 * left + z[:, 3] + rng.normal(size=n),
        np.exp(0.3 * left + rng.normal(size=n)),
        rng.random(n) < 1 / (1 + np.exp(1 - 0.5 * left)),
        rng.random(n) < 1 / (1 + np.exp(3.6 - 0.9 * left)),
        level == 0,
        level == 1,
        2 * age + 1,
        np.full(n, 3.0),
    ])  # fmt: skip
    y[rng.random(y.shape) < missing] = np.nan
    y[:, 5] = np.where(np.isfinite(y[:, 4]), level == 1, np.nan)
    d[rng.random(d.shape) < missing / 2] = np.nan
    data = RecheckData(
        contrasts=["t1", "t2"],
        nidps=KINDS,
        predictors=d,
        targets_of=lambda columns: y[:, columns],
        confounds=z,
        minimal_columns=[0, 1],
        age_years=age,
        parents=[""] * 4 + ["of"] * 2 + [""] * 2,
        reliability=np.array([[0.8, 0.7, 0.88], [np.nan] * 3]),
        quality=rng.exponential(size=n),
    )
    return data, y


def all_pairs(data):
    contrast, nidp = (v.ravel() for v in np.indices((2, len(data.nidps))))
    return contrast, nidp, np.arange(len(nidp), dtype=float)


@pytest.fixture(scope="module")
def checked():
    data, y = cohort()
    return recheck(*all_pairs(data), data).table, data, y


def test_columns_and_order(checked):
    table, _, _ = checked
    assert list(table.columns) == list(COLUMNS)
    assert list(table["nidp"]) == KINDS * 2
    assert list(table["contrast"]) == ["t1"] * 8 + ["t2"] * 8
    flags = {flag for text in table["flags"] for flag in text.split(";") if flag}
    assert flags <= set(FLAGS)


@pytest.mark.parametrize("row", [0, 1, 2, 3, 4, 8, 9, 10, 11, 12])
def test_every_row_is_its_own_regression(checked, row):
    table, data, y = checked
    found = table.iloc[row]
    d_all, y_all = data.predictors[:, row // 8], y[:, row % 8]
    rows = np.isfinite(d_all) & np.isfinite(y_all)
    z = (data.confounds - data.confounds.mean(axis=0)) / data.confounds.std(axis=0)
    d, target, z = d_all[rows], y_all[rows], z[rows]
    ones = np.ones(rows.sum())
    fit = sm.OLS(target, np.column_stack([d, ones, z])).fit()
    assert (found["n"], found["df"]) == (rows.sum(), fit.df_resid)
    assert found["nlog10p"] == pytest.approx(-np.log10(fit.pvalues[0]), rel=1e-8)
    robust = fit.get_robustcov_results("HC3", use_t=True)
    assert found["hc3_t"] == pytest.approx(robust.tvalues[0], rel=1e-9)
    minimal = sm.OLS(target, np.column_stack([d, ones, z[:, :2]])).fit()
    assert found["nlog10p_minimal"] == pytest.approx(-np.log10(minimal.pvalues[0]), rel=1e-8)
    assert found["n_without"] == np.isfinite(d_all).sum() - rows.sum()
    present = np.isfinite(y_all[np.isfinite(d_all)])
    age = data.age_years[np.isfinite(d_all)]
    assert np.sign(found["age_difference_sd"]) == np.sign(
        age[present].mean() - age[~present].mean()
    )
    if row % 8 in (2, 4):
        logit = sm.Logit(target, np.column_stack([d, ones, z])).fit(disp=0, tol=1e-14)
        assert found["logistic_method"] == "likelihood"
        assert found["or_per_year"] == pytest.approx(np.exp(logit.params[0]), rel=1e-8)
        assert found["n_cases"] == target.sum()
        sd = np.sqrt(sm.OLS(d, np.column_stack([ones, z])).fit().scale)
        assert found["or_per_sd"] == pytest.approx(np.exp(logit.params[0] * sd), rel=1e-8)
    elif row % 8 < 2:
        assert found["logistic_method"] == "" and np.isnan(found["or_per_sd"])


def test_the_levels_of_a_nominal_nidp_share_its_overall_test(checked):
    table, data, y = checked
    levels = table[table["contrast"] == "t1"].iloc[4:6]
    assert levels["nominal_nlog10p"].nunique() == 1
    rows = np.isfinite(data.predictors[:, 0]) & np.isfinite(y[:, 4])
    z = data.confounds[rows] / data.confounds.std(axis=0)
    null = np.column_stack([np.ones(rows.sum()), z - z.mean(axis=0)])
    full = sm.OLS(data.predictors[rows, 0], np.column_stack([null, y[rows][:, 4:6]])).fit()
    f, p, _ = full.compare_f_test(sm.OLS(data.predictors[rows, 0], null).fit())
    assert levels["nominal_f"].iloc[0] == pytest.approx(f, rel=1e-8)
    assert levels["nominal_nlog10p"].iloc[0] == pytest.approx(-np.log10(p), rel=1e-7)
    assert table["nominal_f"].isna().sum() == 12


def test_reasons_stand_where_nothing_was_computed(checked):
    table, _, _ = checked
    reasons = table.set_index(["contrast", "nidp"])["reasons"]
    assert "all: collinear_with_confounds" in reasons["t1", "explained"]
    assert "all: collinear_with_confounds" in reasons["t1", "constant"]
    assert reasons["t1", "continuous"] == ""
    assert "disattenuated: reliability_unknown_or_not_above_0" in reasons["t2", "continuous"]
    assert table["r"].isna().sum() == 4
    assert not np.isinf(table.select_dtypes("number")).any().any()


def test_rare_cases_against_many_confounds_are_refused_by_name(checked):
    table, data, _ = checked
    rare = table.set_index(["contrast", "nidp"]).loc[("t1", "rare")]
    assert 30 <= rare["n_cases"] < 50 and rare["logistic_method"] == "firth"
    rng = np.random.default_rng(1)
    many = replace(data, confounds=np.column_stack([data.confounds, rng.normal(size=(900, 20))]))
    refused = recheck(np.array([0]), np.array([3]), np.array([9.0]), many).table.iloc[0]
    assert refused["reasons"] == "logistic: too_few_cases_for_the_confounds"
    assert np.isnan(refused["or_per_sd"]) and refused["n_cases"] == rare["n_cases"]


def test_only_the_strongest_pairs_are_checked_and_the_rest_is_said():
    data, _ = cohort()
    contrast, nidp, _ = all_pairs(data)
    strength = np.array([5.0, 9.0, 1.0, 7.0] * 4)
    found = recheck(contrast, nidp, strength, data, RecheckLimits(maximum=8))
    assert list(found.table["nidp"]) == ["skewed", "rare", "of=b", "constant"] * 2
    assert "16 pairs are significant; the 8 strongest" in found.notes[0]
    assert "from 7.00" in found.notes[0] and "other 8 were not" in found.notes[0]
    assert recheck(contrast, nidp, strength, data).notes == ()


def test_blocks_order_and_company_do_not_matter(checked):
    table, data, _ = checked
    contrast, nidp, strength = all_pairs(data)
    order = np.random.default_rng(2).permutation(16)
    done = []
    found = recheck(
        contrast[order], nidp[order], strength, data, RecheckLimits(nidps_at_a_time=3), done.append
    )
    expected = table.iloc[order].reset_index(drop=True)
    assert sum(done) == 16
    for name in COLUMNS:
        if table[name].dtype.kind in "if":
            np.testing.assert_allclose(found.table[name], expected[name], rtol=1e-7, atol=1e-9)
        else:
            assert list(found.table[name]) == list(expected[name])


def test_what_is_not_given_stays_empty():
    data, _ = cohort(n=300)
    data = replace(data, reliability=None, quality=None)
    table = recheck(*all_pairs(data), data).table
    assert table["r_disattenuated"].isna().all() and table["r_quality_lower"].isna().all()
    assert not table["reasons"].str.contains("quality|disattenuated").any()


def test_flags_are_raised_by_what_was_put_in():
    rng = np.random.default_rng(3)
    n = 4000
    age, size, motion = rng.uniform(-2, 2, n), rng.normal(size=n), rng.exponential(size=n)
    d = rng.normal(size=(n, 1)) + size[:, None]
    left = d[:, 0] - size
    noise = rng.normal(size=(n, 6))
    y = noise + 0.2 * left[:, None]
    y[:, 1] = left**2 * noise[:, 1]
    y[:, 2] = 0.3 * left + 0.3 * left**2 + noise[:, 2]
    y[:, 3] = 0.2 * left + size + noise[:, 3]
    y[:, 4] = np.where(motion > 0.7, left, 0) + noise[:, 4]
    y[(left + rng.normal(size=n) > 1.5), 5] = np.nan
    data = RecheckData(
        ["c"], list("abcdef"), d, lambda columns: y[:, columns], np.column_stack([age, size]), [0],
        age, [""] * 6, None, motion,
    )  # fmt: skip
    found = recheck(np.zeros(6, dtype=int), np.arange(6), np.ones(6), data).table["flags"]
    assert found[0] == ""
    for row, flag in (
        (1, "unequal_variances"), (2, "curved"), (3, "confounds_matter"), (4, "quality_matters"),
        (5, "selected_subjects"),
    ):  # fmt: skip
        assert flag in found[row]


def test_no_pairs_and_missing_confounds():
    data, _ = cohort(n=100)
    none = recheck(np.array([], dtype=int), np.array([], dtype=int), np.array([]), data)
    assert list(none.table.columns) == list(COLUMNS) and len(none.table) == 0
    holes = data.confounds.copy()
    holes[4, 1] = np.nan
    with pytest.raises(ValueError, match="confounds must be complete"):
        recheck(*all_pairs(data), replace(data, confounds=holes))


def test_more_confounds_than_subjects_is_a_reason():
    data, _ = cohort(n=60)
    rng = np.random.default_rng(4)
    data = replace(data, confounds=np.column_stack([data.confounds, rng.normal(size=(60, 80))]))
    table = recheck(np.array([0]), np.array([0]), np.array([3.0]), data).table
    assert table["reasons"][0].startswith("all: too_few_degrees_of_freedom")
    assert np.isnan(table["nlog10p"][0]) and np.isnan(table["hc3_t"][0])
