r"""The quadratic correction of Smith et al. 2019 in the form that is frozen and applied to other subjects.

In the paper ages Y are demeaned, Y2o = demean(Y^2) - Y (Y'Y^2)/(Y'Y), and with Y2 = [Y, Y2o] and d1 = predicted - age,

    d2q = d1 - Y2 (Y2^+ d1).

Frozen on the subjects of the fit are their mean age, c0 = mean(Y^2), s = (Y'Y^2)/(Y'Y) and beta; for anybody else

    y = age - mean age,   y2 = y^2 - c0 - s y,   d2q = delta - (beta0 + beta1 y + beta2 y2),

without demeaning or orthogonalising on the new subjects. On the fit itself both are the same but for beta0, the mean
delta, which the paper removes by demeaning.

Source: Smith et al. 2019, NeuroImage 200:528, doi 10.1016/j.neuroimage.2019.06.017. The equations were compared with a
public Python implementation (SPMIC-UoN/deltab), which stores the same constants but centres and orthogonalises the
squares of new subjects on the new subjects; that is not followed here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from utils.evaluation.age_line import CorrectionRefused, fit_line

Array = NDArray[np.float64]

NAMES = (
    "square_mean_years2", "square_slope_years",
    "beta0_years", "beta0_low_years", "beta0_high_years", "beta1", "beta1_low", "beta1_high",
    "beta2_per_year", "beta2_low_per_year", "beta2_high_per_year",
)  # fmt: skip
MINIMUM_N_AGES = 3


def fit_quadratic(predicted: Array, age: Array) -> dict:
    """Coefficients of the delta on [1, y, y2] with 95 % t intervals, after those of the straight line.

    `residual_sd_years` is that about the curve (n - 3 degrees of freedom).
    """
    if np.unique(age).size < MINIMUM_N_AGES:
        raise CorrectionRefused(
            f"a quadratic correction needs at least {MINIMUM_N_AGES} different ages to be fitted on"
        )
    line = fit_line(predicted, age)
    y = age - line["age_mean_years"]
    square = y**2
    c0 = float(square.mean())
    s = float(y @ square / (y @ y))
    terms = np.column_stack([np.ones_like(y), y, square - c0 - s * y])
    # The three columns are orthogonal on the fit: each coefficient is a projection of its own.
    squares = np.sum(terms**2, axis=0)
    delta = predicted - age
    beta = terms.T @ delta / squares
    residual = delta - terms @ beta
    sd = float(np.sqrt(residual @ residual / (age.size - 3)))
    half = float(stats.t.ppf(0.975, age.size - 3)) * sd / np.sqrt(squares)
    values = [c0, s]
    for value, width in zip(beta, half):
        values += [float(value), float(value - width), float(value + width)]
    return {**line, **dict(zip(NAMES, values)), "residual_sd_years": sd}


def quadratic_residual(coefficients: dict, predicted: Array, age: Array) -> Array:
    """Delta less the delta that the frozen curve expects at that age, years."""
    c = coefficients
    y = age - c["age_mean_years"]
    orthogonal = y**2 - c["square_mean_years2"] - c["square_slope_years"] * y
    expected = c["beta0_years"] + c["beta1"] * y + c["beta2_per_year"] * orthogonal
    return predicted - age - expected
