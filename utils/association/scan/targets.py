"""Targets (nIDPs) a few at a time: read, centred on their own rows, multiplied with what was made ready once.

A tile has a fixed number of rows, filled up with zeros, so that a target's sums have the same bits in any company.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utils.association.scan.predictors import PredictorGroup
from utils.association.scan.scratch import scratch

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# What has to be left of a target's sum of squares after its mean, and after the confounds, to go without its rows:
# a difference of sums that are nearly equal has lost too many digits.
LEFT_OF_SQUARES, LEFT_OF_CENTRED = 1e-6, 1e-3
# Targets of a tile: its doubles for 20,000 subjects (5 MB) stay in a core's share of the cache.
TILE = 32


def packed_presence(targets: Array) -> list[bytes]:
    """For each column of targets (S, p) the bits that say which subjects have it."""
    return [bits.tobytes() for bits in np.packbits(np.isfinite(targets.T), axis=1)]


@dataclass(frozen=True)
class Tile:
    """Up to TILE targets, centred over the subjects that have them and zero elsewhere.

    values : (TILE, S), the thread's scratch: one tile at a time
    n_targets : how many of the rows are targets
    """

    values: Array
    n_targets: int

    @classmethod
    def of(cls, targets: Array) -> Tile:
        """A tile of targets (S, p <= TILE), NaN missing."""
        n_targets = targets.shape[1]
        values = scratch("tile", (TILE, len(targets)))
        values[:] = 0.0
        filled = values[:n_targets]
        present = np.isfinite(targets.T)
        np.copyto(filled, targets.T, where=present)
        counts = np.maximum(np.count_nonzero(present, axis=1), 1)
        filled -= (filled.sum(axis=1) / counts)[:, None]
        filled *= present
        return cls(values, n_targets)

    def squares(self, masks: Array) -> Array:
        """Sums of squares (p, G) over the subjects of each of the masks (S, G)."""
        squares = np.square(self.values, out=scratch("squares", self.values.shape))
        return (squares @ masks)[: self.n_targets]

    def products(self, group: PredictorGroup) -> tuple[Array, Array]:
        """Q'y (p, k) and D'y (p, c) with the group's matrix."""
        products = (self.values @ group.matrix)[: self.n_targets]
        return products[:, : group.k], products[:, group.k :]

    def without(self, slopes: Array, group: PredictorGroup) -> Array:
        """The targets less slopes (TILE, k) times the group's basis (p, S); not zero where a target is missing."""
        residuals = np.matmul(
            slopes, group.matrix[:, : group.k].T, out=scratch("residuals", self.values.shape)
        )
        np.subtract(self.values, residuals, out=residuals)
        return residuals[: self.n_targets]


def centred_squares(squares: Array, totals: Array, n: NDArray[np.int_]) -> Array:
    """Sums of squares (p,) of n values, less what their mean explains of them."""
    return squares - totals**2 / np.maximum(n, 1)


def enough_left(squares: Array, centred: Array, left: Array) -> Mask:
    """Whether sums of products are exact enough: squares, then less the mean, then less the confounds (p,)."""
    return (centred > LEFT_OF_SQUARES * squares) & (left > LEFT_OF_CENTRED * centred)


def count_ones(targets: Array, masks: Array) -> Array:
    """How many subjects of each of the masks (S, G) have a 1: (p, G)."""
    return (targets.T == 1.0).astype(float) @ masks
