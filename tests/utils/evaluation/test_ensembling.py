"""Combination of contrasts and its bias correction by pattern of missing contrasts."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.evaluation.deltas import InSampleCorrection
from utils.evaluation.ensembling import METHODS, ContrastCombination, patterns_of
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
    monkeypatch.setattr("utils.evaluation.tuning_selection.RIDGE_PENALTIES", (0.0,))
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


def test_incomplete_validation_subjects_are_used_and_counted():
    predicted, age, ids = cohort(missing=0.1)
    age[:5] = np.nan
    predicted[7] = np.nan
    combination = ContrastCombination(CONTRASTS).fit(predicted, age, ids, np.random.default_rng(7))
    record = combination.to_dict()
    there = np.isfinite(predicted) & np.isfinite(age)[:, None]
    assert record["n_fit"] == there.any(axis=1).sum() and record["n_left_out"] >= 6
    assert record["n_complete"] == there.all(axis=1).sum()
    assert list(record["n_by_contrast"].values()) == there.sum(axis=0).tolist()
    assert record["em_converged"] and record["em_iterations"] > 3


def test_weights_of_incomplete_validation_subjects_are_near_those_of_complete_ones():
    complete, incomplete = fitted(n=4000), fitted(n=4000, missing=0.3)
    for pattern in ("1111", "0110", "1001"):
        expected = list(complete.weights(pattern).values())
        np.testing.assert_allclose(list(incomplete.weights(pattern).values()), expected, atol=0.06)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "mean"])
def test_too_few_to_fit_becomes_the_mean_and_says_why(method):
    combination = fitted(method, n=19)
    record = combination.to_dict()
    assert record["method"] == "mean" and record["method_requested"] == method
    assert f"{method} needs at least 20 validation subjects" in record["reason"]
    assert "there are 19: the plain mean is used" in record["reason"]
    assert combination.apply([[60.0, 62.0, 64.0, 66.0]]).predicted_years[0] == 63.0
    assert fitted(method).to_dict()["reason"] == ""


def test_subjects_of_one_age_or_contrasts_without_spread_become_the_mean():
    predicted, age, ids = cohort(100)
    same_age = ContrastCombination(CONTRASTS).fit(
        predicted, np.full(100, 60.0), ids, np.random.default_rng(7)
    )
    assert "all 100 have the same age: the plain mean is used" in same_age.reason_
    with pytest.raises(ValueError, match="the same age: no slope"):
        same_age.line()
    flat = ContrastCombination(CONTRASTS).fit(
        np.full((100, 4), 60.0), age, ids, np.random.default_rng(7)
    )
    assert "every contrast that has them predicts the same for all" in flat.reason_


@pytest.mark.parametrize("method", METHODS)
def test_a_contrast_of_too_few_subjects_is_not_used_and_the_others_are(method):
    predicted, age, ids = cohort(missing=0.1)
    predicted[12:, 1] = np.nan
    combination = ContrastCombination(CONTRASTS, method).fit(
        predicted, age, ids, np.random.default_rng(7)
    )
    new = cohort(seed=1)[0]
    out = combination.apply(new)
    if method == "mean":  # it is not fitted
        assert combination.notes_ == {} and set(out.patterns) == {"1111"}
        return
    n = np.isfinite(predicted[:, 1]).sum()
    assert combination.notes_ == {"T2": f"{n} validation subjects, {method} needs 20: not used"}
    assert combination.weights()["T2"] == 0.0 and set(out.patterns) == {"1011"}
    rest = [0, 2, 3]
    alone = ContrastCombination(["T1", "FA", "MD"], method).fit(
        predicted[:, rest], age, ids, np.random.default_rng(7)
    )
    np.testing.assert_array_equal(out.predicted_years, alone.apply(new[:, rest]).predicted_years)
    only = combination.apply([[np.nan, 60.0, np.nan, np.nan]])
    assert np.isnan(only.predicted_years[0]) and only.patterns[0] == "0000"
    with pytest.raises(ValueError, match="no contrast of the pattern is used"):
        combination.line("0100")


@pytest.mark.parametrize("method", METHODS)
def test_a_pattern_is_the_combination_of_its_columns_alone(method):
    """With penalties and shrinkage held: moments of some columns are some of the moments."""
    predicted, age, ids = cohort()
    combination = fitted(method)
    new = cohort(seed=1)[0]
    for keep in ([0, 2], [1], [0, 1, 3]):
        alone = ContrastCombination([CONTRASTS[c] for c in keep], method).fit(
            predicted[:, keep], age, ids, np.random.default_rng(7)
        )
        record = alone.to_dict() | {
            key: combination.to_dict()[key] for key in ("penalty", "l1_ratio", "shrinkage")
        }
        if method == "gls":  # its target, the average variance, is that of all contrasts
            record["shrinkage"] = 0.0
            combination = ContrastCombination.from_dict(combination.to_dict() | {"shrinkage": 0.0})
        alone = ContrastCombination.from_dict(record)
        masked = np.where(np.isin(np.arange(4), keep), new, np.nan)
        np.testing.assert_allclose(
            combination.apply(masked).predicted_years,
            alone.apply(new[:, keep]).predicted_years,
            rtol=1e-13 if method != "gls" else 1e-10,
        )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pattern", ["1111", "1010", "0001"])
def test_slope_and_scale_of_a_pattern_are_those_fitted_on_its_predictions(method, pattern):
    predicted, age, _ = cohort()
    combination = fitted(method)
    present = np.array([flag == "1" for flag in pattern])
    combined = combination.apply(np.where(present, predicted, np.nan)).predicted_years
    slope, intercept = np.polyfit(age, combined, 1)
    line = combination.line(pattern)
    assert line.beta == pytest.approx(slope, rel=1e-10)
    assert line.alpha_years == pytest.approx(intercept, rel=1e-8)
    residual = combined - intercept - slope * age
    assert line.delta_sd_years == pytest.approx(residual.std(), rel=1e-9)


def test_a_mean_of_few_subjects_has_no_line():
    with pytest.raises(ValueError, match="too few validation subjects for moments"):
        fitted("mean", n=30).line()


@pytest.mark.parametrize("method", ["ridge", "elastic_net"])
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_the_penalty_has_the_smallest_cross_validated_error(method, missing):
    record = fitted(method, missing=missing).to_dict()
    errors = record["cross_validated_mse_years2"]
    assert min(errors, key=errors.get).split()[0] == str(record["penalty"])
    assert fitted(method, missing=missing).to_dict() == record


@pytest.mark.parametrize("method", [m for m in METHODS if m != "mean"])
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_the_order_of_subjects_does_not_matter(method, missing):
    predicted, age, ids = cohort(200, missing=missing)
    order = np.random.default_rng(3).permutation(200)
    first, turned = (
        ContrastCombination(CONTRASTS, method).fit(
            predicted[o], age[o], [ids[i] for i in o], np.random.default_rng(7)
        )
        for o in (np.arange(200), order)
    )
    expected = list(first.weights().values())
    np.testing.assert_allclose(list(turned.weights().values()), expected, atol=1e-6)


@pytest.mark.parametrize("method", ["ridge", "gls"])
def test_out_of_fold_weights_are_those_fitted_without_the_fold(method):
    predicted, age, ids = cohort(90, missing=0.1)
    age[3] = np.nan
    combination = ContrastCombination(CONTRASTS, method).fit(
        predicted, age, ids, np.random.default_rng(7)
    )
    folded = combination.out_of_fold(predicted, age, ids, np.random.default_rng(8), n_folds=3)
    assert sorted(np.bincount(folded.fold)) == [30, 30, 30]
    out = folded.apply(predicted)
    for k in range(3):
        mine = folded.fold == k
        expected = folded.apply_without[k](predicted[mine]).predicted_years
        np.testing.assert_array_equal(out.predicted_years[mine], expected)
    changed = predicted.copy()
    changed[folded.fold == 1] += (
        40.0  # what is predicted for a fold plays no part in its own weights
    )
    other = (
        ContrastCombination(CONTRASTS, method)
        .fit(changed, age, ids, np.random.default_rng(7))
        .out_of_fold(changed, age, ids, np.random.default_rng(8), n_folds=3)
    )
    np.testing.assert_allclose(
        other.apply_without[1](predicted).predicted_years,
        folded.apply_without[1](predicted).predicted_years,
        rtol=1e-12,
    )
    rows = np.arange(10, 20)
    part = folded.apply(predicted[rows], rows=rows)
    np.testing.assert_array_equal(part.predicted_years, out.predicted_years[rows])
    with pytest.raises(ValueError, match="10 rows of predictions for 90 validation subjects"):
        folded.apply(predicted[rows])


def test_the_slope_out_of_fold_is_flatter_than_on_the_subjects_of_the_fit():
    """On average over cohorts, where weights are free (gls): they know the noise of their own subjects."""
    differences = []
    for seed in range(10):
        predicted, age, ids = cohort(60, seed, noise=(4.0,) * 8)
        names = [f"c{k}" for k in range(8)]
        combination = ContrastCombination(names, "gls")
        combination.fit(predicted, age, ids, np.random.default_rng(1))
        folded = combination.out_of_fold(predicted, age, ids, np.random.default_rng(2))
        inside, outside = (c.apply(predicted).predicted_years for c in (combination, folded))
        differences.append(np.polyfit(age, inside, 1)[0] - np.polyfit(age, outside, 1)[0])
    assert np.mean(differences) > 4 * np.std(differences) / np.sqrt(10)


def test_other_subjects_than_those_of_the_fit_are_refused():
    combination = fitted()
    for call in (combination.out_of_fold, combination.estimate_intervals):
        with pytest.raises(ValueError, match="not the subjects that the combination was fitted"):
            call(*cohort(seed=1), np.random.default_rng(0))


def test_a_contrast_without_variance_has_no_weight():
    predicted, age, ids = cohort()
    predicted[:, 1] = 63.0
    combination = ContrastCombination(CONTRASTS).fit(predicted, age, ids, np.random.default_rng(7))
    assert combination.weights()["T2"] == 0.0
    assert np.isfinite(combination.apply(predicted).predicted_years).all()


@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_written_and_read_it_applies_to_the_same_bits(missing):
    new = cohort(seed=1, missing=0.3)[0]
    predicted, age, ids = cohort(missing=missing)
    predicted[:, 3] = np.nan  # nobody has it
    for method in METHODS:
        combination = ContrastCombination(CONTRASTS, method)
        combination.fit(predicted, age, ids, np.random.default_rng(7))
        combination.estimate_intervals(predicted, age, ids, np.random.default_rng(8), 20)
        again = ContrastCombination.from_dict(json.loads(json.dumps(combination.to_dict())))
        np.testing.assert_array_equal(
            again.apply(new).predicted_years, combination.apply(new).predicted_years
        )
        assert again.to_dict() == combination.to_dict()
        assert again.weights_table().equals(combination.weights_table())


@pytest.mark.parametrize("method", ["ridge", "mean"])
def test_records_of_release_0_3_0_are_read(method):
    path = Path(__file__).parents[2] / "reference" / "combination_0_3_0.json"
    reference = json.loads(path.read_text(encoding="utf-8"))
    old = ContrastCombination.from_dict(reference[method]["record"])
    out = old.apply(np.array(reference["new"], dtype=float)).predicted_years
    expected = np.array(reference[method]["predicted_years"], dtype=float)
    np.testing.assert_allclose(out, expected, rtol=1e-13)
    assert old.weights() == pytest.approx(reference[method]["record"]["weights"], rel=1e-12)
    assert old.weights_table()["n"].tolist() == [200] * 3


def test_misuse_is_named():
    with pytest.raises(
        ValueError, match=r"method is one of mean, inverse_variance, .* not 'lasso'"
    ):
        ContrastCombination(["a"], "lasso")
    with pytest.raises(ValueError, match="named once each"):
        ContrastCombination(["a", "a"])
    with pytest.raises(ValueError, match="before it was fitted"):
        ContrastCombination(["a"]).apply([[1.0]])
    with pytest.raises(ValueError, match="before it was fitted"):
        ContrastCombination(["a"]).to_dict()
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
