r"""The tail of a permutation distribution as a generalised Pareto distribution (GPD).

Excesses y over a threshold u follow, far enough out, P(Y > y) = (1 - k y / a)^(1/k), or exp(-y / a) at k = 0, with
scale a > 0 and shape k (the sign of Hosking and Wallis: for k > 0 the tail ends at a / k). A fit gives p between the
steps of 1/B that counting allows. It is no licence to extrapolate: beyond the end of a fitted tail p would be 0.

Source: Winkler et al. 2016, NeuroImage 141:502; Hosking and Wallis 1987, Technometrics 29:339; Choulakian and
Stephens 2001, Technometrics 43:478. The papers were not re-read. Estimators and the search for u are those of the
published program PALM (text of palm_pareto.m). Its table of critical values is not used: it is for maximum likelihood,
not for moments, and a simulation meets it only with the sign of the shape reversed
(tests/reference/make_pareto_reference.py, which also made the critical values used here).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# Fewer maxima, and the moments of a tail of a quarter of them are too uncertain.
MINIMUM_PERMUTATIONS = 1000
MINIMUM_EXCESSES = 20
# Thresholds that are tried: quantiles of the maxima.
QUANTILES = np.arange(0.751, 0.99, 0.01)
# Shorter tails than this are an accident of the sample: maxima of t-like statistics have none.
LARGEST_SHAPE = 0.5
SMALLEST_SHAPE_AS_ZERO = 1e-9

# What the Anderson-Darling statistic exceeds with probability 0.05 when the GPD is true and fitted by moments, by its
# shape; simulated with 250 excesses. With 60 to 1,000 a true GPD of shape -0.1 to 0.2 is rejected in 3 to 7 %.
TABLE_SHAPES = np.array([-0.2, -0.15, -0.1, -0.05, 0.0, 0.05, 0.1, 0.15, 0.2])
CRITICAL_STATISTICS = np.array([1.322, 1.215, 1.117, 1.041, 0.98, 0.935, 0.913, 0.927, 1.022])


@dataclass(frozen=True)
class ParetoTail:
    """A fitted tail: `share` of the distribution lies above `threshold` and follows a GPD there."""

    threshold: float
    share: float
    scale: float
    shape: float

    def p(self, values: ArrayLike) -> Array:
        """P(T > value) for values above the threshold; 0 beyond the end of the tail, NaN where the value is."""
        return self.share * survival(
            np.asarray(values, dtype=float) - self.threshold, self.scale, self.shape
        )

    def quantile(self, p: float) -> float:
        """The value that is exceeded with probability `p`, which is at most `share`."""
        relative = p / self.share
        if abs(self.shape) < SMALLEST_SHAPE_AS_ZERO:
            return float(self.threshold - self.scale * np.log(relative))
        return float(self.threshold + self.scale / self.shape * (1.0 - relative**self.shape))


def survival(excess: ArrayLike, scale: float, shape: float) -> Array:
    """P(Y > excess) of the GPD; 1 for a negative excess."""
    y = np.maximum(np.asarray(excess, dtype=float), 0.0)
    if abs(shape) < SMALLEST_SHAPE_AS_ZERO:
        return np.exp(-y / scale)
    return np.maximum(1.0 - shape * y / scale, 0.0) ** (1.0 / shape)


def moment_estimates(excesses: Array) -> tuple[float, float]:
    """Scale and shape from mean m and variance s^2: a = m (m^2/s^2 + 1) / 2, k = (m^2/s^2 - 1) / 2."""
    mean, variance = float(excesses.mean()), float(excesses.var(ddof=1))
    ratio = mean**2 / variance
    return mean * (ratio + 1.0) / 2.0, (ratio - 1.0) / 2.0


def anderson_darling(probabilities: Array) -> float:
    """A^2 = -n - (1/n) sum_j (2j - 1) [ln u_(j) + ln(1 - u_(n+1-j))]; infinite when a probability u is 0 or 1."""
    u = np.sort(probabilities)
    if u[0] <= 0.0 or u[-1] >= 1.0:
        return float("inf")
    odd = 2.0 * np.arange(1, u.size + 1) - 1.0
    return float(-u.size - np.mean(odd * (np.log(u) + np.log1p(-u[::-1]))))


def is_accepted(statistic: float, shape: float) -> bool:
    """Whether the Anderson-Darling test keeps the GPD at p > 0.05; shapes beyond the table count as its ends."""
    return bool(statistic < np.interp(shape, TABLE_SHAPES, CRITICAL_STATISTICS))


def fit_tail(maxima: ArrayLike) -> ParetoTail | None:
    """The first of the thresholds, from the 0.751 quantile up, above which a GPD fits; None if there is none.

    A fit is taken when the Anderson-Darling test does not reject it (p > 0.05) and its shape is at most 0.5.

    Parameters
    ----------
    maxima : (B,) float
        Permuted maxima; finite.

    Returns
    -------
    ParetoTail or None
        None with fewer than 1,000 permutations too: counting is then all there is.
    """
    values = np.sort(np.asarray(maxima, dtype=float))
    n = values.size
    if n < MINIMUM_PERMUTATIONS:
        return None
    for quantile in QUANTILES:
        first = int(np.ceil(quantile * n)) - 1
        above = values[first:]
        if above.size < MINIMUM_EXCESSES:
            break
        threshold = (values[first - 1] + values[first]) / 2.0
        excesses = above - threshold
        if excesses.min() <= 0 or excesses.max() == excesses.min():
            continue  # tied maxima: a discrete statistic has no such tail
        scale, shape = moment_estimates(excesses)
        if shape > LARGEST_SHAPE:
            continue
        statistic = anderson_darling(1.0 - survival(excesses, scale, shape))
        if is_accepted(statistic, shape):
            return ParetoTail(float(threshold), above.size / n, scale, shape)
    return None
