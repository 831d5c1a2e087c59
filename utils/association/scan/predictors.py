"""The predictors (deltas) of a scan, made ready once: their confounds' basis, their residuals on their own subjects."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from utils.association.scan.basis import (
    Residuals,
    group_by_mask,
    orthonormal_basis,
    standardised,
)

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# A predictor that keeps a smaller share of its length after the confounds is a linear combination of them.
EXPLAINED_LENGTH = 1e-10
# A predictor that keeps more of its centred variance than this is not explained by the confounds on any rows.
SURELY_LEFT = 1e-9
# A direction of the basis that keeps less than this of its squared length on a group's subjects is nearly lost there:
# the group gets a basis of its own, unless the direction is gone: nowhere larger than VANISHED.
NEARLY_LOST, VANISHED = 1e-4, 1e-12


@dataclass(frozen=True)
class PredictorGroup:
    """Predictors with the same subjects, without the confounds there.

    columns : (c,) which predictors
    mask : (S,) their subjects; n of them
    matrix : (S, k + c) [Q | D], rows contiguous, 0 outside of the mask; Q the design's basis, D the predictors'
        residuals on their subjects at unit length (0 where nothing is left)
    gram : (k, k) Q'Q on the subjects
    transform : (k, rank on the subjects) T with T' gram T = I, None where gram is I
    residual_length : (c,) of the predictors after the confounds
    surely_left : (c,) a unit residual that keeps more than this squared length on some of the subjects is not
        explained by the confounds there
    alive : (c,) False where a predictor is constant or explained by the confounds, hence on any fewer subjects, too
    dead_values : (S, number of those) as given
    """

    columns: NDArray[np.intp]
    mask: Mask
    n: int
    matrix: Array
    gram: Array
    transform: Array | None
    residual_length: Array
    surely_left: Array
    alive: Mask
    dead_values: Array

    @property
    def k(self) -> int:
        """Columns of the basis."""
        return len(self.gram)


@dataclass(frozen=True)
class Design:
    """Groups of predictors that share a basis of the confounds.

    mask : (S,) subjects of any of the groups
    constant : the value of the basis' first column, the constant's
    matrix : (S, k + C) [Q | D of all groups], rows contiguous
    groups : in the order of their predictors in the matrix
    """

    mask: Mask
    constant: float
    matrix: Array
    groups: list[PredictorGroup]

    @cached_property
    def masks(self) -> Mask:
        """(S, groups) the subjects of each group."""
        return np.ascontiguousarray(np.stack([group.mask for group in self.groups], axis=1))

    @cached_property
    def columns(self) -> list[slice]:
        """Where the predictors of each group are in D of all groups."""
        ends = np.cumsum([0, *(len(group.columns) for group in self.groups)]).tolist()
        return [slice(first, last) for first, last in pairwise(ends)]


def build_designs(predictors: Array, confounds: Array) -> list[Design]:
    """Designs for predictors (S, C; NaN missing) by their subjects; predictors without a subject are in none."""
    scaled = standardised(confounds)
    masks = [(m, columns) for m, columns in group_by_mask(np.isfinite(predictors)) if m.any()]
    if len(masks) <= 1:
        return [own_design(predictors, scaled, mask, columns) for mask, columns in masks]
    everyone = np.any([mask for mask, _ in masks], axis=0)
    basis = _basis(scaled, everyone)
    together, alone = [], []
    for mask, columns in masks:
        gram = basis[mask].T @ basis[mask]
        transform = _transform(gram, basis[mask])
        if transform is None:
            alone.append(own_design(predictors, scaled, mask, columns))
        else:
            together.append(_group(predictors, scaled, mask, columns, basis, gram, transform))
    if not together:
        return alone
    k = basis.shape[1]
    matrix = np.hstack([basis, *(group.matrix[:, k:] for group in together)])
    return [Design(everyone, float(basis[everyone][0, 0]), matrix, together), *alone]


def own_design(
    predictors: Array, confounds: Array, mask: Mask, columns: NDArray[np.intp]
) -> Design:
    """A design of one group: the predictors of these columns, which exactly the subjects in the mask (S,) have."""
    basis = _basis(confounds, mask)
    group = _group(predictors, confounds, mask, columns, basis, np.eye(basis.shape[1]), None)
    return Design(mask, 1.0 / np.sqrt(group.n), group.matrix, [group])


def _basis(confounds: Array, mask: Mask) -> Array:
    """(S, k) an orthonormal basis of [1 Z] on the subjects in the mask, the constant first, 0 elsewhere."""
    of_confounds = orthonormal_basis(confounds[mask])
    basis = np.zeros((len(mask), of_confounds.shape[1] + 1))
    basis[mask, 0] = 1.0 / np.sqrt(np.count_nonzero(mask))
    basis[mask, 1:] = of_confounds
    return basis


def _transform(gram: Array, basis: Array) -> Array | None:
    """T (k, rank) with T' gram T = I for the basis on a group's subjects (n, k); None where it is nearly collinear."""
    values, vectors = np.linalg.eigh(gram)
    kept = values > NEARLY_LOST * values[-1]
    if np.abs(basis @ vectors[:, ~kept]).max(initial=0.0) > VANISHED:
        return None
    return vectors[:, kept] / np.sqrt(values[kept])


def _group(
    predictors: Array,
    confounds: Array,
    mask: Mask,
    columns: NDArray[np.intp],
    basis: Array,
    gram: Array,
    transform: Array | None,
) -> PredictorGroup:
    rows = np.flatnonzero(mask)
    left = Residuals(predictors[np.ix_(rows, columns)], orthonormal_basis(confounds[rows]))
    # `collinear` with a limit that only rounding is below: on fewer rows it holds, too.
    explained = left.residual_length <= EXPLAINED_LENGTH * left.length
    alive = ~left.constant & ~explained
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = (left.length / left.residual_length) ** 2
    k = basis.shape[1]
    matrix = np.zeros((len(mask), k + columns.size))
    matrix[rows, :k] = basis[rows]
    matrix[rows, k:] = np.where(alive, left.unit, 0.0)
    return PredictorGroup(
        columns=columns,
        mask=mask,
        n=rows.size,
        matrix=matrix,
        gram=gram,
        transform=transform,
        residual_length=left.residual_length,
        surely_left=SURELY_LEFT * shares,
        alive=alive,
        dead_values=predictors[:, columns[~alive]],
    )
