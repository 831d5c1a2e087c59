"""-log10 of two-sided p values of Student's t, for every t and any degrees of freedom, without underflow."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

LN10 = float(np.log(10.0))
# Below: 1 - p is the accurate quantity. Above: p itself leaves the range of doubles.
SMALL_T = 1.0
LARGE_T = 20.0
# From here on the asymptotic series of the ratio of gamma functions is exact to double precision.
LARGE_HALF_DF = 200.0
MAXIMUM_TERMS = 60


def nlog10p_from_t(t: ArrayLike, df: ArrayLike) -> NDArray[np.float64]:
    r"""-log10 of the two-sided p value of t with `df` degrees of freedom, to about 1e-14 relative.

    p = I_x(df/2, 1/2) with x = df / (df + t^2), the regularised incomplete beta function. Doubles end near
    1e-308, which 20,000 subjects reach at |t| = 39, so for |t| > 20 the logarithm itself is computed:

        ln p = -a ln(1 + t^2/df) + ln(1 + z)/2 - ln a - ln B(a, 1/2) + ln sum_m [(1/2)_m / (a+1)_m] (-z)^m

    with a = df/2, z = df/t^2, the alternating sum stopped at its smallest term. For |t| < 1 the complement
    is computed and log1p applied, so that p near 1 keeps its digits as well.

    Parameters
    ----------
    t, df : float arrays that broadcast together
        The statistic and its degrees of freedom.

    Returns
    -------
    float array
        -log10 p, finite wherever t is finite and df >= 1; NaN elsewhere (also for an infinite t).

    Source: NIST Digital Library of Mathematical Functions, 8.17.8 with 15.8.1 (Pfaff); checked against mpmath.
    """
    t_abs, df_ = np.broadcast_arrays(
        np.abs(np.asarray(t, dtype=float)), np.asarray(df, dtype=float)
    )
    out = np.full(t_abs.shape, np.nan)
    valid = np.isfinite(t_abs) & np.isfinite(df_) & (df_ >= 1)
    small = valid & (t_abs < SMALL_T)
    large = valid & (t_abs > LARGE_T)
    middle = valid & ~small & ~large
    out[small] = _near_one(t_abs[small], df_[small])
    out[middle] = -np.log10(2.0 * special.stdtr(df_[middle], -t_abs[middle]))
    out[large] = _far_tail(t_abs[large], df_[large])
    return out


def _near_one(t: NDArray[np.float64], df: NDArray[np.float64]) -> NDArray[np.float64]:
    """-log10 p = -log10(1 - I_{1-x}(1/2, df/2)); the complement is the small number."""
    inside = special.betainc(0.5, df / 2.0, t * t / (df + t * t))
    return -np.log1p(-inside) / LN10 + 0.0


def _far_tail(t: NDArray[np.float64], df: NDArray[np.float64]) -> NDArray[np.float64]:
    """The formula of `nlog10p_from_t`; t / sqrt(df) is squared only inside the logarithm."""
    a = df / 2.0
    ratio = t / np.sqrt(df)
    with np.errstate(over="ignore"):
        log_1_plus = np.where(
            ratio > 1e8, 2.0 * np.log(ratio), np.log1p(np.minimum(ratio, 1e8) ** 2)
        )
    z = (1.0 / ratio) ** 2
    ln_p = (
        -a * log_1_plus
        + 0.5 * np.log1p(z)
        - np.log(a)
        - _log_beta_half(a)
        + np.log(_alternating_sum(a, z))
    )
    return -ln_p / LN10


def _log_beta_half(a: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln B(a, 1/2); the plain difference of two log gammas loses four digits at large a."""
    large = a > LARGE_HALF_DF
    b = np.where(large, a, LARGE_HALF_DF)
    series = -0.5 * np.log(b) + 1 / (8 * b) - 1 / (192 * b**3) + 1 / (640 * b**5)
    c = np.where(large, 1.0, a)
    plain = special.gammaln(c) - special.gammaln(c + 0.5)
    return 0.5 * np.log(np.pi) + np.where(large, series, plain)


def _alternating_sum(a: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over m of [(1/2)_m / (a+1)_m] (-z)^m, each element stopped at its smallest term."""
    total = np.ones_like(a)
    term = np.ones_like(a)
    going = np.ones(a.shape, dtype=bool)
    for m in range(MAXIMUM_TERMS):
        following = -term * z * (m + 0.5) / (a + 1.0 + m)
        going &= (np.abs(following) < np.abs(term)) & (np.abs(term) > 1e-18)
        if not going.any():
            break
        term = np.where(going, following, term)
        total = np.where(going, total + term, total)
    return total
