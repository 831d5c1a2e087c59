"""Preparation of nIDPs: the normal scores, kinds, and the fate of every column."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from utils.association.decoding import DecodedColumn, decode_column, decode_columns
from utils.association.dictionary import NidpFacts
from utils.association.phenotypes import PhenotypeRules, prepare_phenotypes, sex_that_has_it
from utils.association.transforms import inverse_normal, outliers

REFERENCE = json.loads(
    (Path(__file__).parents[2] / "reference" / "funpack_4_0_1.json").read_text(encoding="utf-8")
)


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
    column = decode_column(name, pd.Series(series), NidpFacts(kind=kind or ""))
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
        (pd.date_range("2020-01-01", periods=100), "continuous", ""),
        (pd.date_range("2020-01-01", periods=100).strftime("%Y-%m-%d"), "continuous", ""),
        ([f"{k},5" for k in range(60)], "continuous", "decimal_commas_not_read"),
        ([True, False, None] * 40, "binary", ""),
        (["true", "false", ""] * 40, "binary", ""),
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
    column = decode_columns(pd.DataFrame({"x": x}))
    rows = np.arange(0, 200, 2)
    half = prepare_phenotypes(column, rows, PhenotypeRules())
    np.testing.assert_array_equal(half.values[:, 0], inverse_normal(x[rows]))
    none = prepare_phenotypes(column, rows, PhenotypeRules(transform="none"))
    np.testing.assert_array_equal(none.values[:, 0], x[rows])
    with pytest.raises(ValueError, match="'inverse_normal' or 'none', not 'log'"):
        PhenotypeRules(transform="log")


def test_dictionary_decides_the_kind():
    assert prepared(RNG.integers(0, 5, 100), kind="continuous").fates[0].kind == "continuous"
    assert (
        prepared(RNG.integers(0, 5, 100), kind="binary").fates[0].reason == "more_than_two_values"
    )
    assert prepared(["a", "b", "c"] * 40, kind="binary").fates[0].reason == "more_than_two_values"
    assert prepared(["a", "b"] * 40, kind="ordinal").fates[0].reason == "text_not_numbers"
    assert prepared([1140861958, 5, 7] * 40, kind="nominal").fates[-1].nidp == "x=1140861958"


@pytest.mark.parametrize("case", REFERENCE["dates"])
def test_years_as_funpack_writes_them(case):
    column = decode_column("x", pd.Series([case["date"]] + [f"20{k}-03-01" for k in range(10, 30)]))
    assert column.values[0] == pytest.approx(case["year"], abs=2e-4)  # FUNPACK's are float32


def test_time_of_day_is_part_of_the_year():
    days = ["2014-07-02 12:00:00", "2016-12-31T23:59:59.9", "2014-01-01"]
    days += [f"20{k}-03-01" for k in range(10, 30)]
    text, typed = pd.Series(days), pd.to_datetime(pd.Series(days), format="ISO8601")
    x = decode_column("x", text).values
    np.testing.assert_allclose(x[:3], [2014.5, 2017.0, 2014.0], atol=1e-8)
    np.testing.assert_array_equal(decode_column("x", typed).values, x)
    aware = typed.dt.tz_localize("UTC")
    np.testing.assert_array_equal(decode_column("x", aware).values, x)
    broken = decode_column("x", pd.Series([*days, "2014-02-30"]))
    assert broken.kind == "nominal"  # no such day: classes


@pytest.mark.parametrize("case", REFERENCE["sparsity"])
def test_sparsity_as_funpack_has_it(case):
    reasons = {
        None: {""},
        "minpres": {"too_few_subjects"},
        "minstd": {"constant", "too_little_spread"},
        "maxcat": {"dominated_by_one_value"},
    }
    x = np.array(case["values"])
    column = DecodedColumn("x", "ordinal", x)
    rules = PhenotypeRules(minimum_class=0)
    reason = prepare_phenotypes([column], np.arange(x.size), rules).fates[0].reason
    assert reason in reasons[case["why"]]


def fate_of(values, kind="ordinal", **rules):
    column = DecodedColumn("x", kind, np.array(values, dtype=float))
    return prepare_phenotypes([column], np.arange(len(values)), PhenotypeRules(**rules)).fates[0]


@pytest.mark.parametrize(
    ("values", "kind", "rules", "reason"),
    [
        (list(range(50)), "ordinal", {}, "too_few_subjects"),
        (list(range(51)), "ordinal", {}, ""),
        ([0] * 99 + [1], "ordinal", {}, "dominated_by_one_value"),
        ([0] * 197 + [1, 2, 3], "ordinal", {}, ""),
        ([0] * 198 + [1, 2], "ordinal", {}, "dominated_by_one_value"),
        ([0] * 60, "ordinal", {}, "constant"),
        ([0, 1] * 30, "ordinal", {"minimum_sd": 0.50423}, "too_little_spread"),
        ([0, 1] * 30, "ordinal", {"minimum_sd": 0.50421}, ""),
        ([0] * 60 + [1] * 9, "binary", {}, "too_few_cases"),
        ([0] * 60 + [1] * 10, "binary", {}, ""),
        ([1] * 60 + [0] * 9, "binary", {}, "too_few_cases"),
        ([0] * 60, "binary", {}, "constant"),
        ([1] * 60, "binary", {}, "constant"),
        ([0] * 2000 + [1] * 10, "binary", {}, ""),  # the share says nothing of classes
        ([], "binary", {}, "all_missing"),
    ],
)
def test_each_rule_at_its_edge(values, kind, rules, reason):
    assert fate_of(values, kind, **rules).reason == reason


def test_outliers_at_the_limit():
    x = np.arange(-50.0, 51.0)  # median 0, MAD 25
    limit = 8 * 1.4826 * 25
    assert fate_of([*x, limit + 0.3 * 1.4826 * 8], "continuous").n_outliers <= 1
    edge = np.r_[x, 1000.0]
    spread = 1.4826 * np.median(np.abs(edge - np.median(edge)))
    exact = (1000.0 - np.median(edge)) / spread
    assert fate_of(edge, "continuous", outlier_sd=exact * 1.0001).n_outliers == 0
    assert fate_of(edge, "continuous", outlier_sd=exact * 0.9999).n_outliers == 1
    assert fate_of(edge, "ordinal", outlier_sd=1.0).n_outliers == 0


@given(arrays(float, st.integers(1, 80), elements=st.floats(-1e6, 1e6) | st.just(np.nan)))
def test_outliers_are_those_of_the_formula(x):
    present = x[np.isfinite(x)]
    expected = np.zeros(x.shape, dtype=bool)
    if present.size:
        distance = np.abs(x - np.median(present))
        spread = 1.4826 * np.median(distance[np.isfinite(x)]) or np.std(present)
        expected = np.isfinite(x) & (distance > 3.0 * spread) & (spread > 0)
    np.testing.assert_array_equal(outliers(x, 3.0), expected)


def test_values_of_an_nidp_lie_side_by_side():
    columns = decode_columns(pd.DataFrame(RNG.normal(size=(100, 5))).add_prefix("x"))
    out = prepare_phenotypes(columns, np.arange(100), PhenotypeRules())
    assert out.values.shape == (100, 5) and out.values.T.flags.c_contiguous
    fewer = out.without(np.array([True, False, False, True, False]), "collinear")
    assert fewer.values.shape == (100, 3) and fewer.values.T.flags.c_contiguous
    assert [fate.reason for fate in fewer.fates] == ["collinear", "", "", "collinear", ""]
    assert out.without(np.zeros(5, dtype=bool), "none") is out


def test_column_by_column_is_all_together():
    table = pd.DataFrame(
        {"a": RNG.normal(size=100), "b": RNG.integers(0, 4, 100), "c": ["u", "v"] * 50}
    )
    columns, rows = decode_columns(table), np.arange(10, 90)
    together = prepare_phenotypes(columns, rows, PhenotypeRules())
    for k, column in enumerate(columns):
        alone = prepare_phenotypes([column], rows, PhenotypeRules())
        np.testing.assert_array_equal(alone.values[:, 0], together.values[:, k])
        of_all = together.fates_table().iloc[[k]].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone.fates_table(), of_all)


def test_missingness_is_an_nidp_where_asked_for():
    x = np.r_[RNG.normal(size=90), np.full(10, np.nan)]
    assert [f.nidp for f in prepared(x).fates] == ["x"]
    out = prepared(x, rules=PhenotypeRules(missingness_indicators=True))
    assert [f.nidp for f in out.fates] == ["x", "x:missing"]
    assert out.binary.tolist() == [False, True]
    assert out.values[:, 1].sum() == 10 and out.fates[1].n_smaller_class == 10
    whole = prepared(RNG.normal(size=100), rules=PhenotypeRules(missingness_indicators=True))
    assert [f.nidp for f in whole.fates] == ["x"]
    too_few = prepared(
        ["note"] * 5 + [None] * 95, rules=PhenotypeRules(missingness_indicators=True)
    )
    assert too_few.fates[0].reason == "too_few_subjects" and too_few.fates[1].kept is False


def test_nidps_of_one_sex():
    sex = np.array(["female", "male"] * 150, dtype=object)
    menopause = np.where(sex == "female", RNG.normal(size=300), np.nan)
    menopause[1] = 9.0  # one man by mistake: 1 of 151
    both = RNG.normal(size=300)
    columns = decode_columns(pd.DataFrame({"menopause": menopause, "both": both}))
    out = prepare_phenotypes(columns, np.arange(300), PhenotypeRules(), sex)
    assert [(f.nidp, f.sex, f.n) for f in out.fates] == [
        ("menopause", "female", 150),
        ("both", "", 300),
    ]
    assert np.isnan(out.values[1, 0])
    apart = prepare_phenotypes(columns, np.flatnonzero(sex == "female"), PhenotypeRules())
    assert {f.sex for f in apart.fates} == {""}


def test_limit_of_sex_specific_nidps():
    sex = np.array(["female"] * 400 + ["male"] * 400, dtype=object)
    x = np.full(800, np.nan)
    x[:396], x[400:404] = 1.0, 1.0  # 396 of 400: 99 %
    assert sex_that_has_it(x, sex) == ""
    x[403] = np.nan
    assert sex_that_has_it(x, sex) == "female"
    assert sex_that_has_it(x[::-1], sex) == "male"
    assert sex_that_has_it(np.full(800, np.nan), sex) == ""
    assert sex_that_has_it(np.ones(200), np.array(["female"] * 199 + ["male"], dtype=object)) == ""


def test_fates_table_of_nothing():
    out = prepare_phenotypes([], np.arange(5), PhenotypeRules())
    assert out.values.shape == (5, 0)
    assert list(out.fates_table().columns)[:3] == ["nidp", "column", "kept"]


def test_numbers_with_decimal_commas_are_neither_numbers_nor_classes():
    """They may be pairs of codes as well: the log says so, and nothing is tested in their place."""
    decoded = decode_column("x", pd.Series(["1,5", "2,25", None, "-3,0"]))
    assert decoded.reason == "decimal_commas_not_read"
    assert decode_column("y", pd.Series(["1,5", "a", "b"])).reason == ""
