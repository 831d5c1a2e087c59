"""The confound matrix: what is always in it, how columns are coded and filled, what stops a run."""

import numpy as np
import pandas as pd
import pytest

from utils.association.confounds import ConfoundRules, build_confounds
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
