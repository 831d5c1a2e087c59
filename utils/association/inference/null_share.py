"""Storey's q: Benjamini-Hochberg's, times the estimated share of tests without an effect.

The estimate pi0 reads the height of the histogram of p where only null tests are left. Tests that are correlated
(57 deltas of one brain, thousands of related nIDPs) make that height swing from sample to sample: 20,000 null tests
that share 30 % of their variance gave estimates from 0.40 to 1. The swing is smooth, so the notes see only part of it;
pi0 is reported beside every q, and Benjamini-Hochberg stays the default.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utils.association.inference.multiplicity import benjamini_hochberg_nlog10

LAMBDAS = np.arange(1, 20) * 0.05  # 0.05, 0.10 ... 0.95
SMOOTHER_DF = 3.0
# Independent tests of this number give pi0 a standard error of about 0.14 at lambda = 0.95.
FEW_TESTS = 1000
UNEVEN = 0.1
FLAT_FROM = 0.5


@dataclass(frozen=True)
class NullShare:
    """The estimated share of tests without an effect.

    pi0: in (0, 1]; NaN without tests. smoothed: the smoother's value before it was brought there.
    by_lambda (19,): #{p > lambda} / (N (1 - lambda)) at `LAMBDAS`. notes: why the estimate is unstable, in words; empty
    where nothing speaks against it.
    """

    pi0: float
    smoothed: float
    by_lambda: NDArray[np.float64]
    n_tests: int
    notes: tuple[str, ...]

    @property
    def pi1(self) -> float:
        """The share of tests with an effect, 1 - pi0, from 0 to 1; NaN without tests.

        Where no null test is left the smoother gives 0, which q cannot use but this is: all have an effect.
        """
        return float(1.0 - np.clip(self.smoothed, 0.0, 1.0))

    @property
    def is_stable(self) -> bool:
        """Whether nothing speaks against the estimate."""
        return not self.notes


def null_share(nlog10p: ArrayLike) -> NullShare:
    r"""Estimate pi0 by the cubic smoother.

    pi0(lambda) = #{p > lambda} / (N (1 - lambda)) for lambda = 0.05 ... 0.95; a natural cubic smoothing spline with
    three effective degrees of freedom is fitted to the 19 values and read at 0.95; values above 1 become 1. An
    estimate that is not above 0 cannot be right: pi0 is 1 then, which is Benjamini-Hochberg.

    Parameters
    ----------
    nlog10p : (N,) float
        -log10 p of one family, two-sided or one-sided; NaN where there is no test.

    Returns
    -------
    NullShare

    Source: Storey and Tibshirani 2003, PNAS 100:9440, remark B (not re-read; agreement with Bioconductor's qvalue
    2.30 is tested).
    """
    values = np.asarray(nlog10p, dtype=float)
    values = values[np.isfinite(values)]
    n_tests = len(values)
    if n_tests == 0:
        return NullShare(np.nan, np.nan, np.full(LAMBDAS.shape, np.nan), 0, ("there are no tests",))
    above = np.searchsorted(np.sort(values), -np.log10(LAMBDAS), side="left")
    by_lambda = above / (n_tests * (1.0 - LAMBDAS))
    smoothed = float(_weights_of_last_value() @ by_lambda)
    pi0 = min(smoothed, 1.0) if smoothed > 0 else 1.0
    return NullShare(
        pi0, smoothed, by_lambda, n_tests, tuple(_doubts(n_tests, smoothed, by_lambda))
    )


def storey_nlog10(nlog10p: ArrayLike) -> tuple[NDArray[np.float64], NullShare]:
    """-log10 of Storey's q of each test, and the pi0 behind it.

    q = pi0 x q of Benjamini-Hochberg.

    Parameters
    ----------
    nlog10p : (N,) float
        -log10 p of one family; NaN where there is no test.

    Returns
    -------
    (N,) float, NullShare
        -log10 q, never below Benjamini-Hochberg's, NaN where it was NaN.

    Source: as `null_share`.
    """
    share = null_share(nlog10p)
    return benjamini_hochberg_nlog10(nlog10p) - np.log10(share.pi0), share


def _doubts(n_tests: int, smoothed: float, by_lambda: NDArray[np.float64]) -> list[str]:
    flat = by_lambda[LAMBDAS > FLAT_FROM - 1e-9]
    level, spread = float(flat.mean()), float(flat.max() - flat.min())
    # The last value's standard error for independent tests: what is left of p above 0.95 is few.
    by_chance = np.sqrt(level * LAMBDAS[-1] / (n_tests * (1.0 - LAMBDAS[-1])))
    doubts = []
    if n_tests < FEW_TESTS:
        doubts.append(f"{n_tests} tests are few for an estimate of pi0 (below {FEW_TESTS:,})")
    if smoothed <= 0:
        doubts.append(f"the smoother gave pi0 = {smoothed:.3f}; q takes 1 instead")
    if smoothed > 1 + UNEVEN:
        doubts.append(f"the smoother gave pi0 = {smoothed:.3f}, far above 1: p is not uniform")
    if spread > UNEVEN * level + 3.0 * by_chance:
        doubts.append(
            f"pi0 differs by {spread:.2f} between lambda = {FLAT_FROM} and 0.95: p is not flat there, from weak "
            "effects or from correlated tests"
        )
    return doubts


@cache
def _weights_of_last_value() -> NDArray[np.float64]:
    """The weights (19,) with which the smoothing spline's last value is made from the values at `LAMBDAS`.

    Reinsch form of the natural cubic smoothing spline: fit = (I + a K)^-1 y with K = Q R^-1 Q'; `a` is chosen so
    that the trace of (I + a K)^-1 is `SMOOTHER_DF` (Green and Silverman 1994, section 2.3; not re-read, R's
    smooth.spline is the check).
    """
    from scipy.optimize import brentq

    n, step = len(LAMBDAS), LAMBDAS[1] - LAMBDAS[0]
    second = np.zeros((n, n - 2))
    inner = np.arange(n - 2)
    second[inner, inner] = second[inner + 2, inner] = 1.0 / step
    second[inner + 1, inner] = -2.0 / step
    band = np.diag(np.full(n - 2, 2.0 * step / 3.0))
    band += np.diag(np.full(n - 3, step / 6.0), 1) + np.diag(np.full(n - 3, step / 6.0), -1)
    values, vectors = np.linalg.eigh(second @ np.linalg.solve(band, second.T))
    values = np.maximum(values, 0.0)

    def shrinkage(log_a: float) -> NDArray[np.float64]:
        return 1.0 / (1.0 + np.exp(log_a) * values)

    log_a = brentq(lambda x: shrinkage(x).sum() - SMOOTHER_DF, -40.0, 40.0)
    return (vectors * shrinkage(log_a)) @ vectors[-1]
