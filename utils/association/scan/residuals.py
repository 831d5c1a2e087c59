"""Targets (nIDPs) without their confounds, each on its own rows: what a permutation shuffles predictors against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utils.association.scan.basis import Residuals, orthonormal_basis, standardised
from utils.association.scan.blocks import in_tiles
from utils.association.scan.pattern_cache import CACHE_BYTES, PatternCache, Patterns
from utils.association.scan.patterns import Pattern
from utils.association.scan.predictors import Design, own_design
from utils.association.scan.targets import TILE, Tile, centred_squares, enough_left

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class ResidualTargets:
    """Residuals of targets given the constant and the confounds, each on the target's own rows.

    values : (P, S) float32
        Unit length over the subjects that have the target, zero elsewhere.
    present : (P, S) bool
        Which subjects have the target.
    usable : (P,) bool
        False (and values zero) where nothing is left: no rows, constant, or explained by the confounds.
    """

    values: NDArray[np.float32]
    present: NDArray[np.bool_]
    usable: NDArray[np.bool_]


class TargetResiduals:
    """Leaves [1, confounds (S, K)] out of targets, block by block; what does not depend on them is made once.

    Like the scan: one small Gram matrix for a pattern of missing values, kept for later blocks, and rows only where
    that is not exact enough. Nothing but the result is of the size of the targets.
    """

    def __init__(self, confounds: Array, n_threads: int | None = None):
        from threadpoolctl import threadpool_limits

        n_subjects = len(confounds)
        self._n_threads = n_threads
        self._confounds = standardised(confounds)
        nothing, everyone = np.empty((n_subjects, 0)), np.ones(n_subjects, dtype=bool)
        with threadpool_limits(1, "blas"):  # the same bits in any number of threads
            self._design = own_design(
                nothing, self._confounds, everyone, np.empty(0, dtype=np.intp)
            )
        self._cache = PatternCache([self._design], n_subjects, 0, CACHE_BYTES)

    def of(self, targets: Array) -> ResidualTargets:
        """Residuals of targets (S, P; NaN missing) on each target's rows, at unit length."""
        n_subjects, n_targets = targets.shape
        values = np.zeros((n_targets, n_subjects), dtype=np.float32)
        present = np.zeros((n_targets, n_subjects), dtype=bool)
        usable = np.zeros(n_targets, dtype=bool)

        def fill(columns: slice, patterns: list[Patterns]) -> None:
            given = targets[:, columns]
            present[columns] = np.isfinite(given.T)
            of_design = [pattern for (pattern,) in patterns]
            values[columns], usable[columns] = _of_tile(
                given, present[columns], self._design, of_design
            )
            for j in columns.start + np.flatnonzero(~usable[columns]):
                values[j, present[j]], usable[j] = _by_rows(
                    targets[present[j], j], self._confounds[present[j]]
                )

        for _ in in_tiles(targets, self._cache, self._n_threads, fill):
            pass
        return ResidualTargets(values, present, usable)


def residual_targets(
    targets: Array, confounds: Array, n_threads: int | None = None
) -> ResidualTargets:
    """Residuals of targets (S, P; NaN missing) given [1, confounds (S, K)]: `TargetResiduals` of one block."""
    return TargetResiduals(confounds, n_threads).of(targets)


def _of_tile(
    targets: Array, present: Mask, design: Design, patterns: list[Pattern]
) -> tuple[Array, Mask]:
    """Residuals (p, S) of a tile's targets and which of them (p,) are exact enough; the others are zero."""
    (group,) = design.groups
    tile = Tile.of(targets)
    of_basis, _ = tile.products(group)
    squares = tile.squares(np.ones((len(targets), 1)))[:, 0]
    slopes = np.zeros((TILE, group.k))
    left = np.zeros(len(patterns))
    for j, pattern in enumerate(patterns):
        if pattern.exact:
            explained = pattern.whitening @ of_basis[j]
            slopes[j] = explained @ pattern.whitening
            left[j] = squares[j] - explained @ explained
    n = np.array([pattern.n for pattern in patterns])
    sound = enough_left(
        squares, centred_squares(squares, of_basis[:, 0] / design.constant, n), left
    )
    residuals = tile.without(slopes, group)
    scales = sound / np.sqrt(np.where(sound, left, 1.0))
    return residuals * scales[:, None] * present, sound


def _by_rows(target: Array, confounds: Array) -> tuple[Array, bool]:
    """The residual (n,) of a complete target given [1, confounds (n, K)]; zero, and False, where nothing is left."""
    basis = orthonormal_basis(confounds) if len(target) else np.empty((0, 0))
    if len(target) <= basis.shape[1] + 1:
        return np.zeros(len(target)), False
    left = Residuals((target - target.mean())[:, None], basis)
    if left.constant[0] or left.collinear[0]:
        return np.zeros(len(target)), False
    return left.unit[:, 0], True
