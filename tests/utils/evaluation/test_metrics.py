"""Accuracy: other programs' numbers, coverage of its intervals, and what is not known with few subjects."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from utils.evaluation.metrics import (
    accuracy,
    correlation,
    ensemble_gain,
    null_mae,
    paired_mae_difference,
)


def cohort(n=300, seed=0, sd=4.0):
    rng = np.random.default_rng(seed)
    age = rng.uniform(45, 82, n)
    return age + rng.normal(0, sd, n), age


def rng():
    return np.random.default_rng(1)


def test_values_by_hand_and_by_scipy():
    out = accuracy([51.0, 58.0, 73.0], [50.0, 60.0, 70.0], rng())
    assert out["mae_years"]["value"] == pytest.approx(2.0)
    assert out["rmse_years"]["value"] == pytest.approx(np.sqrt(14 / 3))
    assert out["r2"]["value"] == pytest.approx(1 - 14 / 200)
    assert out["r"]["value"] == pytest.approx(stats.pearsonr([51, 58, 73], [50, 60, 70]).statistic)
    assert all(out[m]["low"] is None and out[m]["high"] is None for m in out)


def test_intervals_agree_with_scipys_bootstrap():
    predicted, age = cohort()
    ours = accuracy(predicted, age, rng(), 5000)

    def r2(p, a):
        return 1 - np.sum((p - a) ** 2) / np.sum((a - a.mean()) ** 2)

    for measure, statistic, tolerance in (
        ("mae_years", lambda p, a: np.mean(np.abs(p - a)), 0.03),
        ("rmse_years", lambda p, a: np.sqrt(np.mean((p - a) ** 2)), 0.03),
        ("r", lambda p, a: np.corrcoef(p, a)[0, 1], 0.003),
        ("r2", r2, 0.01),
    ):
        theirs = stats.bootstrap(
            (predicted, age), statistic, paired=True, vectorized=False, n_resamples=2000,
            method="percentile", rng=np.random.default_rng(2),
        ).confidence_interval  # fmt: skip
        np.testing.assert_allclose(
            (ours[measure]["low"], ours[measure]["high"]), theirs, atol=tolerance
        )
        assert ours[measure]["low"] < ours[measure]["value"] < ours[measure]["high"]


def test_the_same_generator_gives_the_same_numbers_and_blocks_do_not_matter(monkeypatch):
    predicted, age = cohort()
    expected = accuracy(predicted, age, rng())
    assert accuracy(predicted, age, rng()) == expected
    monkeypatch.setattr("utils.evaluation.metrics.BLOCK_ELEMENTS", 1000)
    for measure, interval in accuracy(predicted, age, rng()).items():
        assert interval == pytest.approx(expected[measure])


def test_failed_subjects_are_left_out():
    predicted, age = cohort()
    gaps = np.r_[predicted, np.nan], np.r_[age, 60.0]
    assert accuracy(*gaps, rng()) == accuracy(predicted, age, rng())


def test_what_cannot_be_known_is_none():
    assert accuracy([], [], rng())["mae_years"] == {"value": None, "low": None, "high": None}
    assert accuracy([51.0, 60.0], [50.0, 60.0], rng())["r"]["value"] is None
    constant = accuracy(np.full(50, 63.0), cohort(50)[1], rng())
    assert constant["r"] == {"value": None, "low": None, "high": None}
    assert constant["r2"]["value"] <= 0 and constant["mae_years"]["low"] is not None
    same_age = accuracy(cohort(50)[0], np.full(50, 63.1), rng())
    assert same_age["r2"]["value"] is None and same_age["r"]["value"] is None
    with pytest.raises(ValueError, match="one value a subject is needed"):
        accuracy([1.0], [1.0, 2.0], rng())


def test_predicting_the_mean_has_r2_zero_and_the_null_mae():
    age = cohort()[1]
    out = accuracy(np.full(age.size, age.mean()), age, rng())
    assert out["r2"]["value"] == pytest.approx(0.0, abs=1e-12)
    assert null_mae(age, age.mean()) == out["mae_years"]["value"]
    assert null_mae([], 60.0) is None
    assert null_mae([50.0, 70.0, np.nan], 60.0) == 10.0


def test_gain_of_an_ensemble():
    age = cohort()[1]
    errors = np.random.default_rng(3).normal(0, 4, (300, 3))
    gain = ensemble_gain(age[:, None] + errors, age)
    expected = np.abs(errors).mean(axis=0) - np.abs(errors.mean(axis=1)).mean()
    assert gain["gain_over_average_network_years"] == pytest.approx(expected.mean())
    assert gain["gain_over_best_network_years"] == pytest.approx(expected.min())
    assert ensemble_gain(np.full((3, 2), np.nan), [1.0, 2.0, 3.0]) == {
        "gain_over_average_network_years": None,
        "gain_over_best_network_years": None,
    }


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000))
def test_an_ensemble_never_loses_to_its_average_member_and_equals_identical_ones(seed):
    predicted, age = cohort(40, seed)
    networks = predicted[:, None] + np.random.default_rng(seed).normal(size=(40, 3))
    assert ensemble_gain(networks, age)["gain_over_average_network_years"] >= -1e-12
    identical = ensemble_gain(np.repeat(predicted[:, None], 3, axis=1), age)
    assert identical == pytest.approx(dict.fromkeys(identical, 0.0), abs=1e-12)


def test_paired_difference_is_far_sharper_than_two_intervals():
    predicted, age = cohort()
    better = age + 0.9 * (predicted - age)
    out = paired_mae_difference(better, predicted, age, rng())
    mae = accuracy(predicted, age, rng())["mae_years"]
    assert out["value"] == pytest.approx(-0.1 * mae["value"])
    assert out["high"] < 0 and out["n"] == 300
    assert out["high"] - out["low"] < 0.2 * (mae["high"] - mae["low"])
    few = paired_mae_difference(better[:5], predicted[:5], age[:5], rng())
    assert few["value"] < 0 and few["low"] is None
    assert paired_mae_difference([], [], [], rng())["value"] is None


def test_intervals_cover_the_truth():
    """95 % intervals of the MAE over 300 cohorts of 100: about 95 % hold the true MAE, sd sqrt(2/pi)."""
    truth, inside = 4 * np.sqrt(2 / np.pi), 0
    for seed in range(300):
        mae = accuracy(*cohort(100, seed), np.random.default_rng(seed), 400)["mae_years"]
        inside += mae["low"] <= truth <= mae["high"]
    assert 0.89 < inside / 300 < 0.985


def test_correlation_with_its_interval():
    predicted, age = cohort()
    expected = stats.pearsonr(predicted - age, age)
    out = correlation(predicted - age, age)
    assert out["value"] == pytest.approx(expected.statistic)
    assert (out["low"], out["high"]) == pytest.approx(tuple(expected.confidence_interval()))
    assert correlation([1.0, 2.0], [1.0, 2.0])["value"] is None
    assert correlation(np.ones(20), np.arange(20.0))["value"] is None
    assert correlation(np.arange(5.0), np.arange(5.0)) == {
        "value": pytest.approx(1.0),
        "low": None,
        "high": None,
    }


def test_large_samples_take_less_than_a_few_seconds():
    predicted, age = cohort(5000)
    start = time.perf_counter()
    accuracy(predicted, age, rng())
    assert time.perf_counter() - start < 5.0
