"""Bootstrap intervals of the weights, and the table of weights."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from utils.evaluation.combination_weights import WEIGHTS, Tuning
from utils.evaluation.ensembling import ContrastCombination
from utils.evaluation.incomplete_moments import moments_of
from utils.evaluation.weight_intervals import RESAMPLES_INCOMPLETE, bootstrap_weights

NAMES = ("A", "B", "C")


def cohort(n=150, seed=0, missing=0.0):
    rng = np.random.default_rng(seed)
    age = rng.uniform(45, 82, n)
    predicted = age[:, None] + rng.normal(0, 1, (n, 3)) * [2.0, 3.0, 5.0]
    predicted[rng.random(predicted.shape) < missing] = np.nan
    predicted[~np.isfinite(predicted).any(axis=1), 0] = 63.0
    return predicted, age, [f"s{k:03d}" for k in range(n)]


def combined(method="ridge", n_resamples=200, **options):
    data = cohort(**options)
    combination = ContrastCombination(NAMES, method).fit(*data, np.random.default_rng(1))
    return combination.estimate_intervals(*data, np.random.default_rng(2), n_resamples)


def test_a_resample_is_a_refit_on_subjects_drawn_again():
    predicted, age, _ = cohort()
    joint = np.column_stack([predicted, age])
    drawn = bootstrap_weights(
        "ridge", joint, moments_of(joint), Tuning(0.0), np.random.default_rng(5), 10
    )
    counts = np.random.default_rng(5).multinomial(150, np.full(150, 1 / 150), size=10)
    for weights, count in zip(drawn, counts):
        rows = np.repeat(np.arange(150), count)
        expected = LinearRegression().fit(predicted[rows], age[rows]).coef_
        np.testing.assert_allclose(weights, expected, rtol=1e-9)


def test_intervals_are_those_of_the_theory_of_least_squares():
    predicted, age, ids = cohort(2000)
    combination = ContrastCombination(NAMES).fit(predicted, age, ids, np.random.default_rng(1))
    combination.estimate_intervals(predicted, age, ids, np.random.default_rng(2), 1000)
    x = np.column_stack([np.ones(2000), predicted])
    residual = age - x @ np.linalg.lstsq(x, age, rcond=None)[0]
    se = np.sqrt(np.diag(np.linalg.inv(x.T @ x)) * (residual @ residual) / 1996)[1:]
    table = combination.weights_table()
    np.testing.assert_allclose((table["high"] - table["low"]) / 3.92, se, rtol=0.12)


@pytest.mark.parametrize("method", [m for m in WEIGHTS if m != "mean"])
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_the_table_has_the_weight_within_its_interval(method, missing):
    table = combined(method, missing=missing).weights_table()
    assert list(table.columns) == ["contrast", "weight", "low", "high", "n", "method", "note"]
    assert table["contrast"].tolist() == list(NAMES) and (table["method"] == method).all()
    assert (table["low"] <= table["weight"]).all() and (table["weight"] <= table["high"]).all()
    assert (table["high"] - table["low"] > 0.01).all() and (table["note"] == "").all()
    assert (table["n"] == 150).all() == (missing == 0.0)


def test_intervals_hold_the_true_weight_as_often_as_they_say():
    """Weights of uncorrelated errors are known: inverse variances."""
    truth = np.array([1 / 4, 1 / 9, 1 / 25]) / (1 / 4 + 1 / 9 + 1 / 25)
    held = []
    for seed in range(60):
        table = combined("inverse_variance", 200, seed=seed).weights_table()
        held.append((table["low"] <= truth) & (truth <= table["high"]))
    assert 0.86 < np.mean(held) <= 1.0


def test_the_mean_has_no_uncertain_weights():
    table = combined("mean").weights_table()
    assert (table["low"] == 1 / 3).all() and (table["high"] == 1 / 3).all()


def test_incomplete_subjects_get_fewer_resamples_and_the_record_says_so():
    assert combined(n_resamples=300).to_dict()["n_resamples"] == 300
    record = combined(n_resamples=300, missing=0.2).to_dict()
    assert record["n_resamples"] == RESAMPLES_INCOMPLETE


def test_without_resamples_there_are_no_intervals():
    table = combined(n_resamples=0).weights_table()
    assert table["low"].isna().all() and table["weight"].notna().all()


def test_a_contrast_that_is_not_used_has_weight_zero_no_interval_and_a_note():
    predicted, age, ids = cohort()
    predicted[5:, 1] = np.nan
    combination = ContrastCombination(NAMES).fit(predicted, age, ids, np.random.default_rng(1))
    combination.estimate_intervals(predicted, age, ids, np.random.default_rng(2), 50)
    row = combination.weights_table().iloc[1]
    assert row["weight"] == 0.0 and np.isnan(row["low"]) and row["n"] == 5
    assert row["note"] == "5 validation subjects, ridge needs 20: not used"
