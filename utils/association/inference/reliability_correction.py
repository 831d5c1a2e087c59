"""Correlation without the attenuation by an unreliable delta, with an interval that knows both uncertainties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Disattenuated:
    """r / sqrt(reliability) with its 95 % interval; NaN where the reliability (or its lower end) is not above 0."""

    r: Array
    low: Array
    high: Array


def disattenuate(
    r: ArrayLike,
    r_low: ArrayLike,
    r_high: ArrayLike,
    reliability: ArrayLike,
    reliability_low: ArrayLike,
    reliability_high: ArrayLike,
) -> Disattenuated:
    r"""The correlation with a delta measured without error: r / sqrt(rel).

    The observed correlation is about r_true sqrt(rel_delta rel_nidp): noise in the delta attenuates it, and bias
    correction does not mend that. Only the delta's reliability (an intraclass correlation of deltas, not of
    predicted ages, which the range of age inflates) is taken out here. This is a secondary number: p and the
    uncorrected r are what was tested. It may exceed 1 where the reliability is underestimated, and is not cut.

    The interval recovers both variances from the two intervals (with q = sqrt(rel), whose interval is that of rel
    under the root): L solves (r - L q)^2 = (r - r_low)^2 + L^2 (q_high - q)^2 for L > 0 and with q_low in the place
    of q_high for L < 0; the upper end likewise.

    Parameters
    ----------
    r, r_low, r_high, reliability, reliability_low, reliability_high : float arrays that broadcast together
        Estimates and the ends of their 95 % intervals.

    Source: Spearman 1904 for r / sqrt(rel); the interval is the method of variance estimates recovery of Zou and
    Donner for a ratio (neither re-read: the equations above are solved here, coverage is tested by simulation).
    """
    values = [np.asarray(v, dtype=float) for v in (r, r_low, r_high)]
    r_, low_, high_, rel, rel_low, rel_high = np.broadcast_arrays(
        *values,
        *(np.asarray(v, dtype=float) for v in (reliability, reliability_low, reliability_high)),
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        q, q_low, q_high = (np.sqrt(np.where(v > 0, v, np.nan)) for v in (rel, rel_low, rel_high))
        return Disattenuated(
            r_ / q,
            _end(r_, r_ - low_, q, q_low, q_high, -1.0),
            _end(r_, high_ - r_, q, q_low, q_high, 1.0),
        )


def _end(r: Array, distance: Array, q: Array, q_low: Array, q_high: Array, side: float) -> Array:
    """The lower (side -1) or upper (side 1) end: a root of A x^2 - 2 r q x + r^2 - distance^2 = 0."""
    positive = r + side * distance > 0
    # The denominator moves against the ratio: away from zero with a smaller q, towards zero with a larger one.
    outwards = positive == (side > 0)
    step = np.where(outwards, q - q_low, q_high - q)
    leading = q**2 - step**2
    root = np.sqrt((r * q) ** 2 - leading * (r**2 - distance**2))
    end = (r * q + side * root) / leading
    return np.where(leading > 0, end, np.nan)
