r"""The largest statistic of a family under joint permutations of all predictors (max-T, Freedman-Lane).

One row permutation moves the residuals of all predictors at once while the targets stay, so that the dependence
among contrasts and that among nIDPs are both kept. With x~ the residuals of a predictor given [1 Z] on its rows, Q an
orthonormal basis of [1 Z] and y the residual of a target on its own rows (zero elsewhere, unit length), permutation b
is

    x = pi_b(x~),   x <- x - Q (Q'x),   r^2 = w (x'y)^2 / (x^2)'m,   t = r sqrt(df / (1 - r^2))

with m the target's rows. Complete targets: w = 1, and r is the exact partial correlation of the permuted predictor.
Missing targets: the exact denominator would need a projection per target and permutation, (x^2)'m needs one product
of matrices. Its expectation is not that of the exact one (with 600 subjects, 200 confounds and a fifth missing it is
a seventh larger, and the maxima would be too small), but the ratio of the two is known before any permutation:

    w = [sum over m of (1 - h_i)] / [(df + 1) y'My]

where df is n - rank - 1, h_i the leverage of subject i and y'My the squared length of the target, without [1 Z], on
the rows of the predictor (1 where those are all). So E r^2 = 1 / (df + 1), as of an exact partial correlation.

Maxima are of -log10 p, which means the same for pairs that differ in df; those of t or r would be ruled by the pairs
with the fewest subjects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utils.association.inference.exchangeability import ExchangeableRows, exchangeable_rows
from utils.association.inference.largest_statistic import LargestByDf
from utils.association.scan import ResidualTargets, group_by_mask, residual_targets
from utils.association.scan.basis import orthonormal_basis, standardised
from utils.common.errors import UserError
from utils.common.randomness import generator

Array = NDArray[np.float64]
Single = NDArray[np.float32]

# Permuted predictors that go through one matrix product: wide enough to be fast, narrow enough for the caches.
BATCH_COLUMNS = 256
# Targets whose rows are multiplied at once while weights are prepared; bounds the memory of that step.
TARGETS_AT_ONCE = 512
# A direction of the confounds with a smaller share of the largest squared length is gone from a predictor's rows.
RANK_TOLERANCE = 1e-8


@dataclass(frozen=True)
class _Rows:
    """Predictors present in the same rows: their numbers, the rows, and how to leave out the confounds there.

    inverse : (k, k) float64
        Pseudo-inverse of Q'Q on the rows; the identity where these are all.
    free : (S,) float64
        1 - leverage on the rows, 0 elsewhere; sums to the rows minus the rank.
    """

    predictors: NDArray[np.intp]
    mask: NDArray[np.bool_]
    inverse: Array
    free: Array


@dataclass(frozen=True)
class JointPermutation:
    """The same random permutations of all predictors for every block of targets; made by `joint_permutation`.

    predictors : (C, S) float32
        Residuals on each predictor's rows, zero elsewhere.
    basis : (S, k) float32
        Orthonormal basis of [1 Z] on all rows.
    takes_part : (C,) bool
        False: nothing of this predictor is left after the confounds, or too few subjects share its pattern; its
        maxima are 0, and its observed statistics have no place in the family.
    """

    predictors: Single
    basis: Single
    same_rows: tuple[_Rows, ...]
    rows: ExchangeableRows
    takes_part: NDArray[np.bool_]
    n_permutations: int
    seed: tuple[int | str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user: who is left out, who cannot move."""
        return self.rows.notes

    def order(self, permutation: int) -> NDArray[np.intp]:
        """The order of the rows in this permutation; a function of the seed's words and the number alone."""
        return self.rows.order(generator(*self.seed, "permutation", permutation))

    def maxima(
        self,
        targets: ResidualTargets,
        df: Array,
        advance: Callable[[int], None] | None = None,
        n_free: Array | None = None,
    ) -> Array:
        """Per permutation and predictor the largest -log10 p over these targets.

        Maxima over several blocks of targets merge by `np.maximum`, exactly: permutations do not depend on the
        block. A block of the same shape gives the same bits again, whatever else is computed.

        Parameters
        ----------
        targets : ResidualTargets
            P targets; as many at once as the memory allows (about 9 bytes x P x S).
        df : (C, P) float
            Degrees of freedom of the observed statistics; NaN where a pair is not tested.
        advance : function or None
            Called with the number of permutations just done.
        n_free : (C, P) float or None
            n - rank of each pair, where p are of other degrees of freedom than n - rank - 1 (published ones); None:
            df + 1.

        Returns
        -------
        (B, C) float
            -log10 p; 0 for a predictor without a tested pair. The maximum over columns is that of the joint family.

        Raises
        ------
        ValueError
            Shapes that do not belong together.
        """
        if targets.values.shape[1] != self.basis.shape[0] or df.shape != (
            len(self.predictors),
            len(targets.values),
        ):
            raise ValueError(
                f"df {df.shape} and targets {targets.values.shape} do not fit {len(self.predictors)} predictors of "
                f"{self.basis.shape[0]} subjects"
            )
        mask_of, masks = _distinct_masks(targets.present)
        n_free = df + 1.0 if n_free is None else np.where(np.isfinite(df), n_free, np.nan)
        weights = self._weights(targets, n_free, mask_of, masks)
        largest = LargestByDf(np.where(weights > 0, df, np.nan))
        every_target_own_mask = masks.shape[0] == targets.values.shape[0]
        n_predictors = len(self.predictors)
        maxima = np.zeros((self.n_permutations, n_predictors))
        batch = max(1, BATCH_COLUMNS // n_predictors)
        for first in range(0, self.n_permutations, batch):
            n = min(batch, self.n_permutations - first)
            permuted = self._permuted(range(first, first + n))
            r_squared = permuted @ targets.values.T
            np.multiply(r_squared, r_squared, out=r_squared)
            np.multiply(permuted, permuted, out=permuted)
            lengths = permuted @ masks.T
            np.maximum(lengths, np.finfo(np.float32).tiny, out=lengths)
            r_squared /= lengths if every_target_own_mask else lengths[:, mask_of]
            by_permutation = r_squared.reshape(n, *df.shape)
            by_permutation *= weights
            maxima[first : first + n] = largest(by_permutation)
            if advance is not None:
                advance(n)
        return maxima

    def _permuted(self, permutations: range) -> Single:
        """Permuted predictors (n C, S), the confounds left out again on each predictor's rows."""
        n_predictors, n_subjects = self.predictors.shape
        permuted = np.empty((len(permutations), n_predictors, n_subjects), dtype=np.float32)
        for k, permutation in enumerate(permutations):
            self.predictors.take(self.order(permutation), axis=1, out=permuted[k], mode="clip")
        flat = permuted.reshape(-1, n_subjects)
        along = (flat @ self.basis).reshape(len(permutations), n_predictors, -1)
        incomplete = [rows for rows in self.same_rows if not rows.mask.all()]
        for rows in incomplete:
            along[:, rows.predictors] = along[:, rows.predictors] @ rows.inverse.astype(np.float32)
        flat -= along.reshape(flat.shape[0], -1) @ self.basis.T
        for rows in incomplete:
            absent = np.flatnonzero(~rows.mask)
            permuted[np.ix_(np.arange(len(permutations)), rows.predictors, absent)] = 0.0
        return flat

    def _weights(
        self, targets: ResidualTargets, n_free: Array, mask_of: NDArray[np.intp], masks: Single
    ) -> Single:
        """The factors w (C, P) of the module's head; 0 where a pair is not tested."""
        weights = np.zeros(n_free.shape)
        for rows in self.same_rows:
            free = (masks @ rows.free.astype(np.float32)).astype(float)[mask_of]
            kept = self._length_on(rows, targets.values)
            tested = (
                np.isfinite(n_free[rows.predictors])
                & (targets.usable & (free > 0) & (kept > 0))
                & self.takes_part[rows.predictors, None]
            )
            with np.errstate(divide="ignore", invalid="ignore"):
                factor = free / (n_free[rows.predictors] * kept)
            weights[rows.predictors] = np.where(tested, factor, 0.0)
        return weights.astype(np.float32)

    def _length_on(self, rows: _Rows, values: Single) -> Array:
        """y'My of each target (P,) on the rows of these predictors, M leaving out [1 Z] there.

        y has unit length and is orthogonal to [1 Z] on all rows, so that the fewer of the rows and the others tell.
        """
        others = rows.mask.sum() > rows.mask.size / 2
        counted = np.flatnonzero(rows.mask != others)
        lengths = np.empty(len(values))
        for first in range(0, len(values), TARGETS_AT_ONCE):
            block = slice(first, first + TARGETS_AT_ONCE)
            there = values[block].take(counted, axis=1)
            along = (there @ self.basis[counted]).astype(float)
            part = np.einsum("ij,ij->i", there, there, dtype=float)
            whole = 1.0 - part if others else part
            lengths[block] = whole - np.einsum("ij,ij->i", along @ rows.inverse, along)
        return np.maximum(lengths, 0.0)


def joint_permutation(
    predictors: Array,
    confounds: Array,
    n_permutations: int,
    seed: tuple[int | str, ...],
    labels: NDArray | None = None,
) -> JointPermutation:
    """Prepare joint permutations of all predictors.

    Rows change places only within a pattern of present predictors and, if given, within an exchangeability label;
    see `exchangeable_rows`.

    Parameters
    ----------
    predictors : (S, C) float
        NaN where missing.
    confounds : (S, K) float
        Complete, without the constant; of the same subjects as those of the targets' residuals.
    n_permutations : int
        At least 1; 1,000 or more for the tail to be refined.
    seed : tuple of words
        The permutations are a function of these words: give each sex its own.
    labels : (S,) or None
        Exchangeability blocks.

    Raises
    ------
    UserError
        No permutation asked for, no row could move, or a label is missing.
    ValueError
        A confound is missing somewhere.

    Source: Freedman and Lane 1983, J Bus Econ Stat 1:292; Westfall and Young 1993, Resampling-based multiple testing
    (single step); Winkler et al. 2014, NeuroImage 92:381. None was re-read: statistics of single permutations are
    tested against ordinary least squares, maxima against nilearn's `permuted_ols` and complete enumeration. The
    weight w was derived here; the error rates that it gives are measured by benchmarks/calibration.py.
    """
    if n_permutations < 1:
        raise UserError(
            f"permutations: {n_permutations} were asked for; at least 1 is needed, 1,000 are usual"
        )
    if not np.isfinite(confounds).all():
        raise ValueError("confounds must be complete; fill missing values before permuting")
    present = np.isfinite(predictors)
    rows = exchangeable_rows(present, labels)
    present = present & (rows.blocks >= 0)[:, None]
    residuals = residual_targets(np.where(present, predictors, np.nan), confounds)
    n_subjects = len(predictors)
    constant = np.full((n_subjects, 1), n_subjects**-0.5)
    basis = np.hstack([constant, orthonormal_basis(standardised(confounds))])
    same_rows = tuple(
        _rows_of(mask, columns, basis) for mask, columns in group_by_mask(residuals.present.T)
    )
    return JointPermutation(
        predictors=residuals.values,
        basis=basis.astype(np.float32),
        same_rows=same_rows,
        rows=rows,
        takes_part=residuals.usable,
        n_permutations=n_permutations,
        seed=tuple(seed),
    )


def _rows_of(mask: NDArray[np.bool_], columns: NDArray[np.intp], basis: Array) -> _Rows:
    """Inverse and leverages of the basis on the rows of `mask`."""
    there = np.where(mask[:, None], basis, 0.0)
    inverse = np.linalg.pinv(there.T @ there, rcond=RANK_TOLERANCE, hermitian=True)
    leverage = np.einsum("ij,ij->i", there @ inverse, there)
    return _Rows(columns, mask, inverse, np.where(mask, np.maximum(1.0 - leverage, 0.0), 0.0))


def _distinct_masks(present: NDArray[np.bool_]) -> tuple[NDArray[np.intp], Single]:
    """Number of each target's mask (P,) and the distinct masks (U, S) as float32: targets often share their rows."""
    groups = group_by_mask(present.T)
    mask_of = np.empty(len(present), dtype=np.intp)
    for number, (_, columns) in enumerate(groups):
        mask_of[columns] = number
    return mask_of, np.array([mask for mask, _ in groups], dtype=np.float32)
