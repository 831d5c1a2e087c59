"""The straight line of predicted on true age: what every correction for the age bias begins with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

# Below this slope dividing by it would multiply the noise of the prediction more than tenfold.
MINIMUM_SLOPE_DIVIDE = 0.1
NAMES = (
    "alpha_years", "alpha_low_years", "alpha_high_years", "beta", "beta_low", "beta_high", "residual_sd_years",
    "n_fit", "age_mean_years", "age_min_years", "age_max_years",
)  # fmt: skip


class CorrectionRefused(ValueError):
    """A bias correction that the data do not support; `reason` says why. The raw delta remains."""

    def __init__(self, reason: str):
        self.reason = reason
        super().__init__(reason)


def fit_line(predicted: Array, age: Array) -> dict:
    """Least squares of predicted on age about the mean age, with 95 % t intervals of both coefficients."""
    n, mean_age = age.size, float(age.mean())
    centred = age - mean_age
    spread = float(centred @ centred)
    beta = float(centred @ predicted) / spread
    at_mean = float(predicted.mean())
    residual = predicted - at_mean - beta * centred
    sd = float(np.sqrt(residual @ residual / (n - 2)))
    return line_record(at_mean - beta * mean_age, beta, sd, age, n)


def line_record(alpha: float, beta: float, sd: float, age: Array, n_interval: int) -> dict:
    """A line and the ages it was fitted on, with the intervals that it would have from `n_interval` of them."""
    n, mean_age = age.size, float(age.mean())
    centred = age - mean_age
    spread = float(centred @ centred) * (n_interval / n)
    quantile = float(stats.t.ppf(0.975, n_interval - 2))
    half_beta = quantile * sd / float(np.sqrt(spread))
    half_alpha = quantile * sd * float(np.sqrt(1.0 / n_interval + mean_age**2 / spread))
    return {
        "alpha_years": alpha,
        "alpha_low_years": alpha - half_alpha,
        "alpha_high_years": alpha + half_alpha,
        "beta": beta,
        "beta_low": beta - half_beta,
        "beta_high": beta + half_beta,
        "residual_sd_years": sd,
        "n_fit": n,
        "age_mean_years": mean_age,
        "age_min_years": float(age.min()),
        "age_max_years": float(age.max()),
    }


def line_residual(coefficients: dict, predicted: Array, age: Array) -> Array:
    """Predicted age less the age that the line expects to be predicted, years."""
    return predicted - coefficients["alpha_years"] - coefficients["beta"] * age


def refuse_flat(coefficients: dict) -> None:
    """Refuse to divide by a slope of 0.1 or less, or by one that may be 0."""
    beta, low, high = (coefficients[name] for name in ("beta", "beta_low", "beta_high"))
    if beta <= MINIMUM_SLOPE_DIVIDE or low <= 0.0:
        raise CorrectionRefused(
            f"the slope of predicted on true age is {beta:.3f} (95 % interval {low:.3f} to {high:.3f}): dividing by it "
            f"needs a slope above {MINIMUM_SLOPE_DIVIDE} whose interval excludes 0; 'subtract' can still be used"
        )
