"""The age-bias correction: its algebra, its interval, its refusals, and the guard against correcting the fit itself."""

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.subjects import subjects_hash
from utils.common.errors import UserError
from utils.evaluation.deltas import (
    AgeBiasCorrection,
    CorrectionRefused,
    InSampleCorrection,
)


def cohort(n=400, seed=0, slope=0.7):
    rng = np.random.default_rng(seed)
    age = rng.uniform(45, 82, n)
    return 63 + slope * (age - 63) + rng.normal(0, 3, n), age, [f"s{seed}_{k}" for k in range(n)]


def test_coefficients_and_intervals_are_those_of_statsmodels():
    predicted, age, ids = cohort()
    c = AgeBiasCorrection().fit(predicted, age, ids).coefficients_
    fit = sm.OLS(predicted, sm.add_constant(age)).fit()
    (alpha_low, alpha_high), (beta_low, beta_high) = fit.conf_int()
    expected = {
        "alpha_years": fit.params[0], "alpha_low_years": alpha_low, "alpha_high_years": alpha_high,
        "beta": fit.params[1], "beta_low": beta_low, "beta_high": beta_high,
        "residual_sd_years": np.sqrt(fit.mse_resid),
    }  # fmt: skip
    assert {k: c[k] for k in expected} == pytest.approx(expected, rel=1e-9)
    assert c["n_fit"] == 400 and c["fit_subjects_sha256"] == subjects_hash(ids[::-1])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["subtract", "divide"]))
def test_on_the_fit_itself_mean_and_correlation_with_age_vanish(seed, method):
    predicted, age, ids = cohort(60, seed)
    fitted = AgeBiasCorrection(method).fit(predicted, age, ids)
    out = fitted.correct(predicted, age, ids, allow_in_sample=True)
    assert abs(out.corrected_delta_years.mean()) < 1e-10
    assert abs(np.corrcoef(out.corrected_delta_years, age)[0, 1]) < 1e-10
    assert out.record["in_sample"] is True and out.record["n_overlap"] == 60
    order = np.random.default_rng(seed).permutation(60)
    again = AgeBiasCorrection(method).fit(predicted[order], age[order], [ids[i] for i in order])
    first, second = ({**c.coefficients_} for c in (again, fitted))
    assert first.pop("heteroscedasticity") == pytest.approx(second.pop("heteroscedasticity"))
    assert first == pytest.approx(second)


def test_divided_is_subtracted_over_the_slope():
    fit, test = cohort(), cohort(seed=1)
    subtract = AgeBiasCorrection("subtract").fit(*fit)
    divide = AgeBiasCorrection("divide").fit(*fit)
    first, second = (c.correct(*test).corrected_delta_years for c in (subtract, divide))
    c = subtract.coefficients_
    np.testing.assert_allclose(first, test[0] - c["alpha_years"] - c["beta"] * test[1])
    np.testing.assert_allclose(second, (test[0] - c["alpha_years"]) / c["beta"] - test[1])
    np.testing.assert_allclose(second, first / c["beta"])


def test_frozen_coefficients_do_not_look_at_the_test_set():
    fitted = AgeBiasCorrection().fit(*cohort())
    predicted, age, ids = cohort(seed=1)
    everyone = fitted.correct(predicted, age, ids).corrected_delta_years
    alone = fitted.correct(predicted[:1], age[:1], ids[:1])
    assert alone.corrected_delta_years[0] == everyone[0]
    assert alone.record["in_sample"] is False


def test_subjects_of_the_fit_are_an_error_unless_allowed():
    predicted, age, ids = cohort()
    fitted = AgeBiasCorrection().fit(predicted, age, ids)
    mixed = [*ids[:2], *(f"new{k}" for k in range(398))]
    with pytest.raises(InSampleCorrection, match="fitted on 2 of the 400 subjects") as error:
        fitted.correct(predicted, age, mixed)
    assert isinstance(error.value, UserError)
    assert fitted.correct(predicted, age, mixed, allow_in_sample=True).record["n_overlap"] == 2


@pytest.mark.parametrize(
    ("method", "n", "slope", "age", "message"),
    [
        ("subtract", 49, 0.7, None, "49 subjects to fit .* at least 50"),
        ("subtract", 60, 0.7, 60.0, "have the same age"),
        ("divide", 400, 0.05, None, r"slope of predicted on true age is 0\.0.*above 0\.1"),
        ("divide", 400, -0.5, None, "whose interval excludes 0; 'subtract' can still be used"),
    ],
)
def test_refusals(method, n, slope, age, message):
    predicted, ages, ids = cohort(n, slope=slope)
    ages = ages if age is None else np.full(n, age)
    with pytest.raises(CorrectionRefused, match=message) as refusal:
        AgeBiasCorrection(method).fit(predicted, ages, ids)
    assert refusal.value.reason == str(refusal.value)


def test_a_slope_that_may_be_zero_is_refused():
    rng = np.random.default_rng(5)
    age = rng.uniform(45, 82, 50)
    predicted = 63 + 0.15 * (age - 63) + rng.normal(0, 15, 50)
    with pytest.raises(CorrectionRefused, match="interval"):
        AgeBiasCorrection("divide").fit(predicted, age, [str(k) for k in range(50)])


def test_failed_predictions_stay_missing_and_do_not_count():
    predicted, age, ids = cohort()
    predicted[:10] = np.nan
    fitted = AgeBiasCorrection().fit(predicted, age, ids)
    assert fitted.coefficients_["n_fit"] == 390
    assert fitted.coefficients_["fit_subjects_sha256"] == subjects_hash(ids[10:])
    p, a, i = cohort(seed=1)
    p[3] = np.nan
    out = fitted.correct(p, a, i)
    assert np.isnan(out.corrected_delta_years[3]) and out.record["n_corrected"] == 399


def test_ages_outside_the_fit_are_counted():
    fitted = AgeBiasCorrection().fit(*cohort())
    out = fitted.correct([40.0, 60.0, np.nan, 90.0], [40.0, 60.0, 30.0, 90.0], list("abcd"))
    assert out.extrapolated.tolist() == [True, False, False, True]
    assert out.record["n_extrapolated"] == 2


def test_record_and_back():
    predicted, age, ids = cohort()
    fitted = AgeBiasCorrection("divide").fit(predicted, age, ids)
    test = cohort(seed=1)
    again = AgeBiasCorrection.from_dict(fitted.to_dict())
    np.testing.assert_array_equal(
        again.correct(*test).corrected_delta_years, fitted.correct(*test).corrected_delta_years
    )
    with pytest.raises(InSampleCorrection):
        again.correct(predicted, age, ids)
    known = AgeBiasCorrection.from_dict(fitted.to_dict(), ids)
    with pytest.raises(InSampleCorrection, match="fitted on 1 of the 2"):
        known.correct([50.0, 51.0], [50.0, 51.0], [ids[0], "other"])
    with pytest.raises(ValueError, match="not the subjects that the correction was fitted on"):
        AgeBiasCorrection.from_dict(fitted.to_dict(), ids[1:])


def test_misuse_is_named():
    with pytest.raises(ValueError, match="before it was fitted"):
        AgeBiasCorrection().correct([50.0], [50.0], ["a"])
    with pytest.raises(
        ValueError, match="method is one of subtract, divide, quadratic, age_level, not 'cole'"
    ):
        AgeBiasCorrection("cole")
