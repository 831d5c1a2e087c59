"""-log10 of two-sided p values of normal deviates and back, without underflow at either end."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

LN2, LN10 = float(np.log(2.0)), float(np.log(10.0))


def nlog10p_from_normal(z: ArrayLike) -> NDArray[np.float64]:
    """-log10 of the two-sided p of a normal deviate; finite for every finite z, NaN for NaN.

    Below |z| = 1 the complement is computed, so that p near 1 keeps its digits; above it, ln Phi(-|z|).
    """
    from scipy import special

    size = np.abs(np.asarray(z, dtype=float))
    inside = special.erf(np.minimum(size, 1.0) / np.sqrt(2.0))
    ln_p = np.where(size < 1.0, np.log1p(-inside), LN2 + special.log_ndtr(-size))
    return -ln_p / LN10 + 0.0


def normal_from_nlog10p(nlog10p: ArrayLike) -> NDArray[np.float64]:
    """The size (>= 0) of the normal deviate that has this two-sided p: the way from a t to its matched normal.

    A t is matched by its p instead of being taken for a normal deviate: with 1,000 degrees of freedom t = 10 is
    z = 9.8, and a decade of p.
    """
    from scipy import special

    values = np.asarray(nlog10p, dtype=float)
    return np.maximum(-special.ndtri_exp(-values * LN10 - LN2), 0.0)


def one_sided_nlog10p(nlog10p: ArrayLike, in_direction: ArrayLike) -> NDArray[np.float64]:
    """-log10 of the one-sided p behind a two-sided one: p / 2 in the tested direction, 1 - p / 2 against it."""
    values = np.asarray(nlog10p, dtype=float)
    with np.errstate(under="ignore"):
        against = -np.log1p(-0.5 * np.power(10.0, -values)) / LN10
    return np.where(np.asarray(in_direction, dtype=bool), values + LN2 / LN10, against)
