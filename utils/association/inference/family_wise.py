"""Family-wise p values from permuted maxima: counted, in the tail smoothed, never 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utils.association.inference.generalised_pareto import ParetoTail, fit_tail

Array = NDArray[np.float64]

# Counted p values at or above this need no tail.
REFINED_BELOW = 0.1
# Permuted statistics are computed in single precision: within it of the observed one, they count as equal to it.
TIE_TOLERANCE = 1e-5


@dataclass(frozen=True)
class FamilyWise:
    """The null distribution of the largest -log10 p of a family; made by `family_wise`.

    maxima : (B,) float
        Largest -log10 p of each permutation, ascending.
    tail : ParetoTail or None
        None: p are counted only.
    """

    maxima: Array
    tail: ParetoTail | None

    @property
    def smallest_p(self) -> float:
        """No p is given below: 1 / (10 B) with a tail (a decade below the steps of counting), else 1 / (B + 1)."""
        n = self.maxima.size
        return 1.0 / (10.0 * n) if self.tail is not None else 1.0 / (n + 1.0)

    def p(self, nlog10p: ArrayLike) -> Array:
        """Family-wise p of observed -log10 p; NaN stays NaN.

        Counted: (1 + number of maxima at least as large) / (B + 1), single step. Below 0.1 and above the threshold
        of the tail: the tail's p, at most 0.1 and at least 1 / (10 B).
        """
        values = np.asarray(nlog10p, dtype=float)
        p = self._counted(values)
        if self.tail is not None:
            refined = (p < REFINED_BELOW) & (values > self.tail.threshold)
            p = np.where(refined, np.clip(self.tail.p(values), self.smallest_p, REFINED_BELOW), p)
        return np.where(np.isnan(values), np.nan, p)

    def nlog10(self, nlog10p: ArrayLike) -> Array:
        """-log10 of `p`: the form in which adjusted p values are stored."""
        return np.abs(np.log10(self.p(nlog10p)))  # p <= 1

    def threshold_nlog10(self, alpha: float = 0.05) -> float | None:
        """The smallest -log10 p whose family-wise p is at most `alpha`; None where too few permutations reach it."""
        if self.tail is not None and self.smallest_p <= alpha < REFINED_BELOW:
            smoothed = self.tail.quantile(alpha) if alpha < self.tail.share else -np.inf
            if (
                smoothed > self.tail.threshold
                and self._counted(np.asarray(smoothed)) < REFINED_BELOW
            ):
                return float(smoothed)
        n_above = int(np.floor(alpha * (self.maxima.size + 1) * (1 + 1e-12))) - 1
        if n_above < 0:
            return None
        if n_above >= self.maxima.size:
            return 0.0
        largest_below = self.maxima[self.maxima.size - 1 - n_above]
        return float(np.nextafter(largest_below / (1.0 - TIE_TOLERANCE), np.inf))

    def effective_tests(self, alpha: float = 0.05) -> float | None:
        """The number of independent tests whose Bonferroni threshold is this one: alpha 10^threshold."""
        threshold = self.threshold_nlog10(alpha)
        return None if threshold is None else float(alpha * 10.0**threshold)

    def _counted(self, values: Array) -> Array:
        """(1 + number of maxima >= value) / (B + 1); 1 for NaN."""
        comparable = np.nan_to_num(values, nan=-np.inf, posinf=np.inf)
        below = np.searchsorted(self.maxima, comparable * (1.0 - TIE_TOLERANCE), side="left")
        return np.asarray((1.0 + self.maxima.size - below) / (self.maxima.size + 1.0))


def family_wise(maxima: ArrayLike, refine: bool = True) -> FamilyWise:
    """The null distribution from the maxima of permutations.

    Maxima over blocks of targets, over predictors and over sexes that are one family are merged by `np.maximum`, per
    permutation, before they come here.

    Parameters
    ----------
    maxima : (B,) float
        Largest -log10 p of each permutation.
    refine : bool
        Fit a generalised Pareto tail where there are 1,000 permutations or more.

    Raises
    ------
    ValueError
        No maxima, or one that is not finite.

    Source: Westfall and Young 1993, Resampling-based multiple testing (single step; not re-read, the counting is
    tested against complete enumeration); Phipson and Smyth 2010, Stat Appl Genet Mol Biol 9:39 (why 1 is added).
    """
    values = np.sort(np.asarray(maxima, dtype=float).ravel())
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError("maxima must be finite, one for each permutation, and at least one")
    return FamilyWise(values, fit_tail(values) if refine else None)
