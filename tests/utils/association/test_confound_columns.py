"""One column of the confounds: kinds, dates, gaps and outliers by site, and columns that cannot be used."""

import numpy as np
import pandas as pd
import pytest

from utils.association.confound_columns import (
    label_text,
    read_column,
    refuse_empty,
    refuse_unusable,
)
from utils.association.confounds import ConfoundRules, build_confounds
from utils.common.errors import UserError

RULES = ConfoundRules()


def column(values, rules=RULES, sites=None, name="x"):
    return read_column(name, pd.Series(values), rules, sites)


def test_gaps_are_filled_with_the_median_of_the_site_or_of_all():
    values = [1.0, 3.0, np.nan, 10.0, 30.0, np.nan, np.nan]
    sites = np.array([0, 0, 0, 1, 1, 1, 2])
    np.testing.assert_array_equal(column(values).values, [1, 3, 6.5, 10, 30, 6.5, 6.5])
    by_site = column(values, sites=sites)
    np.testing.assert_array_equal(
        by_site.values, [1, 3, 2, 10, 30, 20, 6.5]
    )  # site 2 has no values
    np.testing.assert_array_equal(by_site.missing, np.isnan(values))
    assert by_site.notes == ("confound 'x': 3 missing values filled",)


def test_infinite_values_are_missing():
    np.testing.assert_array_equal(column([1.0, 2.0, 6.0, np.inf, -np.inf]).values, [1, 2, 6, 2, 2])


def test_dates_become_years():
    text = column(["2016-05-31", "2016-06-01", None, "2020-01-01"])
    stamps = column(pd.to_datetime(["2016-05-31", "2016-06-01", None, "2020-01-01"]))
    timed = column(["2016-05-31 00:00", "2016-06-01 12:00:00", None, "2020-01-01T00:00"])
    assert not text.is_categorical
    assert text.values[1] - text.values[0] == pytest.approx(1 / 365.25, rel=1e-6)
    assert text.values[0] == pytest.approx(2016.41, abs=0.01)
    assert text.values[2] == np.median(text.values[[0, 1, 3]])
    np.testing.assert_allclose(stamps.values, text.values, rtol=1e-12)
    assert timed.values[1] - timed.values[0] == pytest.approx(1.5 / 365.25, rel=1e-6)
    declared = ConfoundRules(categorical=("x",))
    assert column(["2016-05-31", "2016-06-01"], declared).is_categorical


@pytest.mark.parametrize(
    "values", [["2016-05-31", "May 2016"], ["2016-13-45", "2016-05-31"], ["31.05.2016"] * 2]
)
def test_what_is_no_date_stays_text(values):
    assert column(values).is_categorical


def test_declared_kinds():
    assert column([1, 2, 3], name="Batch").is_categorical
    assert not column([1, 2, 3], ConfoundRules(continuous=("batch",)), name="batch").is_categorical
    assert column(
        [1, 2, 3], ConfoundRules(categorical=("Head Coil",)), name="head_coil"
    ).is_categorical
    as_text = column(["1.5", " 2.5 ", None, "4"], ConfoundRules(continuous=("x",)))
    np.testing.assert_array_equal(as_text.values, [1.5, 2.5, 2.5, 4])
    with pytest.raises(
        UserError, match="'x' is declared continuous, but 2 of its values are no numbers"
    ):
        refuse_unusable(
            pd.DataFrame({"x": ["1", "a", "b"]}), ConfoundRules(continuous=("x",)), False
        )


def test_levels_by_falling_frequency_and_gaps_as_the_first():
    read = column(["b", "b ", None, "a", "c", "b", "a", ""], name="coil")
    assert [label for label, _ in read.levels] == ["coil=b", "coil=a", "coil=c"]
    np.testing.assert_array_equal(read.levels[0][1], [1, 1, 1, 0, 0, 1, 0, 1])
    assert read.notes == ("confound 'coil': 2 missing values filled",)


def test_codes_with_gaps_bear_the_names_of_codes_without():
    assert label_text(pd.Series([11025.0, np.nan, 11027.0])).tolist()[::2] == ["11025", "11027"]
    assert label_text(pd.Series([1.5, 2.0])).tolist() == ["1.5", "2.0"]
    assert label_text(pd.Series([True, False])).tolist() == ["True", "False"]


def test_outliers_are_off_unless_asked_for_and_take_the_median_of_the_site():
    rng = np.random.default_rng(0)
    values = rng.normal(size=400)
    sites = np.repeat([0, 1], 200)
    values[200:] += 3.0
    values[7], values[300] = 1e4, -1e4
    assert column(values).values[7] == 1e4
    read = column(values, ConfoundRules(outlier_sd=8.0), sites)
    assert read.values[7] == np.median(values[:200]) and read.values[300] == np.median(values[200:])
    changed = read.values != values
    assert changed.sum() == 2
    assert read.notes == (
        "confound 'x': 2 values beyond 8 robust SDs replaced by the median of the site",
    )
    assert not read.missing.any()
    plain = column(values, ConfoundRules(outlier_sd=8.0))
    assert plain.values[7] == np.median(values)
    assert plain.notes[0].endswith("replaced by the median")


def test_rare_codes_are_no_outliers():
    """A 0/1 column has MAD 0: by the SD, fewer than one in 65 ones would all be taken for errors."""
    rare = (np.arange(1000) < 5).astype(float)
    read = column(rare, ConfoundRules(outlier_sd=8.0))
    np.testing.assert_array_equal(read.values, rare)


def test_an_empty_column_stops_both_sexes_together_but_not_one():
    table = pd.DataFrame({"x": [np.nan] * 4, "text": [None] * 4, "y": np.arange(4.0)})
    with pytest.raises(UserError, match="'x' is missing in 100%") as error:
        refuse_unusable(table, RULES, one_sex=False)
    assert "'text' is missing in 100%" in str(error.value)
    refuse_unusable(table, RULES, one_sex=True)
    with pytest.raises(
        UserError, match="columns without any value in the analysed subjects: x, text;"
    ):
        refuse_empty(table)
    refuse_empty(table[["y"]])
    refuse_empty(table.iloc[:0])


@pytest.mark.parametrize("empty", [np.nan, None, ""])
def test_a_confound_of_the_other_sex_is_dropped_with_a_note(empty):
    age = np.linspace(45, 82, 50)
    table = pd.DataFrame(
        {"prostate": [empty] * 50, "motion": np.sin(np.arange(50.0)), "coil": [2.0] * 50}
    )
    rules = ConfoundRules(terms="prostate*motion + coil + coil:motion", site_column="prostate")
    z = build_confounds(age, None, table, rules, one_sex=True)
    assert z.names == ("age", "age_squared", "confound:motion")
    assert "confound 'prostate': no value in this sex, dropped" in z.notes
    assert "confound:coil: constant in this analysis, dropped" in z.notes
    assert "confound term 'coil:motion': zero in this analysis, dropped" in z.notes
    assert z.n_columns_read == 2
    with pytest.raises(UserError, match="confound 'prostate' is missing in 100%"):
        build_confounds(age, None, table, rules, one_sex=False)


def test_only_columns_of_the_terms_can_stop_a_run():
    age = np.linspace(45, 82, 50)
    table = pd.DataFrame(
        {"motion": np.sin(np.arange(50.0)), "notes": [f"text {k}" for k in range(50)]}
    )
    table["gaps"] = np.where(np.arange(50) < 20, np.nan, 1.0)
    strict = ConfoundRules(maximum_levels=10)
    with pytest.raises(UserError) as error:
        build_confounds(age, None, table, strict, one_sex=True)
    assert "'notes' is text with 50" in str(error.value) and "'gaps' is missing in 40%" in str(
        error.value
    )
    chosen = ConfoundRules(maximum_levels=10, terms="motion")
    assert len(build_confounds(age, None, table, chosen, one_sex=True).names) == 3


def test_the_indicator_of_missing_values_stands_once_beside_its_column():
    age = np.linspace(45, 82, 100)
    motion = np.where(np.arange(100) % 10 == 0, np.nan, np.cos(np.arange(100.0)))
    table = pd.DataFrame({"motion": motion, "site": np.tile(["a", "b"], 50)})
    z = build_confounds(
        age, None, table, ConfoundRules(terms="site*motion + motion^2"), one_sex=True
    )
    assert z.names[2:] == (
        "confound:site=b", "confound:motion", "confound:motion is missing", "confound:site=b x motion",
        "confound:motion^2",
    )  # fmt: skip
