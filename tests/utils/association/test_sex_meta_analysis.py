"""Both sexes together: against statsmodels' fixed-effect meta-analysis, mpmath's tails, and rows of one sex."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from tests.utils.association.association_tables import as_categories, association_table
from utils.association.inference.normal_tails import (
    nlog10p_from_normal,
    normal_from_nlog10p,
    one_sided_nlog10p,
)
from utils.association.inference.sex_meta_analysis import COLUMNS, sex_meta_analysis


def two_sexes(r_f, r_m, df_f, df_m, **more):
    return pd.concat(
        [association_table(r_f, df_f, sex="female", **more), association_table(r_m, df_m, sex="male", **more)],
        ignore_index=True,
    )  # fmt: skip


CASES = [
    (0.10, 0.12, 2000, 1800), (0.05, -0.05, 900, 1100), (0.3, 0.1, 60, 4000), (-0.2, -0.21, 500, 500),
    (0.0, 0.1, 100, 200), (0.9, 0.8, 30, 40), (0.02, 0.03, 20000, 17000), (-0.5, 0.5, 55, 54),
]  # fmt: skip


@pytest.mark.parametrize(("r_f", "r_m", "df_f", "df_m"), CASES)
def test_the_mean_interval_and_heterogeneity_are_statsmodels(r_f, r_m, df_f, df_m):
    row = sex_meta_analysis(two_sexes([r_f], [r_m], df_f, df_m)).iloc[0]
    z, w = np.arctanh([r_f, r_m]), np.array([df_f - 1, df_m - 1])
    fixed = combine_effects(z, 1 / w, method_re="iterated")
    assert row["z"] == pytest.approx(fixed.mean_effect_fe, abs=1e-14)
    assert row["se"] == pytest.approx(fixed.sd_eff_w_fe, rel=1e-12)
    assert row["z_difference"] ** 2 == pytest.approx(fixed.q, abs=1e-12)
    assert row["i2"] == pytest.approx(max(fixed.i2, 0.0), abs=1e-12)
    low, high = stats.norm.interval(0.95, row["z"], row["se"])
    assert np.arctanh([row["ci_lo"], row["ci_hi"]]) == pytest.approx([low, high], abs=1e-12)
    assert row["r"] == pytest.approx(np.tanh(row["z"]), abs=1e-15)
    p = 2 * stats.norm.sf(abs(row["z"]) / row["se"])
    assert row["nlog10p"] == pytest.approx(-np.log10(p), rel=1e-12, abs=1e-15)
    q_p = stats.chi2.sf(fixed.q, 1)
    assert row["nlog10p_difference"] == pytest.approx(-np.log10(q_p), rel=1e-9, abs=1e-12)


T_CASES = [(2, 3, 100, 80), (-1, 2, 900, 50), (5, 6, 4000, 4000), (-4, -4, 60, 90)]


@pytest.mark.parametrize(("t_f", "t_m", "df_f", "df_m"), T_CASES)
def test_stouffer_agrees_with_scipys_combination(t_f, t_m, df_f, df_m):
    r = [t / np.sqrt(df + t * t) for t, df in ((t_f, df_f), (t_m, df_m))]
    row = sex_meta_analysis(two_sexes([r[0]], [r[1]], df_f, df_m)).iloc[0]
    one_sided = [stats.t.sf(t_f, df_f), stats.t.sf(t_m, df_m)]
    weights = np.sqrt([df_f - 1, df_m - 1])
    z = stats.combine_pvalues(one_sided, method="stouffer", weights=weights).statistic
    assert row["nlog10p_stouffer"] == pytest.approx(-np.log10(2 * stats.norm.sf(abs(z))), rel=1e-9)


def test_weights_are_the_degrees_of_freedom_less_one_of_each_pair():
    row = sex_meta_analysis(two_sexes([0.2], [0.4], 101, 301)).iloc[0]
    expected = (100 * np.arctanh(0.2) + 300 * np.arctanh(0.4)) / 400
    assert row["z"] == pytest.approx(expected, rel=1e-14) and row["se"] == 1 / 20


def test_the_difference_is_male_minus_female():
    row = sex_meta_analysis(two_sexes([0.1], [0.3], 101, 201)).iloc[0]
    expected = (np.arctanh(0.3) - np.arctanh(0.1)) / np.sqrt(1 / 100 + 1 / 200)
    assert row["z_difference"] == pytest.approx(expected, rel=1e-14) and expected > 0


def test_p_neither_underflows_nor_ends_in_infinity_and_the_tail_is_flagged():
    table = sex_meta_analysis(two_sexes([0.95, 0.6, 0.01], [0.9, 0.7, 0.0], 20000, 18000))
    assert np.isfinite(table["nlog10p"]).all() and table["nlog10p"].iloc[0] > 10_000
    assert table["flags"].tolist() == ["tail", "tail", ""]


def test_rows_of_one_sex_carry_their_reason_and_numbers():
    women = association_table(
        [0.1, 0.2, np.nan, 0.3], 500, sex="female", nidp=["a", "only_f", "b", "c"]
    )
    men = association_table(
        [0.1, 0.2, 0.5, np.nan], 400, sex="male", nidp=["a", "only_m", "b", "c"]
    )
    both = association_table([0.4], 900, sex="both", nidp=["pooled"])
    table = sex_meta_analysis(pd.concat([women, both, men], ignore_index=True))
    assert list(table.columns) == list(COLUMNS)
    assert dict(zip(table["nidp"], table["reason"])) == {
        "a": "", "only_f": "female_only", "b": "male_only", "c": "female_only", "only_m": "male_only",
    }  # fmt: skip
    assert table["nidp"].tolist() == ["a", "only_f", "b", "c", "only_m"]
    alone = table.set_index("nidp").loc["only_m"]
    assert np.isnan(alone["nlog10p"]) and alone["r_male"] == 0.2 and np.isnan(alone["r_female"])
    assert (alone["n_female"], alone["n_male"], alone["n"]) == (0, 407, 407)
    untested_men = table.set_index("nidp").loc["c"]  # their row is there, their number is not told
    assert (untested_men["n_female"], untested_men["n_male"], untested_men["n"]) == (507, 0, 507)
    assert (table["nlog10p"].notna() == (table["reason"] == "")).all()


def test_neither_sex_tested_and_a_duplicate_of_the_delta():
    untested = sex_meta_analysis(two_sexes([np.nan], [np.nan], 50, 50)).iloc[0]
    assert untested["reason"] == "untested"
    table = two_sexes([0.5], [0.5], 50, 50).assign(r=[1.0, 0.5], nlog10p=[300.0, 4.0])
    assert sex_meta_analysis(table).iloc[0]["reason"] == "male_only"


def test_flags_of_the_sexes_are_joined():
    table = two_sexes([0.1, 0.1, 0.1], [0.1, 0.1, 0.1], 100, 100)
    table["flags"] = ["", "few_cases", "small_n", "", "small_n", "few_cases;small_n"]
    assert sex_meta_analysis(table)["flags"].tolist() == [
        "",
        "few_cases;small_n",
        "few_cases;small_n",
    ]


def test_order_of_rows_contrasts_and_kind_of_text_do_not_matter():
    rng = np.random.default_rng(1)
    table = pd.concat(
        [two_sexes(rng.uniform(-0.2, 0.2, 20), rng.uniform(-0.2, 0.2, 20), 300, 500, contrast=c) for c in ("T1", "T2")],
        ignore_index=True,
    )  # fmt: skip
    expected = sex_meta_analysis(table)
    assert len(expected) == 40 and (expected["reason"] == "").all()
    shuffled = table.sample(frac=1, random_state=4)
    for other in (sex_meta_analysis(shuffled), sex_meta_analysis(as_categories(shuffled))):
        other = other.astype({"contrast": object, "nidp": object})
        key = ["contrast", "nidp"]
        merged = expected.astype({k: object for k in key}).merge(other, on=key, suffixes=("", "_o"))
        assert len(merged) == 40
        np.testing.assert_array_equal(merged["z"], merged["z_o"])


def test_a_pair_twice_and_an_empty_table():
    table = two_sexes([0.1], [0.2], 50, 50)
    with pytest.raises(ValueError, match="1 rows occur twice"):
        sex_meta_analysis(pd.concat([table, table.iloc[:1]]))
    assert sex_meta_analysis(table.assign(sex="both")).empty


def test_under_the_null_mean_and_difference_are_uniform():
    rng = np.random.default_rng(2)
    df_f, df_m, m = 60, 90, 20_000
    t_f, t_m = rng.standard_t(df_f, m), rng.standard_t(df_m, m)
    r_f, r_m = t_f / np.sqrt(df_f + t_f**2), t_m / np.sqrt(df_m + t_m**2)
    table = sex_meta_analysis(two_sexes(r_f, r_m, df_f, df_m, nidp=np.arange(m).astype(str)))
    for column in ("nlog10p", "nlog10p_stouffer", "nlog10p_difference"):
        assert stats.kstest(10 ** -table[column], "uniform").pvalue > 0.001


@pytest.mark.parametrize("z", [0.0, 1e-12, 0.3, 0.999, 1.0, 1.001, 2.0, 8.0, 30.0, 37.5])
def test_normal_tails_agree_with_scipy_and_return(z):
    p = 2 * stats.norm.sf(z)
    assert nlog10p_from_normal(z) == pytest.approx(-np.log10(p), rel=1e-12, abs=1e-15)
    assert normal_from_nlog10p(nlog10p_from_normal(z)) == pytest.approx(z, rel=1e-9, abs=1e-12)


# -log10 of two-sided p from mpmath with 60 digits: log10(erfc(z / sqrt 2)).
FAR = [(40.0, 349.13597646368), (100.0, 2173.5705128734), (400.0, 34746.258674904)]


@pytest.mark.parametrize(("z", "expected"), FAR)
def test_far_normal_tails(z, expected):
    assert nlog10p_from_normal(z) == pytest.approx(expected, rel=1e-13)
    assert normal_from_nlog10p(expected) == pytest.approx(z, rel=1e-10)


def test_one_sided_p_of_either_direction_add_to_one():
    x = np.array([0.0, 0.3, 5.0, 400.0])
    same, against = one_sided_nlog10p(x, True), one_sided_nlog10p(x, False)
    np.testing.assert_allclose(10**-same + 10**-against, 1.0, rtol=1e-14)
    assert same[3] == 400 + np.log10(2)
