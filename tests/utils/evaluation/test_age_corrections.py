"""Quadratic and age-level corrections: the published formulae on the fit, the frozen form on others, their refusals."""

import json

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.evaluation.age_level_correction import MINIMUM_N_LEVEL, fit_age_levels
from utils.evaluation.age_line import line_record
from utils.evaluation.deltas import (
    METHODS,
    AgeBiasCorrection,
    CorrectionRefused,
    InSampleCorrection,
)

CURVED = ("quadratic", "age_level")


def cohort(n=400, seed=0, bend=0.0, wave=0.0, ages=(45.0, 82.0)):
    """Predictions with a slope of 0.7, a parabola and a wave over age."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(*ages, n)
    expected = 63 + 0.7 * (age - 63) + bend * (age - 63) ** 2 + wave * np.sin(age / 3)
    return expected + rng.normal(0, 3, n), age, [f"s{seed}_{k}" for k in range(n)]


def smith_2019(predicted, age):
    """delta2q on the subjects themselves, step by step as in the paper."""
    y = age - age.mean()
    d1 = (predicted - age) - (predicted - age).mean()
    squared = y**2 - np.mean(y**2)
    orthogonal = squared - y * (y @ y**2) / (y @ y)
    y2 = np.column_stack([y, orthogonal])
    return d1 - y2 @ (np.linalg.pinv(y2) @ d1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("bend", [0.0, 0.02, -0.1])
def test_on_the_fit_the_quadratic_is_smiths(seed, bend):
    predicted, age, ids = cohort(120, seed, bend)
    fitted = AgeBiasCorrection("quadratic").fit(predicted, age, ids)
    out = fitted.correct(predicted, age, ids, allow_in_sample=True).corrected_delta_years
    np.testing.assert_allclose(out, smith_2019(predicted, age), atol=1e-10)
    for power in (1, 2):
        assert abs(np.corrcoef(out, age**power)[0, 1]) < 1e-9


@pytest.mark.parametrize("bend", [0.0, 0.02])
def test_frozen_it_is_least_squares_on_age_and_its_square(bend):
    fit, (predicted, age, ids) = cohort(300, 0, bend), cohort(500, 1, bend, ages=(48.0, 80.0))
    out = AgeBiasCorrection("quadratic").fit(*fit).correct(predicted, age, ids)
    curve = np.polynomial.Polynomial.fit(fit[1], fit[0], 2)
    np.testing.assert_allclose(out.corrected_delta_years, predicted - curve(age), atol=1e-9)


def test_the_quadratic_does_not_look_at_the_subjects_it_corrects():
    fitted = AgeBiasCorrection("quadratic").fit(*cohort(300, 0, 0.02))
    predicted, age, ids = cohort(200, 1, 0.02, ages=(50.0, 60.0))
    together = fitted.correct(predicted, age, ids).corrected_delta_years
    alone = [
        fitted.correct([p], [a], [i]).corrected_delta_years[0]
        for p, a, i in zip(predicted, age, ids)
    ]
    np.testing.assert_array_equal(together, alone)


def test_quadratic_coefficients_and_intervals_are_those_of_statsmodels():
    predicted, age, ids = cohort(200, 3, 0.02)
    c = AgeBiasCorrection("quadratic").fit(predicted, age, ids).coefficients_
    y = age - age.mean()
    orthogonal = y**2 - c["square_mean_years2"] - c["square_slope_years"] * y
    fit = sm.OLS(predicted - age, np.column_stack([np.ones_like(y), y, orthogonal])).fit()
    names = [
        ("beta0_years", "beta0_low_years", "beta0_high_years"),
        ("beta1", "beta1_low", "beta1_high"),
        ("beta2_per_year", "beta2_low_per_year", "beta2_high_per_year"),
    ]
    for k, (value, low, high) in enumerate(names):
        assert c[value] == pytest.approx(fit.params[k])
        assert [c[low], c[high]] == pytest.approx(list(fit.conf_int()[k]))
    assert c["residual_sd_years"] == pytest.approx(np.sqrt(fit.mse_resid))
    assert c["square_mean_years2"] == pytest.approx(np.mean(y**2))
    assert c["square_slope_years"] == pytest.approx((y @ y**2) / (y @ y))


def test_age_levels_by_hand():
    """Three years of 20, 30 and 25 subjects who all sit at mid-year: the levels are the years."""
    age = np.repeat([50.5, 51.5, 52.5], [20, 30, 25])
    predicted = np.repeat([55.0, 54.0, 57.0], [20, 30, 25]) + np.tile(
        [1.0, -1.0, 0.0, 0.5, -0.5], 15
    )
    c = fit_age_levels(predicted, age)
    assert c["level_ages_years"] == [50.5, 51.5, 52.5] and c["level_counts"] == [20, 30, 25]
    line = c["alpha_years"] + c["beta"] * np.array([50.5, 51.5, 52.5])
    assert np.array(c["level_means_years"]) == pytest.approx(np.array([55.0, 54.0, 57.0]) - line)
    assert c["effective_parameters"] == pytest.approx(3.0)  # three means fit three years exactly
    spread = np.tile([1.0, -1.0, 0.0, 0.5, -0.5], 15)
    assert c["residual_sd_years"] == pytest.approx(np.sqrt(spread @ spread / (75 - 3)))
    fitted = AgeBiasCorrection("age_level").fit(predicted, age, [str(k) for k in range(75)])
    out = fitted.correct([60.0, 60.0], [51.5, 52.0], ["new", "newer"]).corrected_delta_years
    assert out == pytest.approx([60.0 - 54.0, 60.0 - 55.5])  # between two years the mean of both


def test_years_with_few_subjects_share_a_level():
    rng = np.random.default_rng(1)
    age = np.concatenate(
        [rng.uniform(45, 50, 12), rng.uniform(50, 60, 400), rng.uniform(60, 70, 15)]
    )
    c = fit_age_levels(0.7 * age + rng.normal(size=age.size), age)
    assert min(c["level_counts"]) >= MINIMUM_N_LEVEL and sum(c["level_counts"]) == 427
    assert np.all(np.diff(c["level_ages_years"]) > 0)
    assert c["effective_parameters"] <= 2 + len(c["level_counts"])


def test_age_levels_remove_a_course_that_neither_line_nor_parabola_do():
    fit, (predicted, age, ids) = (
        cohort(4000, 0, wave=2.0),
        cohort(4000, 1, wave=2.0, ages=(45.5, 81.5)),
    )
    left = {}
    for method in ("subtract", "quadratic", "age_level"):
        out = AgeBiasCorrection(method).fit(*fit).correct(predicted, age, ids).corrected_delta_years
        left[method] = abs(np.corrcoef(out, np.sin(age / 3))[0, 1])
    assert min(left["subtract"], left["quadratic"]) > 0.35 and left["age_level"] < 0.06


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(METHODS))
def test_adding_a_line_to_all_predictions_changes_nothing(seed, method):
    """What a correction removes may as well have been added before; the divided one is scaled by the slope."""
    fit, test = cohort(80, seed), cohort(40, seed + 1, ages=(50.0, 75.0))
    tilted = [(p + 4.0 - 0.2 * a, a, i) for p, a, i in (fit, test)]
    first = AgeBiasCorrection(method).fit(*fit).correct(*test)
    second = AgeBiasCorrection(method).fit(*tilted[0]).correct(*tilted[1])
    np.testing.assert_allclose(first.delta_z, second.delta_z, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_subtracted_and_divided_deltas_correlate_one_and_have_the_same_z(seed):
    fit, test = cohort(80, seed), cohort(300, seed + 1)
    first, second = (AgeBiasCorrection(m).fit(*fit).correct(*test) for m in ("subtract", "divide"))
    r = np.corrcoef(first.corrected_delta_years, second.corrected_delta_years)[0, 1]
    assert r == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(first.delta_z, second.delta_z, rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_z_has_unit_variance_where_it_is_applied(method):
    out = AgeBiasCorrection(method).fit(*cohort(3000)).correct(*cohort(3000, 1, ages=(46.0, 81.0)))
    assert np.std(out.delta_z) == pytest.approx(1.0, abs=0.05)
    assert np.mean(out.delta_z) == pytest.approx(0.0, abs=0.08)


@pytest.mark.parametrize("method", METHODS)
def test_ages_outside_the_fit(method):
    fitted = AgeBiasCorrection(method).fit(*cohort())
    out = fitted.correct([60.0, 60.0, 60.0], [40.0, 60.0, 90.0], ["a", "b", "c"])
    assert out.extrapolated.tolist() == [True, False, True] and out.notes[1] == ""
    curved = method in CURVED
    assert np.isnan(out.corrected_delta_years).tolist() == [curved, False, curved]
    assert np.isnan(out.delta_z).tolist() == [curved, False, curved]
    said = f"no {method} correction" if curved else "extrapolated"
    assert said in out.notes[0] and said in out.notes[2]
    assert out.record["n_extrapolated"] == 2
    assert out.record["n_refused_for_age"] == (2 if curved else 0)
    assert out.record["n_corrected"] == (1 if curved else 3)


@pytest.mark.parametrize("method", METHODS)
def test_every_record_comes_back(method):
    fitted = AgeBiasCorrection(method).fit(*cohort(bend=0.01))
    record = json.loads(json.dumps(fitted.to_dict()))
    again = AgeBiasCorrection.from_dict(record)
    test = cohort(seed=1, bend=0.01)
    np.testing.assert_array_equal(
        again.correct(*test).corrected_delta_years, fitted.correct(*test).corrected_delta_years
    )
    assert again.to_dict() == fitted.to_dict()
    applied = json.loads(json.dumps(fitted.correct(*test).record))
    assert AgeBiasCorrection.from_dict(applied).to_dict() == fitted.to_dict()
    with pytest.raises(InSampleCorrection):
        again.correct(*cohort(bend=0.01))


def test_the_record_of_an_earlier_release_is_read():
    """As release 0.3.0 wrote it: no spread over age, no correlations."""
    record = {
        "method": "divide", "alpha_years": 18.9, "alpha_low_years": 17.0, "alpha_high_years": 20.8, "beta": 0.7,
        "beta_low": 0.67, "beta_high": 0.73, "residual_sd_years": 2.8, "n_fit": 120, "age_mean_years": 63.0,
        "age_min_years": 45.1, "age_max_years": 81.9, "fit_subjects_sha256": "0" * 64,
        "in_sample": False, "n_overlap": 0, "overlap_checked_by": "subject", "n_corrected": 80, "n_extrapolated": 0,
    }  # fmt: skip
    out = AgeBiasCorrection.from_dict(record).correct([60.0], [61.0], ["a"])
    assert out.corrected_delta_years == pytest.approx([(60 - 18.9) / 0.7 - 61])
    assert out.delta_z == pytest.approx([(60 - 18.9 - 0.7 * 61) / 2.8])
    del record["beta"]
    with pytest.raises(ValueError, match=r"this record of a correction lacks beta$"):
        AgeBiasCorrection.from_dict(record)


@pytest.mark.parametrize(
    ("method", "n", "ages", "message"),
    [
        ("quadratic", 49, None, "49 subjects to fit .* at least 50"),
        ("age_level", 49, None, "49 subjects to fit .* at least 50"),
        ("quadratic", 60, [60.0], "have the same age"),
        ("age_level", 60, [60.0], "have the same age"),
        ("quadratic", 60, [60.0, 61.0], "at least 3 different ages"),
    ],
)
def test_refusals(method, n, ages, message):
    predicted, age, ids = cohort(n)
    age = age if ages is None else np.resize(ages, n)
    with pytest.raises(CorrectionRefused, match=message):
        AgeBiasCorrection(method).fit(predicted, age, ids)


def test_predictions_on_the_line_have_no_z():
    age = np.linspace(45, 82, 60)
    fitted = AgeBiasCorrection().fit(np.full(60, 63.0), age, [str(k) for k in range(60)])
    assert fitted.coefficients_["residual_sd_years"] < 1e-12
    out = fitted.correct([63.0, 64.0], [50.0, 60.0], ["a", "b"])
    assert out.corrected_delta_years == pytest.approx([0, 1]) and np.isnan(out.delta_z).all()


def test_only_the_subjects_of_the_fit_are_stamped():
    predicted, age, ids = cohort()
    fitted = AgeBiasCorrection().fit(predicted, age, ids)
    out = fitted.correct(predicted[:3], age[:3], [ids[0], "b", "c"], allow_in_sample=True)
    assert out.in_sample.tolist() == [True, False, False]
    assert out.notes[0].startswith("in-sample") and out.notes[1] == ""
    assert out.record["in_sample"] is True and out.record["n_overlap"] == 1


def test_a_line_that_was_found_elsewhere_is_kept_checked_and_refused_alike():
    age = np.linspace(50.0, 70.0, 60)
    ids = [f"m{i}" for i in range(60)]
    line = line_record(30.0, 0.5, 3.0, age, 60)
    taken = AgeBiasCorrection.from_line("divide", line, ids, "moments")
    again = AgeBiasCorrection.from_dict(json.loads(json.dumps(taken.to_dict())), ids)
    assert again.to_dict() == taken.to_dict() and taken.to_dict()["line_from"] == "moments"
    out = again.correct([61.0], [60.0], ["new"])
    assert out.corrected_delta_years[0] == pytest.approx(2.0)  # (61 - 30) / 0.5 - 60
    assert out.delta_z[0] == pytest.approx(1.0 / 3.0)
    with pytest.raises(CorrectionRefused, match=r"slope of predicted on true age is 0\.090"):
        AgeBiasCorrection.from_line("divide", line_record(58.0, 0.09, 3.0, age, 60), ids, "moments")
    with pytest.raises(ValueError, match="'quadratic' is not said by a line"):
        AgeBiasCorrection.from_line("quadratic", line, ids, "moments")
