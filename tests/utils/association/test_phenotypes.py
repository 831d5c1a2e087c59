"""Preparation of nIDPs: the normal scores, kinds, and the fate of every column."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from utils.association.decoding import decode_column, decode_columns, kinds_of_dictionary
from utils.association.phenotypes import PhenotypeRules, prepare_phenotypes
from utils.association.transforms import inverse_normal, outliers
from utils.common.errors import UserError


def test_tied_values_share_the_mean_of_their_scores():
    z = inverse_normal(np.array([3.0, 1.0, 2.0, 2.0, 5.0]))
    np.testing.assert_allclose(
        z[2:4], -0.24860, atol=5e-6
    )  # not -0.24104, the score of the mean rank
    np.testing.assert_allclose(z[[1, 0, 4]], [-1.17976, 0.49720, 1.17976], atol=5e-6)


@given(arrays(float, st.integers(1, 60), elements=st.integers(-5, 5).map(float)))
def test_scores_depend_on_order_alone(x):
    z = inverse_normal(x)
    np.testing.assert_array_equal(inverse_normal(np.exp(x)), z)
    np.testing.assert_allclose(inverse_normal(-x), -z, atol=1e-12)
    np.testing.assert_array_equal(inverse_normal(x[::-1]), z[::-1])
    assert abs(z.sum()) < 1e-9


def test_scores_of_missing_values_are_missing():
    z = inverse_normal(np.array([np.nan, 1.0, 2.0, np.nan]))
    assert np.isnan(z[[0, 3]]).all() and z[2] == -z[1] > 0
    assert np.isnan(inverse_normal(np.full(4, np.nan))).all()


def test_outliers_by_median_and_mad():
    x = np.r_[np.linspace(-1, 1, 101), 9.0, np.nan]
    assert outliers(x, 8.0).nonzero()[0].tolist() == [101]
    assert not outliers(np.r_[np.zeros(99), 1.0], 20.0).any()  # MAD 0: the SD takes its place
    assert outliers(np.r_[np.zeros(99), 1.0], 8.0).sum() == 1
    assert not outliers(np.ones(5), 8.0).any()
    assert not outliers(np.full(5, np.nan), 8.0).any()


def prepared(series, kind=None, rules=None, name="x"):
    column = decode_column(name, pd.Series(series), kind)
    return prepare_phenotypes([column], np.arange(len(series)), rules or PhenotypeRules())


RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("series", "kind", "reason"),
    [
        (RNG.normal(size=100), "continuous", ""),
        (RNG.integers(0, 6, 100), "ordinal", ""),
        (RNG.integers(0, 2, 100), "binary", ""),
        (RNG.integers(1, 3, 100) * 1.0, "binary", ""),
        (RNG.choice(["no", "yes"], 100), "binary", ""),
        (RNG.integers(0, 2, 100).astype(bool), "binary", ""),
        (pd.array(RNG.integers(0, 6, 100), dtype="Int64"), "ordinal", ""),
        ([f"{v:.3f}" for v in RNG.normal(size=100)], "continuous", ""),
        ([np.nan] * 100, "binary", "all_missing"),
        ([2.0] * 100, "binary", "constant"),
        ([np.inf] * 40 + [1.5, 2.5, 3.5] * 20, "ordinal", ""),
        (RNG.normal(size=50), "continuous", "too_few_subjects"),
        ([1] * 9 + [0] * 91, "binary", "too_few_cases"),
        ([1] * 10 + [0] * 90, "binary", ""),
        ([0.0] * 995 + [1, 2, 3, 4, 5], "ordinal", "dominated_by_one_value"),
        (pd.date_range("2020-01-01", periods=100), "continuous", "dates_not_numbers"),
        ([f"note {k}" for k in range(100)], "nominal", "text_not_classes"),
    ],
)
def test_kind_and_fate_of_a_column(series, kind, reason):
    out = prepared(series)
    assert (out.fates[0].kind, out.fates[0].reason) == (kind, reason)
    assert out.fates[0].kept == (reason == "") == (out.values.shape[1] == 1)


def test_binary_is_zero_and_one_and_keeps_its_missing_values():
    out = prepared([1.0, 2.0] * 60 + [np.nan])
    assert set(out.values[:120, 0]) == {0.0, 1.0} and np.isnan(out.values[120, 0])
    assert out.binary.tolist() == [True]
    assert out.fates[0].n_smaller_class == 60


def test_nominal_becomes_one_indicator_a_level():
    out = prepared(["a", "b", "c"] * 40 + ["d"] * 5 + [None], name="diet")
    assert [(f.nidp, f.column, f.kept, f.reason) for f in out.fates] == [
        ("diet", "diet", False, "tested_as_indicators"),
        ("diet=a", "diet", True, ""),
        ("diet=b", "diet", True, ""),
        ("diet=c", "diet", True, ""),
        ("diet=d", "diet", False, "too_few_cases"),
    ]
    np.testing.assert_array_equal(np.nansum(out.values[:120], axis=1), 1.0)
    assert np.isnan(out.values[-1]).all()
    numbers = prepared([1, 2, 7] * 40, kind="nominal")
    assert [f.nidp for f in numbers.fates] == ["x", "x=1", "x=2", "x=7"]


def test_counts_with_many_zeros_gain_an_indicator():
    counts = np.r_[np.zeros(60), np.arange(1, 41)]
    assert [f.nidp for f in prepared(counts).fates] == ["x", "x>0"]
    assert [f.nidp for f in prepared(counts, rules=PhenotypeRules(zero_spike=0.7)).fates] == ["x"]
    assert [f.nidp for f in prepared(counts + 0.5 * (counts > 0)).fates] == ["x"]  # not a count


def test_outliers_become_missing_and_are_counted():
    out = prepared(np.r_[RNG.normal(size=100), 1e6])
    assert out.fates[0].n_outliers == 1 and out.fates[0].n == 100
    assert np.isnan(out.values[100, 0])


def test_transformation_uses_the_analysed_rows_alone():
    x = RNG.normal(size=200)
    column = decode_columns(pd.DataFrame({"x": x}), {})
    rows = np.arange(0, 200, 2)
    half = prepare_phenotypes(column, rows, PhenotypeRules())
    np.testing.assert_array_equal(half.values[:, 0], inverse_normal(x[rows]))
    none = prepare_phenotypes(column, rows, PhenotypeRules(transform="none"))
    np.testing.assert_array_equal(none.values[:, 0], x[rows])
    with pytest.raises(ValueError, match="'inverse_normal' or 'none', not 'log'"):
        PhenotypeRules(transform="log")


def test_dictionary_decides_the_kind_and_its_mistakes_are_named():
    kinds = kinds_of_dictionary(pd.DataFrame({"nidp": ["x", "y"], "kind": ["continuous", None]}))
    assert kinds == {"x": "continuous"}
    assert prepared(RNG.integers(0, 5, 100), kind="continuous").fates[0].kind == "continuous"
    assert (
        prepared(RNG.integers(0, 5, 100), kind="binary").fates[0].reason == "more_than_two_values"
    )
    assert prepared(["a", "b", "c"] * 40, kind="binary").fates[0].reason == "more_than_two_values"
    assert prepared(["a", "b"] * 40, kind="ordinal").fates[0].reason == "text_not_numbers"
    assert kinds_of_dictionary(None) == kinds_of_dictionary(pd.DataFrame({"nidp": ["x"]})) == {}
    with pytest.raises(UserError, match="kind 'real'; a kind is one of continuous"):
        kinds_of_dictionary(pd.DataFrame({"nidp": ["x"], "kind": ["real"]}))
    with pytest.raises(UserError, match="no column 'nidp'; columns found: name"):
        kinds_of_dictionary(pd.DataFrame({"name": ["x"]}))


def test_fates_table_of_nothing():
    out = prepare_phenotypes([], np.arange(5), PhenotypeRules())
    assert out.values.shape == (5, 0)
    assert list(out.fates_table().columns)[:3] == ["nidp", "column", "kept"]
