"""The overall test of a nominal nIDP: all its levels jointly against the delta, and -log10 p of an F."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from utils.association.inference.shared_rows import SharedRows
from utils.association.tails import LN10

Array = NDArray[np.float64]

# A direction of the levels with a smaller share of the largest singular value is no direction.
RANK_TOLERANCE = 1e-6
# Below this p the regularised incomplete beta function nears the end of doubles.
SMALLEST_DIRECT_P = 1e-250
MAXIMUM_TERMS = 2000


@dataclass(frozen=True)
class OverallTest:
    """F of all levels jointly, its degrees of freedom, the share of the delta's variance, -log10 p."""

    f: float
    df_levels: int
    df_residual: int
    r_squared: float
    nlog10p: float


def overall_f_test(delta: Array, indicators: Array, shared: SharedRows) -> OverallTest:
    """F test of delta ~ levels + Z against delta ~ Z, all levels of a nominal nIDP at once.

    With R2 the share of the delta's residual sum of squares that the g free directions of the levels explain,
    F = (R2 / g) / ((1 - R2) / (n - rank[1 Z] - g)). Levels without an indicator (too rare to be tested) are the
    reference together. Levels that the confounds or each other explain cost no degree of freedom.

    Parameters
    ----------
    delta : (n,) float
        The delta on the shared rows.
    indicators : (n, L) float
        0/1, complete; one column a level, with or without the reference level.
    shared : SharedRows
        The rows with the basis of their confounds.

    Returns
    -------
    OverallTest
        NaN where no level or no degree of freedom is left.
    """
    residual = shared.residuals(delta)
    levels = shared.residuals(indicators)
    spread = np.sqrt(((indicators - indicators.mean(axis=0)) ** 2).sum(axis=0))
    # Scaled by the spread before the confounds, so that a level they nearly explain stays as small as it is.
    levels = levels[:, spread > 0] / spread[spread > 0]
    left, singular, _ = np.linalg.svd(levels, full_matrices=False)
    n_free = int((singular > RANK_TOLERANCE * singular.max(initial=0.0)).sum())
    df_residual = shared.n - shared.rank - n_free
    total = float(residual @ residual)
    if n_free == 0 or df_residual < 1 or total == 0.0:
        return OverallTest(np.nan, n_free, df_residual, np.nan, np.nan)
    share = min(float(((left[:, :n_free].T @ residual) ** 2).sum()) / total, 1.0)
    f = (share / n_free) / ((1.0 - share) / df_residual) if share < 1.0 else np.inf
    nlog10p = float(nlog10p_from_f(f, n_free, df_residual))
    return OverallTest(f, n_free, df_residual, share, nlog10p)


def nlog10p_from_f(f: ArrayLike, df_between: ArrayLike, df_within: ArrayLike) -> Array:
    r"""-log10 of the upper tail of F, without underflow.

    p = I_x(a, b) with a = df_within / 2, b = df_between / 2, x = df_within / (df_within + df_between F). Where p
    nears the end of doubles, the logarithm itself, with z = x / (1 - x):

        ln p = a ln x + (b - 1) ln(1 - x) - ln a - ln B(a, b) + ln sum_m [(1 - b)_m / (a + 1)_m] (-z)^m

    The sum ends by itself for even df_between and is stopped at its smallest term otherwise, as in
    `tails.nlog10p_from_t`, of which this is the general case (df_between = 1, F = t^2).

    Returns
    -------
    float array
        NaN where F is not finite or negative, or a degree of freedom is below 1.

    Source: NIST Digital Library of Mathematical Functions, 8.17.8 with 15.8.1; checked against mpmath.
    """
    f_, between, within = np.broadcast_arrays(
        *(np.asarray(v, dtype=float) for v in (f, df_between, df_within))
    )
    out = np.full(f_.shape, np.nan)
    valid = np.isfinite(f_) & (f_ >= 0) & (between >= 1) & (within >= 1)
    f_, a, b = f_[valid], within[valid] / 2.0, between[valid] / 2.0
    odds = b * f_ / a  # (1 - x) / x
    # Of x and 1 - x the smaller one is the accurate one.
    x, rest = 1.0 / (1.0 + odds), odds / (1.0 + odds)
    tail = np.where(odds < 1.0, special.betaincc(b, a, rest), special.betainc(a, b, x))
    # Only used where p is at least 1/2, and there accurate while log10 p is not.
    complement = np.minimum(special.betainc(b, a, rest), 0.6)
    with np.errstate(divide="ignore"):
        result = np.where(tail < 0.5, -np.log10(tail), -np.log1p(-complement) / LN10 + 0.0)
    far = tail < SMALLEST_DIRECT_P
    result[far] = _far_tail(odds[far], a[far], b[far])
    out[valid] = result
    return out


def _far_tail(odds: Array, a: Array, b: Array) -> Array:
    """The formula of `nlog10p_from_f`: ln x = -ln(1 + odds), ln(1 - x) = ln odds - ln(1 + odds), z = 1 / odds."""
    ln_p = (
        -(a + b - 1.0) * np.log1p(odds)
        + (b - 1.0) * np.log(odds)
        - np.log(a)
        - special.betaln(a, b)
        + np.log(_sum(a, b, 1.0 / odds))
    )
    return -ln_p / LN10


def _sum(a: Array, b: Array, z: Array) -> Array:
    """Sum over m of [(1 - b)_m / (a + 1)_m] (-z)^m; its first b terms are positive, then signs alternate."""
    total, term = np.ones_like(a), np.ones_like(a)
    going = np.ones(a.shape, dtype=bool)
    for m in range(MAXIMUM_TERMS):
        following = term * z * (b - 1.0 - m) / (a + 1.0 + m)
        growing = np.abs(following) >= np.abs(term)
        going &= (np.abs(following) > 1e-18 * total) & ~(growing & (m > b))
        if not going.any():
            break
        term = np.where(going, following, term)
        total = np.where(going, total + term, total)
    return total
