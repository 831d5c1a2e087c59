"""Reliability of deltas: between the networks of a cell, and between two scans of the same subjects.

Always of deltas: an ICC of predicted ages mostly says that the subjects differ in age. The raw delta too follows age as
far as the prediction shrinks to the mean, in all networks alike; corrected deltas are what a study goes on with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from utils.evaluation.intraclass import intraclass_correlations, mean_squares
from utils.evaluation.metrics import MINIMUM_N_INTERVAL

Array = NDArray[np.float64]

Z_95 = 1.96  # as the limits of agreement and the MDC are defined

ICC_COLUMNS = (
    "icc_2_1", "icc_2_1_low", "icc_2_1_high", "icc_2_k", "icc_2_k_low", "icc_2_k_high",
    "icc_3_1", "icc_3_1_low", "icc_3_1_high",
)  # fmt: skip
NETWORK_COLUMNS = (
    "contrast", "sex", "split", "quantity", "in_sample", "n", "k", *ICC_COLUMNS,
    "sd_between_networks_years",
)  # fmt: skip
RETEST_COLUMNS = (
    "contrast", "sex", "split", "quantity", "in_sample", "n", "years_between_scans", *ICC_COLUMNS,
    "within_subject_sd_years", "sem_years", "mdc_years",
    "bias_years", "bias_low_years", "bias_high_years",
    "limit_low_years", "limit_low_low_years", "limit_low_high_years",
    "limit_high_years", "limit_high_low_years", "limit_high_high_years",
    "slope", "slope_low", "slope_high", "slope_t",
)  # fmt: skip


def network_agreement(deltas_years: ArrayLike) -> dict[str, Any]:
    """Agreement of the networks of a cell on the delta of the same subjects.

    Parameters
    ----------
    deltas_years : (S, K) float
        One column a network; subjects that any network misses are left out.

    Returns
    -------
    dict
        n, k, the ICCs with intervals, sd_between_networks_years: the networks' SD within a subject, root mean square
        over subjects. Only n and k below 10 subjects.
    """
    deltas = _complete(deltas_years)
    found: dict[str, Any] = {"n": len(deltas), "k": deltas.shape[1]}
    if len(deltas) < MINIMUM_N_INTERVAL:
        return found
    within = deltas.var(axis=1, ddof=1)
    return {
        **found,
        **_flat(deltas),
        "sd_between_networks_years": float(np.sqrt(within.mean())),
    }


def scan_agreement(first_years: ArrayLike, second_years: ArrayLike) -> dict[str, Any]:
    r"""Test-retest agreement of deltas from two scans of the same subjects.

    With d = second - first and m their mean: within-subject SD = sqrt(mean d^2 / 2), which holds a shift between the
    scans; SEM = sqrt(MSE) = SD(d) / sqrt 2, which does not; MDC = 1.96 sqrt 2 SEM, the change of one person that
    repeating the scan alone exceeds in 5 %. Bland-Altman: bias = mean d with a t interval; limits = bias -+ 1.96 SD(d),
    each with the interval of SE = SD(d) sqrt(1/n + 1.96^2 / (2 (n-1))); slope of d on m with a t test: whether the
    disagreement depends on the delta. It is 0 in expectation only where both scans are equally noisy.

    Returns
    -------
    dict
        As RETEST_COLUMNS; only n below 10 subjects.

    Source: Bland and Altman 1999, Stat Methods Med Res 8:135 (limits and their standard errors); Weir 2005, J
    Strength Cond Res 19:231 (SEM, MDC). Equations from general knowledge, tested by hand and against statsmodels.
    """
    both = _complete(
        np.column_stack([np.asarray(first_years, float), np.asarray(second_years, float)])
    )
    n = len(both)
    if n < MINIMUM_N_INTERVAL:
        return {"n": n}
    difference, middle = both[:, 1] - both[:, 0], both.mean(axis=1)
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    quantile = float(stats.t.ppf(0.975, n - 1))
    half_bias = quantile * sd / np.sqrt(n)
    half_limit = quantile * sd * float(np.sqrt(1 / n + Z_95**2 / (2 * (n - 1))))
    sem = float(np.sqrt(mean_squares(both).error))
    found = {
        "n": n,
        **_flat(both),
        "within_subject_sd_years": float(np.sqrt(np.mean(difference**2) / 2)),
        "sem_years": sem,
        "mdc_years": Z_95 * float(np.sqrt(2)) * sem,
        "bias_years": bias,
        "bias_low_years": bias - half_bias,
        "bias_high_years": bias + half_bias,
    }
    for side, limit in (("low", bias - Z_95 * sd), ("high", bias + Z_95 * sd)):
        found[f"limit_{side}_years"] = limit
        found[f"limit_{side}_low_years"] = limit - half_limit
        found[f"limit_{side}_high_years"] = limit + half_limit
    return found | _slope(difference, middle)


def _complete(values: ArrayLike) -> Array:
    table = np.asarray(values, dtype=float)
    return table[np.isfinite(table).all(axis=1)]


def _flat(ratings: Array) -> dict[str, Any]:
    """Columns icc_2_1, icc_2_1_low, ... of (S, K) deltas."""
    columns: dict[str, Any] = {}
    for name, interval in intraclass_correlations(ratings).items():
        columns |= {name: interval["value"]}
        columns |= {f"{name}_low": interval["low"], f"{name}_high": interval["high"]}
    return columns


def _slope(difference: Array, middle: Array) -> dict[str, float | None]:
    """Least-squares slope of the difference on the mean, its interval and t (n - 2 df); None where nobody differs."""
    names = ("slope", "slope_low", "slope_high", "slope_t")
    if np.ptp(middle) == 0.0 or np.ptp(difference) == 0.0:
        return dict.fromkeys(names)
    n = difference.size
    x = middle - middle.mean()
    slope = float(x @ difference / (x @ x))
    left = difference - difference.mean() - slope * x
    error = float(np.sqrt(left @ left / (n - 2) / (x @ x)))
    half = float(stats.t.ppf(0.975, n - 2)) * error
    t = slope / error if error > 0 else None
    return dict(zip(names, (slope, slope - half, slope + half, t)))
