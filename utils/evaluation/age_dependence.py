"""What is left of the age in deltas: correlations with age and its square, and whether their spread grows with age."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from utils.evaluation.metrics import MINIMUM_N_INTERVAL, Interval, correlation

Array = NDArray[np.float64]


def age_dependence(delta_years: ArrayLike, age_years: ArrayLike) -> dict[str, Interval]:
    r"""r of the delta with age, and with the square of age, each with its 95 % interval.

    The square is taken about the mean age and freed of age by regression on these subjects: raw age^2 correlates
    0.99 with age, and would say the same thing twice. Outside the fit neither is expected to be 0 exactly: with 1,200
    subjects in the fit, r with age among 4,400 others has an SD of 0.033.

    Returns
    -------
    dict
        {age, age2: {value, low, high}}, as `utils.evaluation.metrics.correlation`.
    """
    delta, age = np.asarray(delta_years, dtype=float), np.asarray(age_years, dtype=float)
    complete = np.isfinite(delta) & np.isfinite(age)
    delta, age = delta[complete], age[complete]
    return {"age": correlation(delta, age), "age2": correlation(delta, orthogonal_square(age))}


def dependence_before_and_after(
    delta_years: Array, corrected_years: Array, age_years: Array
) -> dict[str, dict[str, Interval]]:
    """`age_dependence` of raw and corrected deltas for a record; no numbers of fewer than ten corrected subjects."""
    if np.isfinite(corrected_years).sum() < MINIMUM_N_INTERVAL:
        nothing: Interval = {"value": None, "low": None, "high": None}
        return {name: {"age": nothing, "age2": nothing} for name in ("delta", "corrected_delta")}
    return {
        "delta": age_dependence(delta_years, age_years),
        "corrected_delta": age_dependence(corrected_years, age_years),
    }


def orthogonal_square(age_years: Array) -> Array:
    """(S,) age^2 without its mean and without what a straight line in age says of it (0 for fewer than 3 ages)."""
    if np.unique(age_years).size < 3:
        return np.zeros_like(age_years)
    y = age_years - age_years.mean()
    square = y**2 - np.mean(y**2)
    return square - y * (y @ square) / (y @ y)


def heteroscedasticity(residual_years: Array, age_years: Array) -> dict[str, Any]:
    r"""Does the spread of corrected deltas change with age? Koenker's form of the Breusch-Pagan test.

    LM = n R^2 of the squared residuals on age, chi-squared with one degree of freedom. Where it does, one delta of
    3 years does not mean the same at 50 and at 80; associations given age stay valid for the mean.

    Returns
    -------
    dict
        lm, nlog10p, sd_ratio (SD in the oldest third over that in the youngest).

    Source: Koenker 1981, J Econometrics 17:107; checked against statsmodels' het_breuschpagan.
    """
    r = correlation(residual_years**2, age_years)["value"] or 0.0
    lm = age_years.size * r**2
    # chi-squared with 1 df is a squared normal; its log tail does not underflow.
    nlog10p = -(np.log(2.0) + stats.norm.logsf(np.sqrt(lm))) / np.log(10.0)
    young, old = np.quantile(age_years, [1 / 3, 2 / 3])
    low, high = residual_years[age_years <= young].std(), residual_years[age_years >= old].std()
    return {
        "lm": float(lm),
        "nlog10p": float(max(nlog10p, 0.0)),
        "sd_ratio": float(high / low) if low > 0 else None,
    }
