"""The confound matrix: what is always in it, how columns are coded and filled, what stops a run."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from utils.association.confounds import ConfoundRules, build_confounds
from utils.association.scan import PairLimits, scan_pairs
from utils.common.errors import UserError

RNG = np.random.default_rng(0)
AGE = RNG.uniform(45, 82, 200)
SEX = RNG.choice(["female", "male"], 200)


def build(table=None, sex=None, one_sex=True):
    table = None if table is None else pd.DataFrame(table)
    return build_confounds(AGE, sex, table, ConfoundRules(), one_sex=one_sex)


def spans(matrix, vector):
    x = np.column_stack([np.ones(len(matrix)), matrix])
    residual = vector - x @ np.linalg.lstsq(x, vector, rcond=None)[0]
    return np.abs(residual).max() < 1e-9 * np.abs(vector).max()


def test_age_and_its_square_are_always_in():
    z = build()
    assert z.names == ("age", "age_squared")
    assert spans(z.values, AGE) and spans(z.values, AGE**2)


def test_pooled_sexes_add_sex_and_its_products_with_age():
    z = build(sex=SEX, one_sex=False)
    male = (SEX == "male").astype(float)
    assert z.names[2:] == ("sex", "sex_x_age", "sex_x_age_squared")
    assert all(spans(z.values, v) for v in (male, male * AGE, male * AGE**2))


def test_text_is_coded_with_the_commonest_level_as_reference():
    site = np.array(["b"] * 100 + ["a"] * 60 + ["c"] * 40)
    z = build({"site": site, "motion": RNG.normal(size=200)})
    assert z.names[2:] == ("confound:site=a", "confound:site=c", "confound:motion")
    np.testing.assert_array_equal(z.values[:, 2], site == "a")
    assert (
        build({"Site": RNG.integers(11001, 11004, 200)}).values.shape[1] == 4
    )  # codes, not numbers


def test_missing_values_are_filled_and_marked_above_one_percent():
    x, few = RNG.normal(size=200), RNG.normal(size=200)
    x[:10], few[:2] = np.nan, np.nan
    site = pd.Series(["a"] * 120 + ["b"] * 70 + [None] * 10)
    z = build({"x": x, "few": few, "site": site})
    assert z.names[2:] == (
        "confound:x", "confound:x is missing", "confound:few", "confound:site=b", "confound:site is missing",
    )  # fmt: skip
    assert np.isfinite(z.values).all()
    np.testing.assert_array_equal(z.values[:10, 2], np.nanmedian(x))
    assert "confound 'few': 2 missing values filled" in z.notes


def test_constant_columns_and_sex_terms_are_dropped_with_a_note():
    z = build({"gender": SEX, "coil": np.ones(200), "software": ["v1"] * 200})
    assert z.names == ("age", "age_squared")
    assert "confound 'gender': a sex term, dropped in a sex-specific analysis" in z.notes
    assert "confound:coil: constant in this analysis, dropped" in z.notes
    assert "confound 'software': constant in this analysis, dropped" in z.notes


def test_all_unusable_columns_are_named_together():
    gaps = np.where(RNG.random(200) < 0.4, np.nan, 1.0)
    with pytest.raises(UserError) as error:
        build({"gaps": gaps, "date": [f"{k},5" for k in range(200)]})
    assert "confound 'gaps' is missing in" in str(error.value)
    assert "confound 'date' is text with 200 different values (limit 100)" in str(error.value)


def test_sex_of_the_table_is_kept_when_sexes_are_together():
    names = build({"sex": SEX}, one_sex=False).names
    assert len(names) == 3 and names[2].startswith("confound:sex=")


# --- age terms, the minimal set, and what the matrix means for an association ----------------------------------------


@pytest.mark.parametrize(
    ("age_terms", "names"),
    [("quadratic", ("age", "age_squared")), ("linear", ("age",)), ("none", ())],
)
def test_age_terms(age_terms, names):
    rules = ConfoundRules(age_terms=age_terms)
    z = build_confounds(AGE, None, None, rules, one_sex=True)
    assert z.names == names and z.values.shape == (200, len(names)) and z.rank == len(names)
    pooled = build_confounds(AGE, SEX, None, rules)
    assert pooled.names == (*names, "sex", *(f"sex_x_{name}" for name in names))
    assert pooled.minimal == tuple(range(2 * len(names) + 1))


def test_what_is_lost_without_age_is_said():
    def notes(**rules):
        return build_confounds(AGE, None, None, ConfoundRules(**rules), one_sex=True).notes

    assert notes() == notes(age_terms="linear", terms="age^2") == ()
    assert "age is not among the confounds" in notes(age_terms="none")[0]
    assert "age squared is not among the confounds" in notes(age_terms="none", terms="age")[0]
    assert "a curved age bias of the delta stays" in notes(age_terms="linear")[0]


def test_a_linear_bias_correction_changes_nothing_with_age_among_the_confounds():
    d, y, table = confounded(6)
    corrected = d - (0.4 * AGE - 25.0)[:, None]
    for age_terms, same in (("quadratic", True), ("linear", True), ("none", False)):
        z = build_confounds(AGE, None, table, ConfoundRules(age_terms=age_terms), one_sex=True)
        assert np.allclose(scan(d, y, z).r, scan(corrected, y, z).r, atol=1e-10) == same


def test_columns_given_twice_are_refused():
    table = pd.DataFrame(np.ones((200, 3)), columns=["a", "b", "a"])
    with pytest.raises(UserError, match="the table of confounds has columns twice: a"):
        build_confounds(AGE, None, table, ConfoundRules(), one_sex=True)


def test_a_column_that_is_called_age_is_a_confound_like_any_other():
    z = build({"age": AGE + 1.0, "motion": RNG.normal(size=200)})
    assert z.names[2:] == ("confound:age", "confound:motion") and z.minimal == (0, 1)
    assert z.rank == 3
    again = build_confounds(
        AGE, None, pd.DataFrame({"age": AGE}), ConfoundRules(terms="age + `age`"), one_sex=True
    )
    assert again.names == ("age", "age_squared", "confound:age")


def test_equal_labels_are_told_apart():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"m^2": rng.normal(size=200), "m": rng.normal(size=200), "m x k": rng.normal(size=200),
                          "k": rng.normal(size=200)})  # fmt: skip
    z = build_confounds(AGE, None, table, ConfoundRules(terms=". + m^2 + m:k"), one_sex=True)
    assert len(set(z.names)) == len(z.names) == 8
    assert {"confound:m^2", "confound:m^2 (2)", "confound:m x k (2)"} <= set(z.names)


LIMITS = PairLimits(minimum_n=5, minimum_df=1, df_per_rank=0.0, minimum_class=1)


def confounded(seed=0, n=200):
    """Deltas and nIDPs that depend on motion, its square and the site, with gaps, and the table."""
    rng = np.random.default_rng(seed)
    motion, site = rng.exponential(size=n), rng.choice(list("abc"), n)
    shared = motion + 0.3 * motion**2 + motion * (site == "b")
    d = rng.normal(size=(n, 3)) + shared[:, None]
    y = rng.normal(size=(n, 4)) - shared[:, None]
    d[rng.random(d.shape) < 0.1] = np.nan
    y[rng.random(y.shape) < 0.2] = np.nan
    return d, y, pd.DataFrame({"motion": motion, "site": site, "coil": rng.normal(size=n)})


def scan(d, y, z):
    return scan_pairs(d, y, z.values, np.zeros(y.shape[1], bool), LIMITS)


@pytest.mark.parametrize(
    "redundant",
    ["motion*site + motion^2 + coil + motion:site", "coil + motion*site + age + age^2 + motion^2",
     "motion^2 + site:motion + site + coil + motion + copy + doubled", "motion*site + motion^2 + coil + place"],
)  # fmt: skip
def test_a_redundant_term_leaves_partial_correlations_and_degrees_of_freedom(redundant):
    d, y, table = confounded()
    table["copy"], table["doubled"] = table["coil"], 2 * table["motion"] - 5 * table["coil"]
    table["place"] = table["site"].map({"a": "x", "b": "y", "c": "z"})
    plain, more = (
        scan(d, y, build_confounds(AGE, None, table, ConfoundRules(terms=terms), one_sex=True))
        for terms in ("motion*site + motion^2 + coil", redundant)
    )
    np.testing.assert_allclose(more.r, plain.r, atol=1e-11)
    np.testing.assert_array_equal(more.df, plain.df)


def test_units_reference_levels_and_order_change_nothing():
    d, y, table = confounded(1)
    rules = ConfoundRules(terms="motion*site + motion^2 + coil:motion + coil")
    plain = scan(d, y, build_confounds(AGE, None, table, rules, one_sex=True))
    changed = pd.DataFrame(
        {"site": table["site"].map({"a": "zz", "b": "q", "c": "r"}), "coil": 1e5 + 3 * table["coil"],
         "motion": 20 - 1e-3 * table["motion"]}
    )  # fmt: skip
    other = scan(d, y, build_confounds(AGE, None, changed, rules, one_sex=True))
    np.testing.assert_allclose(other.r, plain.r, atol=1e-10)
    np.testing.assert_array_equal(other.df, plain.df)
    order = np.random.default_rng(0).permutation(200)
    z = build_confounds(AGE[order], None, table.iloc[order], rules, one_sex=True)
    np.testing.assert_allclose(scan(d[order], y[order], z).r, plain.r, atol=1e-10)


def test_the_formula_removes_what_the_columns_alone_leave():
    """Planted: deltas and nIDPs share motion, its square and a slope of one site, nothing else."""
    d, y, table = confounded(2)
    r = {
        terms: np.abs(scan(d, y, build_confounds(AGE, None, table, ConfoundRules(terms=terms), one_sex=True)).t)
        for terms in ("coil", "", "motion*site + motion^2")
    }  # fmt: skip
    assert r["coil"].min() > 5.0
    assert r[""].mean() > r["motion*site + motion^2"].mean() + 1.0
    assert r["motion*site + motion^2"].max() < 4.0


def test_the_minimal_set_is_the_analysis_without_the_table():
    d, y, table = confounded(3)
    z = build_confounds(AGE, None, table, ConfoundRules(pca=0.9), one_sex=True)
    alone = build_confounds(AGE, None, None, ConfoundRules(), one_sex=True)
    np.testing.assert_array_equal(z.minimal_values, alone.values)
    assert (
        np.abs(scan(d, y, alone).r).min() > np.abs(scan(d, y, z).r).max()
    )  # what a reader should see side by side


# --- traps ------------------------------------------------------------------------------------------------------------


def residual_of(x, z):
    design = np.column_stack([np.ones(len(z)), z])
    return x - design @ np.linalg.lstsq(design, x, rcond=None)[0]


def test_degrees_of_freedom_of_residuals_are_not_n_minus_two():
    """600 pairs without association, 60 confounds, 120 subjects: the published count finds too much, ours does not."""
    rng = np.random.default_rng(4)
    n, q = 120, 58
    age = rng.uniform(45, 82, n)
    z = build_confounds(
        age, None, pd.DataFrame(rng.normal(size=(n, q))), ConfoundRules(), one_sex=True
    )
    d, y = rng.normal(size=(n, 20)), rng.normal(size=(n, 30))
    out = scan(d, y, z)
    assert (out.df == n - (q + 2) - 2).all()
    ours = 10.0**-out.nlog10p
    t = out.r * np.sqrt((n - 2) / (1 - out.r**2))
    naive = 2 * stats.t.sf(np.abs(t), n - 2)
    assert 0.02 < np.mean(ours < 0.05) < 0.09
    assert np.mean(naive < 0.05) > 0.12


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
def test_the_semi_partial_is_not_the_partial_correlation(strength):
    """Confounds removed from the nIDP alone: r shrinks by sqrt(1 - R^2 of the delta), exactly."""
    rng = np.random.default_rng(5)
    n = 300
    table = pd.DataFrame(rng.normal(size=(n, 10)))
    age = rng.uniform(45, 82, n)
    z = build_confounds(age, None, table, ConfoundRules(), one_sex=True)
    d = rng.normal(size=n) + strength * table.to_numpy() @ np.full(10, 0.5)
    y = 0.3 * d + table.to_numpy() @ rng.normal(size=10) + rng.normal(size=n)
    out = scan(d[:, None], y[:, None], z)
    semi = np.corrcoef(d, residual_of(y, z.values))[0, 1]
    share_left = residual_of(d, z.values).var() / d.var()
    assert semi == pytest.approx(out.r[0, 0] * np.sqrt(share_left), rel=1e-10)
    assert abs(semi) < abs(out.r[0, 0])
    fit = sm.OLS(y, np.column_stack([d, np.ones(n), z.values])).fit()
    assert out.t[0, 0] == pytest.approx(fit.tvalues[0], rel=1e-9)
