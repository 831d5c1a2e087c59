"""The accuracy of corrected predictions is fake; it is refused, or labelled."""

import numpy as np
import pytest

from utils.common.errors import UserError
from utils.evaluation.debiased_accuracy import (
    LABEL,
    CorrectedAccuracyRefused,
    debiased_accuracy,
)
from utils.evaluation.deltas import AgeBiasCorrection, CorrectionRefused

N = 60_000


def calibrated(r):
    """Ages 45 to 82 and predictions with E[age | predicted] = predicted, that is Var(predicted) = r^2 Var(age)."""
    rng = np.random.default_rng(0)
    age = rng.uniform(45, 82, N)
    noise = rng.normal(size=N)
    centred = age - age.mean()
    noise -= noise.mean() + centred * (centred @ noise) / (centred @ centred)
    noise *= r * np.sqrt(1 - r**2) * age.std() / noise.std()
    return age.mean() + r**2 * centred + noise, age, [str(k) for k in range(N)]


def scores(predicted, age):
    """r, MAE, R2."""
    error = predicted - age
    return np.array(
        [np.corrcoef(predicted, age)[0, 1], np.abs(error).mean(), 1 - error.var() / age.var()]
    )


@pytest.mark.parametrize(
    ("r", "raw", "subtracted", "divided"),
    [
        (0.964, (0.964, 2.28, 0.93), (0.968, 2.20, 0.93), (0.964, 2.37, 0.92)),
        (0.805, (0.805, 5.12, 0.65), (0.902, 4.08, 0.77), (0.805, 6.30, 0.46)),
        (0.476, (0.476, 7.89, 0.23), (0.923, 3.58, 0.82), (0.476, 15.8, -2.4)),
        (0.180, (0.180, 9.08, 0.03), (0.985, 1.52, 0.97), (0.180, 46.5, -28.7)),
    ],
)
def test_the_worse_the_network_the_better_it_looks_after_subtracting(r, raw, subtracted, divided):
    """The table of Butler et al.'s argument: computed from the deltas of this very correction."""
    predicted, age, ids = calibrated(r)
    close = {"rtol": 0.025, "atol": 0.012}
    np.testing.assert_allclose(scores(predicted, age), raw, **close)
    subtract = AgeBiasCorrection("subtract").fit(predicted, age, ids)
    c = subtract.coefficients_
    residual = subtract.correct(predicted, age, ids, allow_in_sample=True).corrected_delta_years
    np.testing.assert_allclose(scores(age + residual, age), subtracted, **close)
    np.testing.assert_allclose(scores(age + residual / c["beta"], age), divided, **close)
    if c["beta"] < 0.1:
        with pytest.raises(CorrectionRefused, match="needs a slope above"):
            AgeBiasCorrection("divide").fit(predicted, age, ids)
        return
    divide = AgeBiasCorrection("divide").fit(predicted, age, ids)
    shown = debiased_accuracy(divide, predicted, age)
    assert shown["label"] == LABEL == "debiased (MAE rises by design)"
    assert shown["mae_years"] > np.abs(predicted - age).mean()
    expected = scores((predicted - c["alpha_years"]) / c["beta"], age)
    assert [shown[name] for name in ("r", "mae_years", "r2")] == pytest.approx(expected)


@pytest.mark.parametrize("method", ["subtract", "quadratic", "age_level"])
def test_what_uses_the_subjects_age_is_refused(method):
    rng = np.random.default_rng(0)
    age = rng.uniform(45, 82, 100)
    predicted = 63 + rng.normal(size=100)
    correction = AgeBiasCorrection(method).fit(predicted, age, [str(k) for k in range(100)])
    with pytest.raises(
        CorrectedAccuracyRefused, match=f"corrected by '{method}' is not shown"
    ) as error:
        debiased_accuracy(correction, predicted, age)
    assert isinstance(error.value, UserError)
