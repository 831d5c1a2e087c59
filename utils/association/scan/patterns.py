r"""What a pattern of missing values costs: the confounds' Gram matrix on its rows, and the predictors without them.

With Q an orthonormal basis of [1 Z], D a group's unit residuals (0 outside of the group), and u the rows of the group
that a target has, all that depends on the pattern alone is

    G = Q'uQ,  A = Q'uD,  diag(D'uD)        then, with W G W' = I,    loadings = WA,  left = diag(D'uD) - |WA|^2.

G, A and D'uD are the totals over the group's rows (Q'Q, 0, 1) less the sum over the rows that are missing, or the sum
over the rows that are present where these are fewer: at 20 % missing a fifth of the work. Groups share that sum, but
for the rows of it that a group has not. Every pattern is computed by itself, so that its bits do not depend on which
targets are scanned together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utils.association.scan.basis import is_constant
from utils.association.scan.predictors import VANISHED, Design, PredictorGroup
from utils.association.scan.scratch import scratch

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Mean eigenvalue of G times mean eigenvalue of its inverse: 1 for a perfect basis. Below this limit the ratio of the
# largest to the smallest is at most LIMIT k^2, and about LIMIT k when one direction alone is nearly lost.
MEAN_CONDITION_LIMIT = 100.0
# Eigenvalues of G as shares of the largest: what is smaller than NULL may be a direction that vanished from the rows,
# what is larger than SOUND is one that did not; rows decide about anything between.
NULL_SHARE, SOUND_SHARE = 1e-12, 1e-3
# A predictor that keeps less than this of its variance on the rows (of its variance there after the confounds) is
# left to the rows: a difference of nearly equal sums has lost too many digits.
LEFT_OF_TOTAL, LEFT_OF_ROWS = 1e-2, 1e-3


@dataclass(frozen=True)
class Pattern:
    """A group's predictors on the rows of a pattern.

    n : rows
    whitening : (rank, k) W with W G W' = I
    loadings : (rank, c) WA
    left : (c,) squared length of a unit predictor's residual on these rows
    constant : (number of the group's dead predictors,) which of them are constant on these rows
    exact : False where the rows themselves have to be used; whitening, loadings, left mean nothing then
    """

    n: int
    whitening: Array
    loadings: Array
    left: Array
    constant: Mask
    exact: bool

    @property
    def rank(self) -> int:
        """Rank of [1 Z] on the rows."""
        return len(self.whitening)


def patterns_of(design: Design, present: Mask, minimum_n: int) -> list[Pattern]:
    """Every group's predictors on the rows where a target is present (S,)."""
    sums = _sums(design, present)
    counts = np.count_nonzero(sums.own, axis=0)
    of_group = np.array([group.n for group in design.groups])
    n = (of_group - counts if sums.subtracted else counts).tolist()
    # Few rows are quick by rows, and too few are not looked at.
    many = [i for i, group in enumerate(design.groups) if n[i] >= max(minimum_n, 2 * group.k)]
    inverses = _inverse_roots([_gram(design.groups[i], sums, i) for i in many])
    made = {
        i: _pattern(design.groups[i], present, n[i], sums, design.columns[i], gram, inverse)
        for i, (gram, inverse) in zip(many, inverses)
    }
    return [made.get(i) or _by_rows(n[i], group.k) for i, group in enumerate(design.groups)]


@dataclass(frozen=True)
class _Sums:
    """Sums over the rows of a design that a target has not, or (not `subtracted`) has.

    own : (m, groups) whose rows these are; basis : (m, k) there
    gram : (k, k) Q'Q, cross : (k, C) Q'D, squares : (C,) diag(D'D)
    """

    own: Mask
    basis: Array
    gram: Array
    cross: Array
    squares: Array
    subtracted: bool


def _sums(design: Design, present: Mask) -> _Sums:
    here = design.mask & present
    subtracted = bool(2 * np.count_nonzero(here) > np.count_nonzero(design.mask))
    indices = np.flatnonzero(design.mask & ~present if subtracted else here)
    k = design.groups[0].k
    rows = scratch("rows", (indices.size, design.matrix.shape[1]))
    design.matrix.take(
        indices, axis=0, out=rows, mode="clip"
    )  # the mode that needs no second buffer
    basis, predictors = rows[:, :k], rows[:, k:]
    if len(design.groups) > 1:  # rows of it will be taken again and again
        basis = scratch("basis", basis.shape)
        np.copyto(basis, rows[:, :k])
    squares = np.einsum("ij,ij->j", predictors, predictors)
    own = design.masks[indices]
    return _Sums(own, basis, basis.T @ basis, basis.T @ predictors, squares, subtracted)


def _gram(group: PredictorGroup, sums: _Sums, number: int) -> Array:
    """G, in the group's own coordinates; `number` is the group's place in the design."""
    gram = _gram_of_sum(sums, sums.own[:, number])
    gram = group.gram - gram if sums.subtracted else gram
    if group.transform is None:
        return gram
    return group.transform.T @ gram @ group.transform


def _gram_of_sum(sums: _Sums, own: Mask) -> Array:
    """Q'Q over the rows that a group has (m,): all less the others, or its own where these are fewer."""
    n_own = np.count_nonzero(own)
    if n_own == own.size:
        return sums.gram
    few = np.flatnonzero(~own if 2 * n_own > own.size else own)
    rows = scratch("rows of a group", (few.size, sums.basis.shape[1]))
    sums.basis.take(few, axis=0, out=rows, mode="clip")
    product = rows.T @ rows
    return sums.gram - product if 2 * n_own > own.size else product


def _inverse_roots(grams: list[Array]) -> list[tuple[Array, Array | None]]:
    """Every G with the inverse L^-1 of its Cholesky factor; None where G is not positive or badly conditioned.

    All at once where they have one shape, which gives the same bits as one by one.
    """
    try:
        stack = np.stack(grams)
        inverses = np.linalg.inv(np.linalg.cholesky(stack))
    except (ValueError, np.linalg.LinAlgError):  # no grams, several shapes; not positive
        if len(grams) == 1:
            return [(grams[0], None)]
        return [pair for gram in grams for pair in _inverse_roots([gram])]
    conditions = np.trace(stack, axis1=1, axis2=2) * np.einsum("gij,gij->g", inverses, inverses)
    good = conditions <= MEAN_CONDITION_LIMIT * stack.shape[1] ** 2
    return [(g, inverse if ok else None) for g, inverse, ok in zip(grams, inverses, good)]


def _pattern(
    group: PredictorGroup,
    present: Mask,
    n: int,
    sums: _Sums,
    columns: slice,
    gram: Array,
    inverse: Array | None,
) -> Pattern:
    """The pattern of a group, whose predictors are these columns of the sums."""
    whitening = _whitening_of_fewer(gram, group, present) if inverse is None else inverse
    if whitening is None:
        return _by_rows(n, group.k)
    cross, squares = sums.cross[:, columns], sums.squares[columns]
    least = LEFT_OF_ROWS * squares
    if sums.subtracted:
        cross, squares = -cross, group.alive - squares
        least = np.maximum(LEFT_OF_ROWS * squares, LEFT_OF_TOTAL)
    if group.transform is not None:
        cross = group.transform.T @ cross
    loadings = whitening @ cross
    left = squares - np.einsum("ij,ij->j", loadings, loadings)
    exact = bool((left > np.maximum(least, group.surely_left))[group.alive].all())
    constant = np.zeros(0, dtype=bool)
    if group.dead_values.size:
        constant = is_constant(group.dead_values[group.mask & present])
    if group.transform is not None:
        whitening = whitening @ group.transform.T
    return Pattern(n, whitening, loadings, left, constant, exact)


def _by_rows(n: int, k: int) -> Pattern:
    """A pattern of which only the number of rows is known."""
    return Pattern(
        n, np.empty((0, k)), np.empty((0, 0)), np.empty(0), np.empty(0, dtype=bool), exact=False
    )


def _whitening_of_fewer(gram: Array, group: PredictorGroup, present: Mask) -> Array | None:
    """W (rank, k) where directions have vanished from the rows (a site without subjects, say); None: rows decide."""
    values, vectors = np.linalg.eigh(gram)
    shares = values / values[-1]
    sound, null = shares > SOUND_SHARE, shares < NULL_SHARE
    if not (sound | null).all():
        return None
    basis = group.matrix[group.mask & present, : group.k]
    if group.transform is not None:
        basis = basis @ group.transform
    if np.abs(basis @ vectors[:, null]).max(initial=0.0) > VANISHED:
        return None
    return (vectors[:, sound] / np.sqrt(values[sound])).T
