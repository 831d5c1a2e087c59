"""Transformations of one nIDP: rank-based inverse normal, and the removal of outliers.

Both follow from the sorted values, so a column is sorted once (`SortedValues`) and everything is read off it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

# Blom's offset for expected normal scores.
BLOM = 3.0 / 8.0
# The MAD of a normal variable, times this, is its SD.
MAD_TO_SD = 1.4826


@dataclass(frozen=True)
class SortedValues:
    """The present values of a column in increasing order (n,), and where each stands among the subjects."""

    values: NDArray[np.float64]
    positions: NDArray[np.intp]
    n_subjects: int

    @staticmethod
    def of(values: NDArray[np.float64]) -> SortedValues:
        """Sort the present values of a column (S,)."""
        present = np.flatnonzero(np.isfinite(values))
        x = values[present]
        order = np.argsort(x)
        return SortedValues(x[order], present[order], values.size)

    @property
    def largest_tie(self) -> int:
        """How many subjects share the commonest value."""
        return int(np.diff(np.r_[self._starts(), self.values.size]).max(initial=0))

    @property
    def is_constant(self) -> bool:
        """Whether there is one value at most."""
        return self.values.size == 0 or bool(self.values[0] == self.values[-1])

    def within(self, limit_sd: float) -> SortedValues:
        """Without the outliers; see `outliers`."""
        far = _far(self.values, limit_sd)
        if not far.any():
            return self
        return SortedValues(self.values[~far], self.positions[~far], self.n_subjects)

    def as_read(self) -> NDArray[np.float64]:
        """The values (S,) at their subjects, NaN where missing."""
        return self._spread(self.values)

    def normal_scores(self) -> NDArray[np.float64]:
        """The inverse normal transformation (S,); see `inverse_normal`."""
        n = self.values.size
        if n == 0:
            return np.full(self.n_subjects, np.nan)
        starts = self._starts()
        scores = _normal_scores(n)
        if starts.size < n:
            sizes = np.diff(np.r_[starts, n])
            scores = np.repeat(np.add.reduceat(scores, starts) / sizes, sizes)
        return self._spread(scores)

    def _starts(self) -> NDArray[np.intp]:
        """Where each distinct value begins."""
        x = self.values
        return np.r_[0, np.flatnonzero(x[1:] != x[:-1]) + 1] if x.size else np.empty(0, np.intp)

    def _spread(self, ordered: NDArray[np.float64]) -> NDArray[np.float64]:
        out = np.full(self.n_subjects, np.nan)
        out[self.positions] = ordered
        return out


def inverse_normal(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank-based inverse normal transformation; tied values share the mean of their normal scores.

    z = Phi^-1((rank - 3/8) / (n + 1/4)) for ranks 1..n, then z averaged over ties (not Phi^-1 of the mean rank).
    It is applied BEFORE the confounds are removed: after it, removing them once more is exact, whereas transforming
    residuals brings their correlation with the confounds back.

    Parameters
    ----------
    values : (S,) float
        NaN where missing.

    Returns
    -------
    (S,) float
        NaN where missing; mean zero when nothing is tied at the edge of symmetry.

    Source: Blom 1958; ties as in FMRIB's nets_inormal; order of steps: Pain, Dudbridge and Ronald 2018, Eur J Hum
    Genet 26:1194.
    """
    return SortedValues.of(values).normal_scores()


@lru_cache(maxsize=512)
def _normal_scores(n: int) -> NDArray[np.float64]:
    # Exactly antisymmetric, so that mirrored values get mirrored scores.
    lower = special.ndtri((np.arange(1, n // 2 + 1) - BLOM) / (n + 1.0 - 2.0 * BLOM))
    scores = np.concatenate([lower, np.zeros(n % 2), -lower[::-1]])
    scores.flags.writeable = False
    return scores


def outliers(values: NDArray[np.float64], limit_sd: float) -> NDArray[np.bool_]:
    """Which values lie more than `limit_sd` robust SDs from the median: |x - median| / (1.4826 MAD) > limit.

    Where the MAD is 0 (more than half of the values are the same) the SD takes its place.

    Source: the rule for confounds of Alfaro-Almagro et al. 2021, NeuroImage 224:117002, with 8 as limit.
    """
    ordered = SortedValues.of(values)
    far = np.zeros(values.shape, dtype=bool)
    far[ordered.positions] = _far(ordered.values, limit_sd)
    return far


def _far(x: NDArray[np.float64], limit_sd: float) -> NDArray[np.bool_]:
    """The outliers among values in increasing order."""
    n = x.size
    if n == 0:
        return np.zeros(0, dtype=bool)
    distance = np.abs(x - 0.5 * (x[(n - 1) // 2] + x[n // 2]))
    spread = MAD_TO_SD * float(np.median(distance))
    if spread == 0.0:
        spread = float(np.std(x))
    if spread == 0.0 or max(distance[0], distance[-1]) <= limit_sd * spread:
        return np.zeros(n, dtype=bool)
    return distance > limit_sd * spread
