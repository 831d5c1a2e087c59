r"""The age-level correction: the mean delta at every age is removed, whatever its course over age.

A level is a whole year of age, [45, 46), or as many successive years as it takes to have at least 20 subjects. Each
gives the mean of what the straight line leaves over, at the mean age of its subjects. Between levels the means are
interpolated, beyond the first and the last they stay:

    corrected delta = (predicted - alpha - beta age) - mean residual at that age.

Published is delta minus the mean of its level, divided by the level's SD. Here the line goes first, so that a wide
level of the youngest or the oldest does not keep its slope; there is no step on a birthday; and the delta stays in
years. It costs about one degree of freedom a level and is noisy at the ends of the ages: worth it where the bias is
visibly no line and no parabola.

Source: Zhang et al. 2023, NeuroImage Clin 37:103319 (PMC9860514). Its abstract was read, not its algorithm; levels
of whole years that are widened until enough subjects are in them, and (delta - mean) / SD are those of a public
implementation that names the paper.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from utils.evaluation.age_line import fit_line, line_residual

Array = NDArray[np.float64]

NAMES = ("level_ages_years", "level_means_years", "level_counts", "effective_parameters")
MINIMUM_N_LEVEL = 20


def fit_age_levels(predicted: Array, age: Array) -> dict:
    """The line, and the mean of its residuals at each level; `residual_sd_years` is about the resulting curve."""
    line = fit_line(predicted, age)
    residual = line_residual(line, predicted, age)
    level = _levels(age)
    counts = np.bincount(level)
    ages, means = (np.bincount(level, weights=x) / counts for x in (age, residual))
    left = residual - np.interp(age, ages, means)
    used = _effective_parameters(age, ages, level)
    return {
        **line,
        "residual_sd_years": float(np.sqrt(left @ left / (age.size - used))),
        "level_ages_years": ages.tolist(),
        "level_means_years": means.tolist(),
        "level_counts": counts.tolist(),
        "effective_parameters": used,
    }


def age_level_residual(coefficients: dict, predicted: Array, age: Array) -> Array:
    """What line and levels leave of the prediction, years."""
    c = coefficients
    level = np.interp(age, c["level_ages_years"], c["level_means_years"])
    return line_residual(c, predicted, age) - level


def _levels(age: Array) -> NDArray[np.intp]:
    """(S,) number of each subject's level, from the youngest; the last years join the level before if they are few."""
    years, n_in_year = np.unique(np.floor(age), return_counts=True)
    of_year, filled = np.zeros(years.size, dtype=int), 0
    for k, n in enumerate(n_in_year):
        of_year[k] = of_year[k - 1] + (filled >= MINIMUM_N_LEVEL) if k else 0
        filled = n + (filled if k and of_year[k] == of_year[k - 1] else 0)
    if filled < MINIMUM_N_LEVEL and of_year[-1] > 0:
        of_year[of_year == of_year[-1]] -= 1
    return of_year[np.searchsorted(years, np.floor(age))]


def _effective_parameters(age: Array, level_ages: Array, level: NDArray[np.intp]) -> float:
    """Trace of the matrix that turns the deltas of the fit into the expected ones."""
    centred = age - age.mean()
    averages = np.eye(len(level_ages))[:, level]
    averages /= averages.sum(axis=1, keepdims=True)  # (L, S)
    # What the averages make of the line: its hat matrix, 1 / S + centred centred' / spread, is never formed.
    of_line = 1.0 / age.size + np.outer(averages @ centred, centred) / (centred @ centred)
    shares = [np.interp(age, level_ages, row) for row in np.eye(len(level_ages))]
    return 2.0 + float(np.sum(np.array(shares) * (averages - of_line)))
