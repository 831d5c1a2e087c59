"""Flags of predictions: values by hand, other programs' numbers, false alarms counted, what must not matter."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from utils.evaluation.gate import (
    NOTE_OUTSIDE,
    POOR_R,
    no_correlation,
    prediction_flags,
    restricted_r,
    with_notes,
    years_outside,
)

TRAINING = {"n": 500, "mean_years": 63.0, "sd_years": 7.5, "min_years": 45.2, "max_years": 81.7}
ALTERNATING = np.tile([-1.0, 1.0], 50)


def table(predicted, ages=None, status="ok") -> pd.DataFrame:
    predicted = np.asarray(predicted, dtype=float)
    return pd.DataFrame(
        {
            "subject_id": [f"s{i}" for i in range(predicted.size)],
            "age_years": np.nan if ages is None else ages,
            "predicted_years": predicted,
            "status": status,
            "note": "",
        }
    )


def names(predicted, ages=None, training=TRAINING) -> list[str]:
    return [flag.name for flag in prediction_flags(table(predicted, ages), training)]


def working(n: int, low: float = 45.0, high: float = 82.0, seed: int = 0, error_sd: float = 5.0):
    """Ages and the predictions of an ordinary network."""
    draw = np.random.default_rng(seed)
    age = draw.uniform(low, high, n)
    return 63 + 0.8 * (age - 63) + draw.normal(0, error_sd, n), age


def test_a_working_network_has_no_flag():
    predicted, age = working(200)
    assert names(predicted, age) == [] and names(predicted) == []


def test_everybody_the_same_age_is_one_flag_that_says_it():
    ages = np.linspace(50, 80, 30)
    (flag,) = prediction_flags(table(np.full(30, 3.017) + 2e-4 * ALTERNATING[:30], ages), TRAINING)[
        :1
    ]
    assert (flag.name, flag.n_subjects, flag.of_n_subjects) == ("constant", 30, 30)
    assert flag.reason.startswith("All 30 subject(s) are predicted the same age, 3.017 years: ")
    assert "check.html of `-m check`: orientation, space or scale" in flag.reason
    assert flag.is_problem and flag.message == flag.reason
    # 42.2 years below the youngest: a second fact; the others would only repeat the first
    assert names(np.full(30, 3.017), ages) == ["constant", "outside_training_ages"]


@pytest.mark.parametrize(
    "predicted, expected",
    [
        ([60.0], []),
        ([60.0, 60.0005], ["constant"]),
        ([60.0, 60.002], []),
        ([60.0, np.nan, 60.0], ["constant"]),
        (62.0 + 0.99 * np.sqrt(0.9) * ALTERNATING[:10], ["small_spread"]),  # SD 0.99
        (62.0 + 1.01 * np.sqrt(0.9) * ALTERNATING[:10], []),  # SD 1.01
        (62.0 + 0.2 * ALTERNATING[:9], []),  # nine subjects
        ([91.6, 60.0], []),  # 9.9 years above the oldest
        ([91.8, 60.0], ["outside_training_ages"]),
        ([35.1, 60.0], ["outside_training_ages"]),  # 10.1 years below the youngest
    ],
)
def test_limits_by_hand(predicted, expected: list[str]):
    assert names(predicted) == expected


def test_ages_of_150_to_250_are_counted_and_the_farthest_stays_out_of_the_reason():
    (flag,) = prediction_flags(table([60.0, 150.0, 250.25, 70.0]), TRAINING)
    assert (flag.n_subjects, flag.of_n_subjects) == (2, 4) and flag.is_problem
    assert flag.farthest_years == pytest.approx(250.25 - 81.7)
    assert "2 subject(s) of 4 are predicted more than 10 years outside" in flag.reason
    assert "(45 to 82 years)" in flag.reason  # not the youngest's and oldest's exact ages
    assert "169" not in flag.reason and flag.message.endswith("The farthest is 169 years outside.")
    assert json.loads(json.dumps(flag.to_dict()))["name"] == "outside_training_ages"


def test_one_subject_in_twenty_is_an_outlier_and_more_are_a_problem():
    predicted, _ = working(40)
    predicted[:2] = 120.0
    assert [flag.is_problem for flag in prediction_flags(table(predicted), TRAINING)] == [False]
    predicted[:3] = 120.0
    assert [flag.is_problem for flag in prediction_flags(table(predicted), TRAINING)] == [True]


def test_infinity_is_far_outside_and_spoils_no_other_check():
    predicted, age = working(60)
    predicted[7] = np.inf
    assert names(predicted, age) == ["outside_training_ages"]


def test_narrow_training_ages_have_their_own_small_spread():
    infants = {"sd_years": 0.4, "min_years": 0.0, "max_years": 1.5}
    assert names(0.7 + 0.3 * ALTERNATING, training=infants) == []
    assert names(0.7 + 0.05 * ALTERNATING, training=infants) == ["small_spread"]


def test_no_correlation_by_hand_and_by_scipy():
    age = np.linspace(50, 80, 40)
    predicted = 63 + 5 * ALTERNATING[:40]
    flag = no_correlation(predicted, age, 7.5)
    r = stats.pearsonr(predicted, age).statistic
    low, high = np.tanh(np.arctanh(r) + np.array([-1, 1]) * 1.959964 / np.sqrt(37))
    assert f"r {r:.2f}, 95 % interval {low:.2f} to {high:.2f}" in flag.reason
    assert "even a poor network reaches about 0.50" in flag.reason  # ages as wide as in training
    assert "subject ids of table and folders" in flag.reason
    assert flag.n_subjects == 40


def test_a_negative_correlation_is_none_of_a_working_network():
    predicted, age = working(50)
    assert names(126 - predicted, age) == ["no_correlation"]


def test_too_few_too_narrow_or_unknown_ages_say_nothing():
    predicted, age = working(50)
    wrong = 126 - predicted
    assert names(wrong[:19], age[:19]) == []
    assert names(wrong, 60 + age / 40) == []  # SD about 0.3 years
    assert names(wrong, np.where(np.arange(50) < 19, age, np.nan)) == []
    assert names(wrong) == []


@pytest.mark.parametrize("n, low, high", [(20, 45, 82), (25, 60, 68), (60, 60, 68), (400, 60, 68)])
def test_a_poor_but_working_network_is_rarely_flagged(n: int, low: float, high: float):
    """At most 2.5 % of samples, small and narrow ones as well; a useless network is found in wide samples."""
    error_sd = 0.8 * TRAINING["sd_years"] * np.sqrt(1 / POOR_R**2 - 1)
    false = sum(
        no_correlation(*working(n, low, high, seed, error_sd), TRAINING["sd_years"]) is not None
        for seed in range(400)
    )
    assert false <= 18  # 10 expected at most, SD 3.1


def test_a_useless_network_is_found():
    found = 0
    for seed in range(100):
        predicted, age = working(72, seed=seed)
        shuffled = np.random.default_rng(seed + 1000).permutation(predicted)
        found += names(shuffled, age) == ["no_correlation"]
    assert found > 90


def test_restricted_r_is_what_a_narrow_sample_of_a_wide_one_has():
    draw = np.random.default_rng(3)
    age = draw.normal(63, 7.5, 400_000)
    predicted = age + draw.normal(0, 7.5 * np.sqrt(1 / 0.6**2 - 1), age.size)
    narrow = np.abs(age - 63) < 4
    wide_r, narrow_r = (np.corrcoef(predicted[k], age[k])[0, 1] for k in (slice(None), narrow))
    assert wide_r == pytest.approx(0.6, abs=0.005)
    assert restricted_r(0.6, age[narrow].std(), 7.5) == pytest.approx(narrow_r, abs=0.005)
    assert restricted_r(0.6, 20.0, 7.5) == pytest.approx(0.6)
    assert np.isnan(restricted_r(0.6, 5.0, 0.0))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    slope=st.sampled_from([-1.0, 0.0, 0.02, 0.8]),
    shift_years=st.integers(-40, 40),
    n=st.integers(2, 60),
)
def test_neither_the_order_nor_a_common_shift_matters(seed, slope, shift_years, n):
    draw = np.random.default_rng(seed)
    age = draw.uniform(45, 82, n)
    predicted = 63 + slope * (age - 63) + draw.normal(0, draw.choice([0.0, 0.3, 6.0]), n)
    flags = prediction_flags(table(predicted, age), TRAINING)
    order = draw.permutation(n)
    shifted = TRAINING | {key: TRAINING[key] + shift_years for key in ("min_years", "max_years")}
    again = prediction_flags(
        table(predicted[order] + shift_years, age[order] + shift_years), shifted
    )
    found, found_again = ([(f.name, f.n_subjects, f.is_problem) for f in x] for x in (flags, again))
    assert found == found_again


def test_nobody_and_failed_subjects_have_no_flags():
    assert names([]) == [] and names([np.nan, np.nan]) == []
    failed = table([60.0, 60.0, 300.0], status="failed")
    assert prediction_flags(failed, TRAINING) == []
    assert with_notes(failed, TRAINING)["note"].tolist() == ["", "", ""]


def test_notes_stand_at_the_subjects_and_join_what_was_there():
    predictions = table([60.0, 95.0, 250.0, np.nan, 20.0])
    predictions["note"] = ["no age", "", "no age", "no such file", None]
    predictions["status"] = ["ok", "ok", "ok", "failed", "ok"]
    noted = with_notes(predictions, TRAINING)
    assert noted["note"].tolist() == [
        "no age", NOTE_OUTSIDE, f"no age; {NOTE_OUTSIDE}", "no such file", NOTE_OUTSIDE,
    ]  # fmt: skip
    assert NOTE_OUTSIDE == "predicted more than 10 y outside the training ages"
    assert predictions["note"].tolist()[1] == ""
    distance = years_outside(np.array([60.0, 95.0, np.nan, 20.0]), TRAINING)
    assert np.allclose(distance, [0.0, 13.3, np.nan, 25.2], equal_nan=True)


def test_a_table_without_its_columns_is_refused():
    with pytest.raises(ValueError, match=r"predictions or training ages lack age_years, sd_years"):
        prediction_flags(
            table([60.0]).drop(columns="age_years"), {"min_years": 45.0, "max_years": 80.0}
        )
