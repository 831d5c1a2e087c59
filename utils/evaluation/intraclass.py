r"""Intraclass correlations: how much of the spread between numbers is between subjects.

With S subjects, K ratings (networks, scans) each and the mean squares of a two-way table without replication, MSR
between subjects, MSC between ratings, MSE of what is left:

    ICC(2,1) = (MSR - MSE) / (MSR + (K-1) MSE + K (MSC - MSE) / S)     absolute agreement of one rating
    ICC(2,K) = (MSR - MSE) / (MSR + (MSC - MSE) / S)                   absolute agreement of the mean of K
    ICC(3,1) = (MSR - MSE) / (MSR + (K-1) MSE)                         consistency of one rating

Source: Shrout and Fleiss 1979, Psychol Bull 86:420 (names, estimates, intervals); McGraw and Wong 1996, Psychol Methods
1:30. Estimates and intervals are tested against Shrout and Fleiss' example of six targets and four judges and against
pingouin; the papers were not re-read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from utils.evaluation.metrics import Interval

Array = NDArray[np.float64]

NAMES = ("icc_2_1", "icc_2_k", "icc_3_1")
MINIMUM_N = 3
NONE: Interval = {"value": None, "low": None, "high": None}


@dataclass(frozen=True)
class MeanSquares:
    """Two-way table of `n` subjects and `k` ratings: mean squares between subjects and ratings, and the rest."""

    n: int
    k: int
    subjects: float
    ratings: float
    error: float


def mean_squares(ratings: ArrayLike) -> MeanSquares:
    """Mean squares of (S, K) ratings; subjects with a missing one are left out.

    Raises
    ------
    ValueError
        Fewer than two ratings, or fewer than two complete subjects.
    """
    table = np.asarray(ratings, dtype=float)
    if table.ndim != 2 or table.shape[1] < 2:
        raise ValueError(f"a row a subject and at least two columns are needed, not {table.shape}")
    table = table[np.isfinite(table).all(axis=1)]
    n, k = table.shape
    if n < 2:
        raise ValueError(f"at least two subjects with all ratings are needed; there are {n}")
    centred = table - table.mean()
    of_subject, of_rating = centred.mean(axis=1), centred.mean(axis=0)
    left = centred - of_subject[:, None] - of_rating
    # Spread below the rounding of the numbers is none.
    rounding = (1e-14 * np.abs(table).max()) ** 2
    squares = [
        k * float(of_subject @ of_subject) / (n - 1),
        n * float(of_rating @ of_rating) / (k - 1),
        float(np.sum(left**2)) / ((n - 1) * (k - 1)),
    ]
    subjects, between, error = (0.0 if square <= rounding else square for square in squares)
    return MeanSquares(n, k, subjects, between, error)


def intraclass_correlations(ratings: ArrayLike, confidence: float = 0.95) -> dict[str, Interval]:
    """ICC(2,1), ICC(2,K) and ICC(3,1) of (S, K) ratings with their F-based intervals.

    Returns
    -------
    dict
        {icc_2_1, icc_2_k, icc_3_1: {value, low, high}}; all None below three complete subjects or where nobody differs
        from anybody. Without any error within subjects the F distribution has nothing to say: no interval then.
    """
    table = np.asarray(ratings, dtype=float)
    if table.ndim == 2 and np.isfinite(table).all(axis=1).sum() < MINIMUM_N:
        return dict.fromkeys(NAMES, NONE)
    m = mean_squares(table)
    if m.subjects == 0.0 and m.error == 0.0:
        return dict.fromkeys(NAMES, NONE)
    between = m.subjects - m.error
    shift = (m.ratings - m.error) / m.n
    single = between / (m.subjects + (m.k - 1) * m.error + m.k * shift)
    mean = between / (m.subjects + shift)
    consistent = between / (m.subjects + (m.k - 1) * m.error)
    if m.error == 0.0:
        values = dict(zip(NAMES, (single, mean, consistent)))
        return {name: {"value": value, "low": None, "high": None} for name, value in values.items()}
    upper = 0.5 + confidence / 2
    low, high = _limits_of_agreement(m, single, upper)
    averaged = [m.k * limit / (1 + (m.k - 1) * limit) for limit in (low, high)]
    return {
        "icc_2_1": {"value": single, "low": low, "high": high},
        "icc_2_k": {"value": mean, "low": averaged[0], "high": averaged[1]},
        "icc_3_1": {"value": consistent, **_limits_of_consistency(m, upper)},
    }


def _limits_of_agreement(m: MeanSquares, icc: float, upper: float) -> tuple[float, float]:
    """Limits of ICC(2,1); v are Satterthwaite's degrees of freedom of the denominator (Shrout and Fleiss, p. 424)."""
    n, k, f = m.n, m.k, m.ratings / m.error
    rest = n * (1 + (k - 1) * icc) - k * icc
    v = (k - 1) * (n - 1) * (k * icc * f + rest) ** 2 / ((n - 1) * (k * icc * f) ** 2 + rest**2)
    at_low, at_high = stats.f.ppf(upper, n - 1, v), stats.f.ppf(upper, v, n - 1)
    spread = k * m.ratings + (k * n - k - n) * m.error
    low = n * (m.subjects - at_low * m.error) / (at_low * spread + n * m.subjects)
    high = n * (at_high * m.subjects - m.error) / (spread + n * at_high * m.subjects)
    return float(low), float(high)


def _limits_of_consistency(m: MeanSquares, upper: float) -> dict[str, float]:
    ratio, between, within = m.subjects / m.error, m.n - 1, (m.n - 1) * (m.k - 1)
    low = ratio / stats.f.ppf(upper, between, within)
    high = ratio * stats.f.ppf(upper, within, between)
    return {
        "low": float((low - 1) / (low + m.k - 1)),
        "high": float((high - 1) / (high + m.k - 1)),
    }
