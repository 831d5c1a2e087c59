"""Deltas of one sex: fitted on validation, frozen, honest about what is missing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from utils.common.errors import UserError
from utils.common.randomness import generator
from utils.evaluation.pattern_deltas import NOTE_RARE
from utils.evaluation.sex_deltas import COMBINED, DeltaRules, SexDeltas, SplitPredictions

SLOPES = {"A": 0.6, "B": 0.8}


def table(contrast: str, split: str, n: int = 80) -> pd.DataFrame:
    draw = generator("sex deltas", split)
    age = draw.uniform(45, 82, n)
    noise = generator("sex deltas", split, contrast).normal(0, 3, n)
    predicted = 63 + SLOPES[contrast] * (age - 63) + noise
    ids = [f"{split}{i:03d}" for i in range(n)]
    return pd.DataFrame(
        {"subject_id": ids, "age_years": age, "predicted_years": predicted, "note": ""}
    )


def split(name: str, n: int = 80) -> SplitPredictions:
    return SplitPredictions.from_tables([table("A", name, n), table("B", name, n)])


def fitted(validation: SplitPredictions, correction: str = "subtract", combination: str = "mean"):
    deltas = SexDeltas("female", ["A", "B"], DeltaRules(combination, correction))
    return deltas.fit(validation, generator(1))


def rows(deltas: pd.DataFrame, contrast: str) -> pd.DataFrame:
    return deltas[deltas["contrast"] == contrast].reset_index(drop=True)


def test_tables_are_joined_on_the_subject():
    first = pd.DataFrame(
        {
            "subject_id": ["1", "2", "3"], "age_years": [50.0, np.nan, 70.0],
            "predicted_years": [51.0, 61.0, np.nan], "note": ["", "no age", "no such file"],
        }
    )  # fmt: skip
    second = pd.DataFrame(
        {
            "subject_id": ["4", "3"], "age_years": [80.0, 70.0],
            "predicted_years": [81.0, 71.0], "note": [np.nan, ""],
        }
    )  # fmt: skip
    joined = SplitPredictions.from_tables([first, None, second])
    assert joined.subject_ids == ["1", "2", "3", "4"]
    assert np.array_equal(joined.ages_years, [50, np.nan, 70, 80], equal_nan=True)
    expected = [
        [51, np.nan, np.nan],
        [61, np.nan, np.nan],
        [np.nan, np.nan, 71],
        [np.nan, np.nan, 81],
    ]
    assert np.array_equal(joined.predicted_years, expected, equal_nan=True)
    assert joined.notes[2] == ["no such file", "no prediction", ""]
    assert joined.notes[3] == ["no prediction", "no prediction", ""]
    assert joined.usable().subject_ids == ["1", "3", "4"]


@pytest.mark.parametrize("correction", ["subtract", "divide"])
def test_the_correction_is_validations_line(correction):
    validation, test = split("validation"), split("test")
    deltas, records = fitted(validation, correction).apply(test, "test")
    for c, contrast in enumerate(("A", "B")):
        beta, alpha = np.polyfit(validation.ages_years, validation.predicted_years[:, c], 1)
        predicted, found = test.predicted_years[:, c], rows(deltas, contrast)
        if correction == "subtract":
            expected = predicted - alpha - beta * test.ages_years
        else:
            expected = (predicted - alpha) / beta - test.ages_years
        assert np.allclose(found["corrected_delta_years"], expected)
        assert np.allclose(found["delta_years"], predicted - test.ages_years)
        assert found["subject_id"].tolist() == test.subject_ids
        assert np.array_equal(found["age_years"], test.ages_years)
        assert records[contrast]["beta"] == pytest.approx(beta)
        assert records[contrast]["in_sample"] is False
    mean = rows(deltas, COMBINED)
    assert np.allclose(mean["predicted_years"], test.predicted_years.mean(axis=1))
    beta, alpha = np.polyfit(validation.ages_years, validation.predicted_years.mean(axis=1), 1)
    expected = mean["predicted_years"] - alpha - beta * test.ages_years
    assert np.allclose(
        mean["corrected_delta_years"], expected if correction == "subtract" else expected / beta
    )
    assert (deltas["sex"] == "female").all() and len(deltas) == 3 * 80


def test_a_subject_without_a_contrast_keeps_its_other_deltas():
    second = table("B", "test").iloc[:70]
    test = SplitPredictions.from_tables([table("A", "test"), second])
    deltas, records = fitted(split("validation")).apply(test, "test")
    missing, combined = rows(deltas, "B").iloc[70:], rows(deltas, COMBINED)
    assert missing["corrected_delta_years"].isna().all()
    assert (missing["note"] == "no prediction").all()
    assert np.allclose(combined["predicted_years"][70:], table("A", "test")["predicted_years"][70:])
    assert (combined["note"][70:] == f"without B; {NOTE_RARE}").all()
    assert (combined["note"][:70] == "").all()
    # corrected by the line of A alone, not by that of both
    assert np.allclose(
        combined["corrected_delta_years"][70:], rows(deltas, "A")["corrected_delta_years"][70:]
    )
    record = records[COMBINED]
    assert record["patterns"]["10"]["n"] == 10 and record["n_of_rare_patterns"] == 10
    assert record["patterns"]["10"]["rare"] and not record["patterns"]["11"]["rare"]


def test_a_contrast_that_was_never_tested_is_refused_with_its_reason():
    validation = SplitPredictions.from_tables([table("A", "validation"), None])
    test = SplitPredictions.from_tables([table("A", "test"), None])
    deltas, records = fitted(validation, combination="ridge").apply(test, "test")
    absent = rows(deltas, "B")
    assert absent[["predicted_years", "delta_years", "corrected_delta_years"]].isna().all(axis=None)
    assert "0 subjects to fit" in records["B"]["refused"]
    assert absent["note"].str.contains("no prediction; 0 subjects to fit").all()
    assert rows(deltas, "A")["corrected_delta_years"].notna().all()
    assert rows(deltas, COMBINED)["corrected_delta_years"].notna().all()


@pytest.mark.parametrize(("n", "refused"), [(49, True), (50, False)])
def test_fewer_than_50_validation_subjects_are_refused(n, refused):
    deltas, records = fitted(split("validation", n)).apply(split("test"), "test")
    assert deltas["corrected_delta_years"].isna().all() == refused
    assert deltas["delta_years"].notna().all()
    for contrast in ("A", "B"):
        assert ("refused" in records[contrast]) == refused
        assert rows(deltas, contrast)["note"].str.contains("49 subjects").all() == refused
    assert rows(deltas, COMBINED)["note"].str.contains("49 subjects").all() == refused


def test_validation_subjects_in_test_are_an_error_and_validation_itself_is_stamped():
    validation, test = split("validation"), split("test")
    deltas = fitted(validation)
    mixed = SplitPredictions(
        [validation.subject_ids[0], *test.subject_ids[1:]],
        test.ages_years, test.predicted_years, test.notes,
    )  # fmt: skip
    with pytest.raises(UserError, match="fitted on 1 of the 80 subjects"):
        deltas.apply(mixed, "test")
    table_, records = deltas.apply(validation, "validation")
    assert records["A"]["in_sample"] is True and records[COMBINED]["in_sample"] is True
    corrected = rows(table_, "A")["corrected_delta_years"]
    assert abs(corrected.mean()) < 1e-9
    assert abs(np.corrcoef(corrected, validation.ages_years)[0, 1]) < 1e-9


def test_without_correction_there_are_raw_deltas_only():
    deltas, records = fitted(split("validation"), "none").apply(split("test"), "test")
    assert deltas["corrected_delta_years"].isna().all() and deltas["delta_years"].notna().all()
    assert all(record == {"refused": "bias_correction = none"} for record in records.values())


def test_a_flat_slope_is_refused_for_dividing_and_not_for_subtracting():
    validation, test = split("validation"), split("test")
    flat = SplitPredictions(
        validation.subject_ids, validation.ages_years,
        63 + generator("flat").normal(0, 1, (80, 2)), validation.notes,
    )  # fmt: skip
    divided, records = fitted(flat, "divide").apply(test, "test")
    assert "dividing by it needs a slope" in records["A"]["refused"]
    assert divided["corrected_delta_years"].isna().all()
    subtracted, _ = fitted(flat, "subtract").apply(test, "test")
    assert subtracted["corrected_delta_years"].notna().all()


def test_the_order_of_subjects_does_not_matter():
    validation, test = split("validation"), split("test")
    order = generator("order").permutation(80)
    shuffled = SplitPredictions(
        [validation.subject_ids[i] for i in order], validation.ages_years[order],
        validation.predicted_years[order], [validation.notes[i] for i in order],
    )  # fmt: skip
    first, _ = fitted(validation).apply(test, "test")
    second, _ = fitted(shuffled).apply(test, "test")
    assert np.allclose(first["corrected_delta_years"], second["corrected_delta_years"])


def test_one_contrast_has_no_combination():
    deltas = SexDeltas("male", ["A"], DeltaRules())
    deltas.fit(SplitPredictions.from_tables([table("A", "validation")]), generator(1))
    found, records = deltas.apply(SplitPredictions.from_tables([table("A", "test")]), "test")
    assert set(found["contrast"]) == {"A"} and set(records) == {"A"}


def test_z_makes_subjects_with_few_contrasts_comparable():
    """A alone scatters more than A and B: in years its deltas are larger, in z they are not."""
    validation = split("validation", 600)
    without = table("B", "test", 1200).iloc[:600]
    test = SplitPredictions.from_tables([table("A", "test", 1200), without])
    deltas, records = fitted(validation, combination="ridge").apply(test, "test")
    combined = rows(deltas, COMBINED)
    both, alone = combined.iloc[:600], combined.iloc[600:]
    years, z = (
        [part[c].std() for part in (both, alone)] for c in ("corrected_delta_years", "delta_z")
    )
    assert years[1] > 1.1 * years[0]
    assert z == pytest.approx([1.0, 1.0], abs=0.08)
    sd = records[COMBINED]["patterns"]["10"]["residual_sd_years"]
    assert np.allclose(alone["delta_z"], alone["corrected_delta_years"] / sd)


@pytest.mark.parametrize("correction", ["quadratic", "age_level"])
def test_curves_refuse_ages_outside_the_fit_in_the_table_too(correction):
    validation, test = split("validation"), split("test")
    ages = test.ages_years.copy()
    ages[:3] = [30.0, 60.0, 95.0]
    aged = SplitPredictions(test.subject_ids, ages, test.predicted_years, test.notes)
    deltas, records = fitted(validation, correction).apply(aged, "test")
    for contrast in ("A", "B", COMBINED):
        mine = rows(deltas, contrast)
        gaps = mine["corrected_delta_years"].isna()
        assert gaps[[0, 1, 2]].tolist() == [True, False, True]
        assert mine["note"][gaps].str.contains(f"no {correction} correction").all()
        assert mine["delta_years"].notna().all()
    assert records["A"]["n_refused_for_age"] == gaps.sum()


def test_overlap_that_is_allowed_is_stamped_subject_by_subject():
    validation, test = split("validation"), split("test")
    rules = DeltaRules("mean", allow_in_sample=True)
    deltas = SexDeltas("female", ["A", "B"], rules).fit(validation, generator(1))
    mixed = SplitPredictions(
        [validation.subject_ids[0], *test.subject_ids[1:]],
        test.ages_years, test.predicted_years, test.notes,
    )  # fmt: skip
    table_, records = deltas.apply(mixed, "test")
    for contrast in ("A", "B", COMBINED):
        notes = rows(table_, contrast)["note"]
        assert notes[0].startswith("in-sample") and (notes[1:] == "").all()
        assert records[contrast]["in_sample"] is True


def test_the_accuracy_of_divided_predictions_is_labelled_and_of_subtracted_ones_not_there():
    validation, test = split("validation"), split("test")
    _, divided = fitted(validation, "divide").apply(test, "test")
    shown = divided["A"]["debiased_accuracy"]
    assert shown["label"] == "debiased (MAE rises by design)"
    raw = np.abs(test.predicted_years[:, 0] - test.ages_years).mean()
    assert shown["mae_years"] != pytest.approx(raw)
    for correction in ("subtract", "quadratic", "age_level"):
        _, records = fitted(validation, correction).apply(test, "test")
        assert "mae" not in str(records) and "r2" not in str(records)


def test_the_line_of_a_combination_is_fitted_on_predictions_that_had_not_seen_the_subject():
    validation, test = split("validation"), split("test")
    seen = DeltaRules(cross_fit=False)
    records = {}
    for rules in (DeltaRules(), seen):
        deltas = SexDeltas("female", ["A", "B"], rules).fit(validation, generator(1))
        records[rules] = deltas.apply(test, "test")[1][COMBINED]
    crossed, plain = records[DeltaRules()], records[seen]
    assert crossed["cross_fitted"] and not plain["cross_fitted"]
    fits = [record["patterns"]["11"] for record in (crossed, plain)]
    assert fits[0]["beta"] != fits[1]["beta"]
    assert fits[0]["residual_sd_years"] > fits[1]["residual_sd_years"]
    assert fits[0]["fit_subjects_sha256"] == fits[1]["fit_subjects_sha256"]


def test_cross_fitting_does_not_depend_on_the_order_of_subjects():
    validation, test = split("validation"), split("test")
    order = generator("order").permutation(80)
    shuffled = SplitPredictions(
        [validation.subject_ids[i] for i in order], validation.ages_years[order],
        validation.predicted_years[order], [validation.notes[i] for i in order],
    )  # fmt: skip
    first, second = (
        fitted(v, combination="ridge").apply(test, "test")[0] for v in (validation, shuffled)
    )
    assert np.allclose(first["corrected_delta_years"], second["corrected_delta_years"])


def test_a_mean_has_no_weights_to_fit_and_is_not_cross_fitted():
    validation, test = split("validation"), split("test")
    _, records = fitted(validation).apply(test, "test")
    assert records[COMBINED]["cross_fitted"] is False
    line = np.polyfit(validation.ages_years, validation.predicted_years.mean(axis=1), 1)
    assert records[COMBINED]["patterns"]["11"]["beta"] == pytest.approx(line[0])


@pytest.mark.parametrize(
    "method", ["ridge", "mean", "inverse_variance", "gls", "nonnegative", "elastic_net"]
)
def test_every_combination_is_corrected(method):
    """Slope and spread of the frozen correction are those that new subjects show."""
    validation, test = split("validation", 400), split("test", 2000)
    deltas, records = fitted(validation, combination=method).apply(test, "test")
    mine = rows(deltas, COMBINED)
    left = np.polyfit(test.ages_years, mine["corrected_delta_years"], 1)[0]
    assert abs(left) < 0.05
    assert mine["delta_z"].std() == pytest.approx(1.0, abs=0.1)
    assert records[COMBINED]["cross_fitted"] is (method != "mean")


def test_without_validation_there_are_raw_deltas_and_reasons():
    nobody = SplitPredictions([], np.zeros(0), np.zeros((0, 2)), [])
    deltas, records = fitted(nobody, combination="ridge").apply(split("test"), "test")
    assert deltas["delta_years"].notna().all() and deltas["delta_z"].isna().all()
    assert "0 subjects to fit" in records["A"]["refused"]
    assert rows(deltas, COMBINED)["note"].str.contains("0 subjects to fit").all()
