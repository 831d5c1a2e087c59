"""Second scans: read, corrected by what was fitted for the first, compared subject by subject."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from utils.common.errors import UserError
from utils.common.randomness import generator
from utils.evaluation.reliability import RETEST_COLUMNS, scan_agreement
from utils.evaluation.retest import recognise_retest, retest_rows, second_scans
from utils.evaluation.sex_deltas import COMBINED, RETEST, DeltaRules, SexDeltas, SplitPredictions

SLOPES = {"A": 0.6, "B": 0.8}


def scans(split: str, number: int, n: int = 80) -> pd.DataFrame:
    """Long predictions of a split's subjects: a stable delta, noise of each scan, two years between scans."""
    people = generator("retest", split)
    age, delta = people.uniform(45, 82, n), people.normal(0, 4, n)
    parts = []
    for contrast, slope in SLOPES.items():
        noise = generator("retest", split, contrast, number).normal(0, 1.5, n)
        years = age + 2 * (number - 1)
        parts.append(
            pd.DataFrame(
                {
                    "subject_id": [f"{split}{i:03d}" for i in range(n)],
                    "contrast": contrast,
                    "age_years": years,
                    "predicted_years": 63 + slope * (years - 63) + delta + noise,
                    "note": "",
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def side_by_side(table: pd.DataFrame) -> SplitPredictions:
    return second_scans(table, list(SLOPES), set(table["subject_id"]))


@pytest.fixture(scope="module")
def fitted() -> SexDeltas:
    deltas = SexDeltas("female", list(SLOPES), DeltaRules("mean"))
    return deltas.fit(side_by_side(scans("validation", 1)), generator(1))


@pytest.fixture(scope="module")
def first(fitted) -> pd.DataFrame:
    parts = [
        fitted.apply(side_by_side(scans(split, 1)), split)[0].assign(split=split)
        for split in ("validation", "test")
    ]
    return pd.concat(parts, ignore_index=True)


def place(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.set_index(["contrast", "split", "quantity"])


def test_rows_are_the_agreement_of_the_pairs(fitted, first):
    second = scans("test", 2)
    deltas = fitted.apply(side_by_side(second), RETEST)[0]
    rows = retest_rows(first, deltas)
    assert list(rows.columns) == list(RETEST_COLUMNS) and len(rows) == 6
    assert set(rows["contrast"]) == {"A", "B", COMBINED} and set(rows["sex"]) == {"female"}
    for (contrast, _, quantity), row in place(rows).iterrows():
        mine = first[(first["contrast"] == contrast) & (first["split"] == "test")]
        column = f"{quantity}_years"
        pairs = mine.merge(deltas[deltas["contrast"] == contrast], on="subject_id")
        expected = scan_agreement(pairs[f"{column}_x"], pairs[f"{column}_y"])
        assert row["n"] == 80 and row["icc_2_1"] == expected["icc_2_1"]
        assert row["mdc_years"] == expected["mdc_years"]
        assert row["years_between_scans"] == pytest.approx(2.0) and not row["in_sample"]


def test_two_scans_of_one_noise_have_the_reliability_that_was_simulated(fitted, first):
    rows = place(retest_rows(first, fitted.apply(side_by_side(scans("test", 2)), RETEST)[0]))
    expected = 16 / (16 + 1.5**2)
    row = rows.loc[("A", "test", "corrected_delta")]
    assert row["icc_3_1_low"] < expected < row["icc_3_1_high"]
    assert rows.loc[(COMBINED, "test", "corrected_delta"), "sem_years"] < row["sem_years"]


def test_subjects_of_the_fit_are_stamped(fitted, first):
    rows = place(retest_rows(first, fitted.apply(side_by_side(scans("validation", 2)), RETEST)[0]))
    assert rows.loc[("A", "validation", "corrected_delta"), "in_sample"]
    assert not rows.loc[("A", "validation", "delta"), "in_sample"]


def test_a_combination_of_other_contrasts_is_not_compared(fitted, first):
    second = scans("test", 2)
    alone = second[(second["contrast"] == "A") | (second["subject_id"] < "test030")]
    rows = place(retest_rows(first, fitted.apply(side_by_side(alone), RETEST)[0]))
    assert rows.loc[("A", "test", "delta"), "n"] == 80
    assert rows.loc[("B", "test", "delta"), "n"] == 30
    assert rows.loc[(COMBINED, "test", "delta"), "n"] == 30


def test_few_pairs_give_their_number_alone(fitted, first):
    few = scans("test", 2).query("subject_id < 'test007'")
    rows = retest_rows(first, fitted.apply(side_by_side(few), RETEST)[0])
    assert (rows["n"] == 7).all() and rows["icc_2_1"].isna().all()
    assert rows["years_between_scans"].isna().all()


def test_nobody_in_common_is_an_empty_table(fitted, first):
    rows = retest_rows(first, first.iloc[:0])
    assert list(rows.columns) == list(RETEST_COLUMNS) and rows.empty


def test_a_table_is_recognised_in_its_forms():
    table = scans("test", 2).drop(columns="note")
    full = recognise_retest(table, "t.csv", ["A", "B"])
    assert list(full.columns) == ["subject_id", "contrast", "age_years", "predicted_years", "note"]
    deltas = table.assign(delta_years=table["predicted_years"] - table["age_years"])
    from_deltas = recognise_retest(deltas.drop(columns="predicted_years"), "t.csv", ["A", "B"])
    np.testing.assert_allclose(from_deltas["predicted_years"], full["predicted_years"])
    one = table[table["contrast"] == "A"].drop(columns="contrast")
    assert set(recognise_retest(one, "t.csv", ["A"])["contrast"]) == {"A"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.drop(columns="contrast"),
            "t.csv: no column contrast. A table of second scans",
        ),
        (lambda t: t.drop(columns=["age_years", "contrast"]), "no column contrast, age_years"),
        (
            lambda t: t.drop(columns="predicted_years"),
            "neither a column predicted_years nor delta_years",
        ),
        (lambda t: t.assign(contrast="C"), r"contrast C is none of this experiment's \(A, B\)"),
        (lambda t: pd.concat([t, t[:3]]), "3 rows repeat a subject and contrast"),
    ],
)
def test_what_cannot_be_used_is_named(change, message):
    with pytest.raises(UserError, match=message):
        recognise_retest(change(scans("test", 2)), "t.csv", ["A", "B"])


def test_a_subject_of_two_splits_is_compared_in_both_and_stamped(fitted, first):
    mine = first[first["split"] == "validation"].groupby("contrast").head(12)
    both = pd.concat([first, mine.assign(split="test")], ignore_index=True)
    second = pd.concat([scans("validation", 2), scans("test", 2)], ignore_index=True)
    rows = place(retest_rows(both, fitted.apply(side_by_side(second), RETEST)[0]))
    assert rows.loc[("A", "test", "corrected_delta"), "n"] == 92
    assert rows.loc[(COMBINED, "test", "corrected_delta"), "n"] == 92
    assert rows.loc[("A", "test", "corrected_delta"), "in_sample"]
    assert not rows.loc[("A", "test", "delta"), "in_sample"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"age_years": "61,5"}, r"again.csv, column age_years: '61,5' is no number"),
        ({"predicted_years": "?"}, r"column predicted_years: '\?' is no number"),
        ({"contrast": None}, "1 rows have no subject_id or no contrast"),
        ({"subject_id": None}, "1 rows have no subject_id or no contrast"),
    ],
)
def test_cells_that_cannot_be_read_are_named(changed, message):
    row = {"subject_id": "a", "contrast": "A", "age_years": 61.5, "predicted_years": 60.0}
    with pytest.raises(UserError, match=message):
        recognise_retest(pd.DataFrame([row | changed]), "again.csv", ["A"])
