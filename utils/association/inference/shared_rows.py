"""Subjects on whom several checks are made: their confounds' basis, leverages and residuals, made once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from utils.association.scan import orthonormal_basis
from utils.association.tails import nlog10p_from_t

Array = NDArray[np.float64]

# As in the scan: what keeps a smaller share of its variance after the confounds is explained by them.
COLLINEAR_TOLERANCE = 1e-10
# As in the scan: a spread that is a smaller share of the largest value is rounding.
CONSTANT_TOLERANCE = 1e-10
# Eigenvalues of products that differ by more are not accurate enough to take a root of.
SMALLEST_SHARE = 1e-4


@dataclass(frozen=True)
class SharedRows:
    """Rows (n,) of the analysed subjects, and the confounds' orthonormal basis (n, k - 1) on them.

    The basis is orthogonal to the constant; k, the `rank`, counts the constant.
    """

    rows: NDArray[np.intp]
    basis: Array

    @classmethod
    def of(cls, rows: NDArray[np.intp], confounds: Array) -> SharedRows:
        """From the confounds of all subjects (S, K), complete, best standardised."""
        return cls(rows, orthonormal_basis(confounds[rows]))

    @property
    def n(self) -> int:
        """Subjects."""
        return len(self.rows)

    @property
    def rank(self) -> int:
        """Rank of [1 Z] on these rows."""
        return self.basis.shape[1] + 1

    @property
    def df(self) -> int:
        """Degrees of freedom of one tested variable: n - rank - 1."""
        return self.n - self.rank - 1

    @cached_property
    def leverage(self) -> Array:
        """Diagonal of the hat matrix of [1 Z], (n,): 1/n plus the squared rows of the basis."""
        return 1.0 / self.n + np.einsum("ij,ij->i", self.basis, self.basis)

    def residuals(self, values: Array) -> Array:
        """M v for values (n,) or (n, m) on these rows; all zero where nothing but rounding is left."""
        centred = values - values.mean(axis=0)
        length = np.sqrt((centred**2).sum(axis=0))
        left = centred - self.basis @ (self.basis.T @ centred)
        left -= self.basis @ (self.basis.T @ left)  # removes the rounding of the first pass
        constant = length <= CONSTANT_TOLERANCE * np.sqrt(self.n) * np.abs(values).max(axis=0)
        explained = (left**2).sum(axis=0) <= COLLINEAR_TOLERANCE * length**2
        left[..., constant | explained] = 0.0
        return left


@dataclass(frozen=True)
class ConfoundBases:
    """Confounds (S, K) of all subjects, standardised, and their orthonormal basis (S, k - 1) on all of them."""

    confounds: Array
    basis: Array

    @classmethod
    def of(cls, confounds: Array) -> ConfoundBases:
        """From complete confounds (S, K) as they are."""
        centred = confounds - confounds.mean(axis=0)
        spread = np.sqrt((centred**2).mean(axis=0))
        standardised = centred / np.where(spread > 0, spread, 1.0)
        return cls(standardised, orthonormal_basis(standardised))

    def on(self, rows: NDArray[np.intp]) -> SharedRows:
        """The same space on some rows, by small Gram products instead of anew from the confounds.

        On most rows the basis of all subjects is nearly orthogonal: the inverse root of its products there, applied
        twice (the second time mends the rounding of the first), makes it so. Where a direction has all but vanished
        (a site without subjects among the rows) the basis is made anew and the rank counted.
        """
        left = self.basis[rows]
        for _ in range(2):
            left = left - left.mean(axis=0)
            values, directions = np.linalg.eigh(left.T @ left)
            if values.size and not values[0] > SMALLEST_SHARE * values[-1]:
                return SharedRows.of(rows, self.confounds)
            left = left @ (directions / np.sqrt(values))
        return SharedRows(rows, left)


@dataclass(frozen=True)
class PartialCorrelations:
    """r, its t and -log10 p, each (P,); NaN where a side has nothing left or no degrees of freedom remain."""

    r: Array
    t: Array
    nlog10p: Array


def partial_correlations(tested: Array, targets: Array, df: float) -> PartialCorrelations:
    """Correlation of residuals (n,) and (n, P) that share their rows, tested with df degrees of freedom."""
    with np.errstate(divide="ignore", invalid="ignore"):
        lengths = np.sqrt((tested @ tested) * np.einsum("ij,ij->j", targets, targets))
        r = np.clip((tested @ targets) / lengths, -1.0, 1.0)
        t = r * np.sqrt(df / ((1.0 - r) * (1.0 + r))) if df >= 1 else np.full(r.shape, np.nan)
    return PartialCorrelations(r, t, nlog10p_from_t(t, df))
