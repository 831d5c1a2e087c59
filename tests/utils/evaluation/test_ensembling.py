"""Combination of contrasts and its bias correction by pattern of missing contrasts."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.evaluation.deltas import InSampleCorrection
from utils.evaluation.ensembling import ContrastCombination, patterns_of
from utils.evaluation.pattern_deltas import PatternedBiasCorrection

CONTRASTS = ("T1", "T2", "FA", "MD")


def cohort(n=600, seed=0, noise=(2.0, 4.0, 5.0, 6.0), missing=0.0):
    rng = np.random.default_rng(seed)
    age = rng.uniform(45, 82, n)
    shared = rng.normal(0, 1.5, n)
    columns = [
        63 + (1 - s / 12) * (age - 63 + shared) + rng.normal(0, s, n) * (1 - s / 12) for s in noise
    ]
    predicted = np.column_stack(columns)
    predicted[rng.random(predicted.shape) < missing] = np.nan
    return predicted, age, [f"s{seed}_{k}" for k in range(n)]


def fitted(method="ridge", **options):
    predicted, age, ids = cohort(**options)
    return ContrastCombination(CONTRASTS[: predicted.shape[1]], method).fit(
        predicted, age, ids, np.random.default_rng(7)
    )


def test_without_penalty_it_is_least_squares(monkeypatch):
    monkeypatch.setattr("utils.evaluation.ensembling.PENALTIES", (0.0,))
    predicted, age, _ = cohort()
    combination = fitted()
    x = np.column_stack([np.ones(len(age)), predicted])
    expected = x @ np.linalg.lstsq(x, age, rcond=None)[0]
    np.testing.assert_allclose(combination.apply(predicted).predicted_years, expected, rtol=1e-10)


def test_weights_of_a_pattern_are_those_of_refitting_without_the_missing_contrasts():
    predicted, age, _ = cohort()
    combination = fitted()
    for keep in ([0, 2], [1], [0, 1, 3]):
        present = np.isin(np.arange(4), keep)
        s = predicted[:, keep] - predicted[:, keep].mean(axis=0)
        a = age - age.mean()
        covariance = s.T @ s
        w = np.linalg.solve(
            covariance + combination.penalty_ * np.diag(np.diag(covariance)), s.T @ a
        )
        new = cohort(seed=1)[0]
        expected = age.mean() + (new[:, keep] - predicted[:, keep].mean(axis=0)) @ w
        out = combination.apply(np.where(present, new, np.nan))
        np.testing.assert_allclose(out.predicted_years, expected, rtol=1e-12)
        pattern = "".join("1" if p else "0" for p in present)
        assert set(out.patterns) == {pattern}
        assert list(combination.weights(pattern).values()) == pytest.approx(list(w))


def test_ridge_is_more_accurate_than_the_best_contrast_and_the_mean():
    new, age, _ = cohort(4000, seed=1)
    mae = np.abs(fitted().apply(new).predicted_years - age).mean()
    assert mae < np.abs(new - age[:, None]).mean(axis=0).min()
    assert mae < np.abs(fitted("mean").apply(new).predicted_years - age).mean()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_identical_predictors_combine_to_the_predictor(seed):
    predicted, age, ids = cohort(80, seed, noise=(2.0,))
    same = np.repeat(predicted, 3, axis=1)
    mean = ContrastCombination(["a", "b", "c"], "mean").fit(
        same, age, ids, np.random.default_rng(0)
    )
    np.testing.assert_allclose(mean.apply(same).predicted_years, predicted[:, 0], rtol=1e-14)
    ridge = ContrastCombination(["a", "b", "c"]).fit(same, age, ids, np.random.default_rng(0))
    combined = ridge.apply(same).predicted_years
    assert np.corrcoef(combined, predicted[:, 0])[0, 1] == pytest.approx(1.0)
    weights = list(ridge.weights().values())
    assert weights == pytest.approx([weights[0]] * 3)


def test_the_order_of_contrasts_and_subjects_does_not_matter():
    predicted, age, ids = cohort()
    new = cohort(seed=1, missing=0.2)[0]
    expected = fitted().apply(new).predicted_years
    order = [2, 0, 3, 1]
    turned = ContrastCombination([CONTRASTS[i] for i in order]).fit(
        predicted[:, order], age, ids, np.random.default_rng(7)
    )
    np.testing.assert_allclose(turned.apply(new[:, order]).predicted_years, expected, rtol=1e-10)
    assert turned.record_["fit_subjects_sha256"] == fitted().record_["fit_subjects_sha256"]


def test_mean_of_the_contrasts_that_are_present():
    out = fitted("mean").apply([[60.0, np.nan, 62.0, np.nan], [np.nan] * 4])
    assert out.predicted_years[0] == 61.0 and np.isnan(out.predicted_years[1])
    assert out.patterns.tolist() == ["1010", "0000"]


def test_incomplete_validation_subjects_are_left_out_and_counted():
    predicted, _, ids = cohort(missing=0.1)
    complete = np.isfinite(predicted).all(axis=1)
    record = fitted(missing=0.1).to_dict()
    assert record["n_fit"] == complete.sum() and record["n_left_out"] == len(ids) - complete.sum()


@pytest.mark.parametrize(("n", "missing"), [(19, 0.0), (100, 0.5)])
def test_too_few_to_fit_becomes_the_mean_and_says_why(n, missing):
    combination = fitted(n=n, missing=missing)
    record = combination.to_dict()
    assert record["method"] == "mean" and record["method_requested"] == "ridge"
    assert f"there are {record['n_fit']}: the plain mean is used" in record["reason"]
    assert combination.apply([[60.0, 62.0, 64.0, 66.0]]).predicted_years[0] == 63.0
    assert fitted().to_dict()["reason"] == ""


def test_a_contrast_without_variance_has_no_weight():
    predicted, age, ids = cohort()
    predicted[:, 1] = 63.0
    combination = ContrastCombination(CONTRASTS).fit(predicted, age, ids, np.random.default_rng(7))
    assert combination.weights()["T2"] == 0.0
    assert np.isfinite(combination.apply(predicted).predicted_years).all()


def test_written_and_read_it_applies_to_the_same_bits():
    new = cohort(seed=1, missing=0.3)[0]
    for method in ("ridge", "mean"):
        combination = fitted(method)
        again = ContrastCombination.from_dict(json.loads(json.dumps(combination.to_dict())))
        np.testing.assert_array_equal(
            again.apply(new).predicted_years, combination.apply(new).predicted_years
        )
        assert again.to_dict() == combination.to_dict()


def test_the_same_folds_choose_the_same_penalty():
    assert fitted().to_dict() == fitted().to_dict()
    record = fitted().to_dict()
    errors = record["cross_validated_mse_years2"]
    assert min(errors, key=errors.get) == str(record["penalty"])


def test_misuse_is_named():
    with pytest.raises(ValueError, match="method is one of ridge, mean, not 'lasso'"):
        ContrastCombination(["a"], "lasso")
    with pytest.raises(ValueError, match="named once each"):
        ContrastCombination(["a", "a"])
    with pytest.raises(ValueError, match="before it was fitted"):
        ContrastCombination(["a"]).apply([[1.0]])
    with pytest.raises(ValueError, match="predictions of 4 contrasts are needed as columns"):
        fitted().apply([[1.0, 2.0]])


def corrected(method="subtract", n=600, missing=0.15):
    validation, test = cohort(n, 0, missing=missing), cohort(4000, 1, missing=missing)
    combination = ContrastCombination(CONTRASTS).fit(*validation, np.random.default_rng(7))
    patterns = patterns_of(test[0])
    correction = PatternedBiasCorrection(combination, method).fit(*validation, patterns)
    return correction, correction.correct(*test), test, patterns


def test_each_pattern_has_its_own_slope_and_no_bias_is_left():
    correction, out, (_, age, _), patterns = corrected()
    slope = {p: c.coefficients_["beta"] for p, c in correction.corrections_.items()}
    assert slope["1111"] > slope["0010"] + 0.1
    for pattern in ("1111", "0111", "1011"):
        rows = patterns == pattern
        assert abs(np.corrcoef(out.corrected_delta_years[rows], age[rows])[0, 1]) < 4 / np.sqrt(
            rows.sum()
        )
    entry = out.record["patterns"]["1111"]
    assert entry["n"] == (patterns == "1111").sum() and entry["in_sample"] is False
    assert np.isnan(out.corrected_delta_years[patterns == "0000"]).all()


def test_subjects_with_more_contrasts_help_to_fit_a_pattern():
    correction, *_ = corrected()
    predicted = cohort(missing=0.15)[0]
    n = np.isfinite(predicted[:, [0, 2]]).all(axis=1).sum()
    assert correction.corrections_["1010"].coefficients_["n_fit"] == n


def test_a_refused_pattern_gives_no_delta_and_the_reason():
    _, out, _, _ = corrected(n=60, missing=0.3)
    refused = {p: e["refused"] for p, e in out.record["patterns"].items() if "refused" in e}
    assert "at least 50 are needed" in refused["1111"]
    assert refused["0000"] == "no contrast is present"


def test_patterns_refuse_subjects_of_the_fit():
    validation = cohort()
    combination = ContrastCombination(CONTRASTS).fit(*validation, np.random.default_rng(7))
    correction = PatternedBiasCorrection(combination).fit(*validation, ["1111"])
    with pytest.raises(InSampleCorrection):
        correction.correct(*validation)
    out = correction.correct(*validation, allow_in_sample=True)
    assert out.record["in_sample"] is True
    assert abs(out.corrected_delta_years.mean()) < 1e-10
