"""Corrections of a combination fitted on predictions by weights that had not seen the subject."""

import numpy as np
import pytest

from utils.evaluation.contrast_patterns import CombinedPredictions, patterns_of
from utils.evaluation.cross_fitting import predict_without_self
from utils.evaluation.deltas import InSampleCorrection
from utils.evaluation.ensembling import ContrastCombination
from utils.evaluation.folded_combination import FoldedCombination
from utils.evaluation.pattern_deltas import PatternedBiasCorrection

AGE_SD = 37 / np.sqrt(12)


def cohort(n, n_contrasts, seed, noise=8.0, missing=0.0):
    """Calibrated predictors of equal noise (years, before shrinking) with a delta in common."""
    rng = np.random.default_rng(seed)
    age, shared = rng.uniform(45, 82, n), rng.normal(0, 1.5, n)
    own = rng.normal(0, noise, (n, n_contrasts))
    shrink = AGE_SD**2 / (AGE_SD**2 + noise**2)
    predicted = 63.5 + shrink * (age[:, None] - 63.5 + shared[:, None] + own)
    predicted[rng.random(predicted.shape) < missing] = np.nan
    return predicted, age, [f"s{seed}_{k}" for k in range(n)]


def fitted(cohort_, seed=0, method="ridge"):
    names = [f"c{k}" for k in range(cohort_[0].shape[1])]
    return ContrastCombination(names, method).fit(*cohort_, np.random.default_rng(seed))


def line(predicted, age):
    """Slope, and SD about the line."""
    slope, intercept = np.polyfit(age, predicted, 1)
    left = predicted - intercept - slope * age
    return slope, np.sqrt(left @ left / (age.size - 2))


def test_shifts_between_folds_are_taken_out():
    """Folds whose weights are those of all, but whose level is not: the combination itself comes out."""
    predicted, age, ids = cohort(60, 3, 0)
    combination = fitted((predicted, age, ids))

    def moved(years):
        return lambda p: CombinedPredictions(
            combination.apply(p).predicted_years + years, patterns_of(p)
        )

    folded = FoldedCombination(tuple(map(moved, (-2.0, 0.0, 5.0))), np.arange(60) % 3)
    out = predict_without_self(combination, folded, predicted)
    np.testing.assert_allclose(out, combination.apply(predicted).predicted_years, rtol=1e-12)


def test_subjects_outside_a_pattern_are_left_out():
    validation = cohort(200, 3, 0)
    combination = fitted(validation)
    folded = combination.out_of_fold(*validation, np.random.default_rng(1))
    masked = np.where(np.array([True, False, True]), validation[0], np.nan)
    masked[:50] = np.nan
    out = predict_without_self(combination, folded, masked)
    assert np.isnan(out[:50]).all() and np.isfinite(out[50:]).all()
    nobody = predict_without_self(combination, folded, np.full_like(masked, np.nan))
    assert np.isnan(nobody).all()


@pytest.mark.parametrize(("n", "n_contrasts"), [(100, 12), (100, 4)])
def test_slope_and_spread_are_those_of_new_subjects(n, n_contrasts):
    """On its own subjects the spread of a combination is too small and its slope too steep; across folds neither is."""
    error, ratio = {"seen": [], "unseen": []}, {"seen": [], "unseen": []}
    for seed in range(30):
        validation, new = cohort(n, n_contrasts, seed), cohort(4000, n_contrasts, 1000 + seed)
        combination = fitted(validation, seed)
        folded = combination.out_of_fold(*validation, np.random.default_rng(seed))
        true_slope, true_sd = line(combination.apply(new[0]).predicted_years, new[1])
        for name, predicted in (
            ("seen", combination.apply(validation[0]).predicted_years),
            ("unseen", predict_without_self(combination, folded, validation[0])),
        ):
            slope, sd = line(predicted, validation[1])
            error[name].append(slope - true_slope)
            ratio[name].append(sd / true_sd)
    assert np.mean(ratio["seen"]) < 0.98 and np.mean(ratio["unseen"]) == pytest.approx(
        1.0, abs=0.02
    )
    assert np.mean(error["seen"]) > np.mean(error["unseen"])


def test_every_pattern_is_cross_fitted():
    validation, test = cohort(300, 4, 0, missing=0.15), cohort(2000, 4, 1, missing=0.15)
    combination = fitted(validation)
    folded = combination.out_of_fold(*validation, np.random.default_rng(1))
    patterns = patterns_of(test[0])
    crossed = PatternedBiasCorrection(combination).fit(*validation, patterns, folded)
    plain = PatternedBiasCorrection(combination).fit(*validation, patterns)
    assert crossed.corrections_.keys() == plain.corrections_.keys()
    pairs = [
        (crossed.corrections_[p].coefficients_, plain.corrections_[p].coefficients_)
        for p in crossed.corrections_
        if p.count("1") > 1
    ]
    assert len(pairs) > 5
    assert all(a["residual_sd_years"] != b["residual_sd_years"] for a, b in pairs)
    assert all(a["fit_subjects_sha256"] == b["fit_subjects_sha256"] for a, b in pairs)
    out = crossed.correct(*test)
    assert out.record["cross_fitted"] is True and not out.record["in_sample"]
    assert plain.correct(*test).record["cross_fitted"] is False
    for pattern in ("1111", "0111", "1010"):
        assert np.std(out.delta_z[patterns == pattern]) == pytest.approx(1.0, abs=0.15)


def scattered(method="subtract", n=200, n_contrasts=25, missing=0.3):
    """So many contrasts missing here and there that hardly two subjects have the same."""
    validation = cohort(n, n_contrasts, 0, missing=missing)
    test = cohort(1000, n_contrasts, 1, missing=missing)
    patterns = patterns_of(test[0])
    correction = PatternedBiasCorrection(fitted(validation), method).fit(*validation, patterns)
    return correction, correction.correct(*test), test, patterns


@pytest.mark.parametrize("method", ["subtract", "divide"])
def test_patterns_that_hardly_anybody_has_get_their_line_from_the_moments(method):
    correction, out, (_, age, _), patterns = scattered(method)
    assert np.unique(patterns).size > 990 and np.isfinite(out.corrected_delta_years).all()
    assert out.record["n_of_moment_lines"] == 1000
    slope, sd = line(out.delta_z, age)
    assert abs(slope * AGE_SD) < 0.15 and sd == pytest.approx(1.0, abs=0.1)
    assert abs(np.mean(out.delta_z)) < 0.15
    assert all("line from the moments" in note for note in out.notes)
    pattern = str(patterns[0])
    c, expected = correction.corrections_[pattern].to_dict(), correction.combination.line(pattern)
    assert (c["alpha_years"], c["beta"]) == (expected.alpha_years, expected.beta)
    assert c["n_fit"] == 200 and c["beta_low"] < c["beta"] < c["beta_high"]


def test_those_whose_moments_a_line_came_from_are_in_sample():
    validation = cohort(200, 25, 0, missing=0.3)
    correction = PatternedBiasCorrection(fitted(validation))
    correction.fit(*validation, patterns_of(validation[0]))
    with pytest.raises(InSampleCorrection):
        correction.correct(*validation)
    assert correction.correct(*validation, allow_in_sample=True).in_sample.all()


@pytest.mark.parametrize(
    ("method", "n"), [("quadratic", 200), ("age_level", 200), ("subtract", 70)]
)
def test_no_curve_and_no_line_of_few_pairs_comes_from_the_moments(method, n):
    _, out, _, _ = scattered(method, n)
    assert not np.isfinite(out.corrected_delta_years).any()
    assert all("at least 50 are needed" in note for note in out.notes)
