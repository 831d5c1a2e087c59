"""Counts and small tables: worked by hand, against pandas group by group, and by what must not be in them."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.utils.association.association_tables import (
    as_categories,
    association_table,
    corrected,
)
from utils.association.summaries import (
    CORRECTIONS,
    MEDIAN_CHI2,
    UNITS,
    category_summary,
    contrast_summary,
    group_summary,
    passing,
    summarise,
    unique_by_unit,
)

NEEDED = -np.log10(0.05)
NAMES = ["f.31.0.0", "f.31.2.0", "f.50.2.0", "job=1", "job=2", "grip", "f.50.2.1"]
CATEGORIES = {"f.31.0.0": "a", "f.31.2.0": "a", "job": "b"}


def study(seed=0):
    """Two contrasts, two sexes, seven nIDPs of five columns and categories a, b and none."""
    rng = np.random.default_rng(seed)
    parts = []
    for contrast in ("T1", "T2"):
        for sex in ("female", "male"):
            r = rng.uniform(-0.15, 0.15, len(NAMES))
            r[rng.random(len(NAMES)) < 0.2] = np.nan
            df = rng.integers(300, 900, len(r))
            parts.append(association_table(r, df, contrast, sex, NAMES, categories=CATEGORIES))
    return corrected(pd.concat(parts, ignore_index=True))


def family(table):
    return [
        {
            "family_id": "all", "n_tests": 9, "alpha": 0.05,
            "n_bonferroni": int((table["nlog10p_bonf"] >= NEEDED).sum()),
            "n_bh": int((table["nlog10q_bh"] >= NEEDED).sum()),
        }
    ]  # fmt: skip


def test_counts_add_up():
    table = study()
    s = summarise(table, family(table), 0.05)
    tested = table["reason"] == ""
    assert s["n_rows"] == 28 and s["n_tested"] == tested.sum()
    assert s["n_untested"] == (~tested).sum() == sum(s["untested_by_reason"].values())
    assert s["untested_by_reason"] == {"too_few_subjects": int((~tested).sum())}
    assert s["n_bonferroni"] == s["hits"]["bonferroni"]["rows"] > 0
    assert s["n_bh"] == s["hits"]["bh"]["rows"]
    for counts in s["hits"].values():
        assert counts["positive"] + counts["negative"] == counts["rows"]
    json.dumps(s, allow_nan=False)


@pytest.mark.parametrize("seed", range(4))
def test_unique_nidps_at_three_units(seed):
    table = study(seed)
    by_unit = summarise(table, family(table), 0.05)["unique_by_unit"]
    assert set(by_unit) == {"column", "field", "category"}
    hits = table[table["nlog10q_bh"] >= NEEDED]
    field = hits["field"].where(hits["field"] != "", hits["column"])
    category = hits["category"][hits["category"] != ""]
    for unit, values in (("column", hits["column"]), ("field", field), ("category", category)):
        counts = by_unit[unit]["bh"]
        by_sex = [values[hits["sex"] == sex].nunique() for sex in ("female", "male")]
        assert counts == {
            "union": values.nunique(), "female": by_sex[0], "male": by_sex[1], "sum_over_sexes": sum(by_sex),
        }  # fmt: skip
        assert by_unit[unit]["meaning"] == UNITS[unit]


def test_union_is_not_the_sum_and_indicators_count_once():
    table = corrected(
        pd.concat(
            [association_table([0.5, 0.5, 0.5, 0.0], 300, sex=sex, nidp=["f.1.0.0", "f.1.2.0", "job=1", "job=2"])
             for sex in ("female", "male")], ignore_index=True,
        )
    )  # fmt: skip
    counts = unique_by_unit(table, passing(table, 0.05))
    assert counts["column"]["bonferroni"] == {
        "union": 3, "female": 3, "male": 3, "sum_over_sexes": 6,
    }  # fmt: skip
    assert counts["field"]["bonferroni"]["union"] == 2
    assert counts["category"]["bonferroni"]["union"] == 0


def test_the_present_keys_stay():
    table = study()
    s = summarise(table, family(table), 0.05)
    hits = table[table["nlog10p_bonf"] >= NEEDED]
    assert s["unique_nidps"]["unit"] == "column of the nIDP table"
    assert s["unique_nidps"]["bonferroni"] == {
        "union": hits["column"].nunique(),
        **{sex: hits.loc[hits["sex"] == sex, "column"].nunique() for sex in ("female", "male")},
    }
    assert s["families"] == family(table)


def test_every_correction_in_the_table_is_counted_and_no_other():
    table = study()
    table["nlog10p_fwer"] = table["nlog10p_bonf"]
    table["rejected_within"] = table["nlog10p_bonf"] >= NEEDED
    found = passing(table, 0.05)
    assert set(found) == {"bonferroni", "fwer", "bh", "by", "hierarchical"} <= set(CORRECTIONS)
    np.testing.assert_array_equal(found["by"], table["q_by"] <= 0.05)
    np.testing.assert_array_equal(found["hierarchical"], found["bonferroni"])
    columns = contrast_summary(table, 0.05).columns
    assert {"n_fwer", "n_hierarchical", "n_hierarchical_positive"} <= set(columns)
    assert "n_storey" not in columns
    table["nlog10p_fwer"] = np.nan  # no permutations were asked for
    assert "fwer" not in passing(table, 0.05)


@pytest.mark.parametrize("by", [("contrast", "sex"), ("category", "sex"), ("contrast", "category")])
@pytest.mark.parametrize("seed", range(3))
def test_group_tables_agree_with_pandas(by, seed):
    table = study(seed)
    summary = group_summary(table, by, 0.05)
    grouped = table.groupby(list(by), sort=False)
    assert summary[list(by)].apply(tuple, axis=1).tolist() == list(grouped.groups)
    for (_, rows), (_, row) in zip(grouped, summary.iterrows()):
        tested = rows[rows["reason"] == ""]
        assert (row["n_rows"], row["n_tested"]) == (len(rows), len(tested))
        hits = rows[rows["nlog10q_bh"] >= NEEDED]
        assert (row["n_bh"], row["n_bh_positive"]) == (len(hits), (hits["r"] > 0).sum())
        unique = rows.loc[rows["nlog10p_bonf"] >= NEEDED, "column"].nunique()
        assert row["n_nidps_bonferroni"] == unique
        if tested.empty:
            assert row["largest_nidp"] == "" and np.isnan(row["lambda_gc"])
            continue
        largest = tested.loc[tested["r"].abs().idxmax()]
        assert (row["largest_r"], row["largest_nidp"]) == (largest["r"], largest["nidp"])
        assert (row["largest_n"], row["largest_nlog10p"]) == (largest["n"], largest["nlog10p"])
        chi2 = stats.chi2.isf(10 ** -tested["nlog10p"], 1)
        assert row["lambda_gc"] == pytest.approx(np.median(chi2) / stats.chi2.median(1), rel=1e-9)
        assert row["median_n"] == tested["n"].median()
        expected = 1 + (row["lambda_gc"] - 1) * 1000 / tested["n"].median()
        assert row["lambda_1000"] == pytest.approx(expected)


def test_the_median_of_chi_squared():
    assert pytest.approx(stats.chi2.median(1), rel=1e-14) == MEDIAN_CHI2


def test_lambda_is_one_under_the_null_and_two_at_twice_the_variance():
    rng = np.random.default_rng(1)
    df = 2000
    for scale, expected in ((1.0, 1.0), (np.sqrt(2.0), 2.0)):
        r = np.tanh(scale * rng.normal(size=40_000) / np.sqrt(df - 1))
        table = association_table(r, df, nidp=np.arange(40_000).astype(str))
        row = contrast_summary(table, 0.05).iloc[0]
        assert row["lambda_gc"] == pytest.approx(expected, rel=0.04)
        assert row["lambda_1000"] == pytest.approx(1 + (expected - 1) * 1000 / 2007, abs=0.04)


def test_no_number_about_fewer_than_ten_subjects_is_in_the_tables():
    table = association_table([0.9, 0.1], [2, 400], nidp=["few", "many"])
    assert table["n"].tolist() == [9, 407]
    row = contrast_summary(table, 0.05).iloc[0]
    assert row["n_tested"] == 2 and row["largest_nidp"] == "many" and row["largest_n"] == 407
    alone = contrast_summary(table.iloc[:1], 0.05).iloc[0]
    assert (
        alone["largest_nidp"] == ""
        and np.isnan(alone["median_n"])
        and np.isnan(alone["lambda_1000"])
    )
    assert "subject_id" not in row.index


def test_a_group_without_a_test_has_empty_numbers():
    table = corrected(
        pd.concat(
            [
                association_table([np.nan, np.nan], 50, "T1"),
                association_table([0.1, 0.2], 50, "T2"),
            ],
            ignore_index=True,
        )
    )
    first = contrast_summary(table, 0.05).iloc[0]
    assert first["n_tested"] == 0 and first["largest_nidp"] == ""
    assert first[["largest_r", "median_n", "lambda_gc", "lambda_1000"]].isna().all()


def test_categories_of_text_and_plain_text_give_the_same():
    table = study(2)
    other = as_categories(table)
    assert summarise(table, family(table), 0.05) == summarise(other, family(table), 0.05)
    pd.testing.assert_frame_equal(category_summary(table, 0.05), category_summary(other, 0.05))
    pd.testing.assert_frame_equal(contrast_summary(table, 0.05), contrast_summary(other, 0.05))
