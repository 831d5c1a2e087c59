"""Corrections for many tests, computed on -log10 p so that no p value is ever too small.

A missing p (NaN) is never a test: it is set aside before the number of tests is counted and put back as NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

SMALLEST_POSITIVE = float(np.finfo(float).tiny)


def bonferroni_nlog10(nlog10p: ArrayLike) -> NDArray[np.float64]:
    """-log10 of the Bonferroni-adjusted p: max(0, -log10 p - log10 N), N the tests with a p.

    Parameters
    ----------
    nlog10p : (N,) float
        -log10 p of one family; NaN where there is no test.

    Returns
    -------
    (N,) float
        Adjusted -log10 p, NaN where it was NaN. A test passes at level alpha where this is >= -log10 alpha.
    """
    values = np.asarray(nlog10p, dtype=float)
    n_tests = int(np.isfinite(values).sum())
    if n_tests == 0:
        return np.full(values.shape, np.nan)
    return np.where(np.isfinite(values), np.maximum(values - np.log10(n_tests), 0.0), np.nan)


def benjamini_hochberg_nlog10(
    nlog10p: ArrayLike, any_dependence: bool = False
) -> NDArray[np.float64]:
    """-log10 of the Benjamini-Hochberg q value of each test.

    q_(i) = min over k >= i of p_(k) N / k, with p sorted from the smallest, computed as logarithms.
    `any_dependence` multiplies by the sum of 1/i (Benjamini-Yekutieli), valid for any dependence of the tests.

    Parameters
    ----------
    nlog10p : (N,) float
        -log10 p of one family; NaN where there is no test.
    any_dependence : bool
        Benjamini-Yekutieli instead of Benjamini-Hochberg.

    Returns
    -------
    (N,) float
        -log10 q, at least 0, NaN where it was NaN.

    Source: Benjamini and Hochberg 1995, J R Stat Soc B 57:289; Benjamini and Yekutieli 2001, Ann Stat 29:1165
    (agreement with statsmodels is tested).
    """

    def step_up(ranked: NDArray[np.float64]) -> NDArray[np.float64]:
        ranks = np.arange(1, len(ranked) + 1)
        penalty = np.log10(len(ranked)) - np.log10(ranks)
        if any_dependence:
            penalty = penalty + np.log10(np.sum(1.0 / ranks))
        return _largest_from_here(ranked - penalty)

    return _of_ranked(nlog10p, step_up)


def holm_nlog10(nlog10p: ArrayLike) -> NDArray[np.float64]:
    """-log10 of Holm's adjusted p: p_(i) = max over k <= i of (N - k + 1) p_(k); family-wise, any dependence.

    Never smaller than Bonferroni's -log10 p; with 10^5 tests and few hits the gain is in the third digit.

    Parameters
    ----------
    nlog10p : (N,) float
        -log10 p of one family; NaN where there is no test.

    Returns
    -------
    (N,) float
        Adjusted -log10 p, at least 0, NaN where it was NaN.

    Source: Holm 1979, Scand J Stat 6:65 (not re-read; agreement with statsmodels and R's p.adjust is tested).
    """
    return _of_ranked(nlog10p, lambda ranked: np.minimum.accumulate(ranked - _still_open(ranked)))


def hochberg_nlog10(nlog10p: ArrayLike) -> NDArray[np.float64]:
    """-log10 of Hochberg's adjusted p: p_(i) = min over k >= i of (N - k + 1) p_(k).

    Holm's steps taken from the largest p: more power, but family-wise only for independent or positively dependent
    tests (as for Benjamini-Hochberg, two-sided tests of correlated variables are not covered by a proof).

    Parameters
    ----------
    nlog10p : (N,) float
        -log10 p of one family; NaN where there is no test.

    Returns
    -------
    (N,) float
        Adjusted -log10 p, at least 0, NaN where it was NaN.

    Source: Hochberg 1988, Biometrika 75:800 (not re-read; agreement with statsmodels and R's p.adjust is tested).
    """
    return _of_ranked(nlog10p, lambda ranked: _largest_from_here(ranked - _still_open(ranked)))


def _of_ranked(
    nlog10p: ArrayLike, adjust: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """`adjust` the present -log10 p, sorted from the smallest p; at least 0, each back in its place."""
    values = np.asarray(nlog10p, dtype=float)
    adjusted = np.full(values.shape, np.nan)
    places = np.flatnonzero(np.isfinite(values))
    if places.size:
        ranked = places[np.argsort(-values[places], kind="stable")]
        adjusted[ranked] = np.maximum(adjust(values[ranked]), 0.0)
    return adjusted


def _still_open(ranked: NDArray[np.float64]) -> NDArray[np.float64]:
    """log10 of N - k + 1: hypotheses not rejected before the k-th."""
    return np.log10(np.arange(len(ranked), 0, -1))


def _largest_from_here(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest of each value and those behind it."""
    return np.maximum.accumulate(values[::-1])[::-1]


def probability(nlog10: ArrayLike) -> NDArray[np.float64]:
    """10^-x for reading; never 0 (the smallest positive double stands for everything below it)."""
    values = np.asarray(nlog10, dtype=float)
    with np.errstate(under="ignore"):
        return np.where(
            np.isnan(values), np.nan, np.maximum(np.power(10.0, -values), SMALLEST_POSITIVE)
        )


def bonferroni_threshold_nlog10(n_tests: int, alpha: float = 0.05) -> float | None:
    """The -log10 p that one of `n_tests` tests must reach, log10(N / alpha); None without tests."""
    return float(np.log10(n_tests / alpha)) if n_tests > 0 else None


def bh_threshold_nlog10(
    nlog10p: ArrayLike, nlog10q: ArrayLike, alpha: float = 0.05
) -> float | None:
    """The smallest -log10 p that Benjamini-Hochberg rejects at `alpha`; None where it rejects nothing."""
    values = np.asarray(nlog10p, dtype=float)
    rejected = np.nan_to_num(np.asarray(nlog10q, dtype=float), nan=-1.0) >= -np.log10(alpha)
    return float(values[rejected].min()) if rejected.any() else None
