"""Confounds on a set of rows: an orthonormal basis whose width is their rank there, and what is left of a column."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# A direction of the standardised confounds with a smaller share of the largest singular value is no direction.
RANK_TOLERANCE = 1e-8
# A column whose spread on the rows is a smaller share of its largest value there is constant (rounding aside).
CONSTANT_TOLERANCE = 1e-10
# A column that keeps a smaller share of its variance after the confounds is explained by them.
COLLINEAR_TOLERANCE = 1e-10


def group_by_mask(present: NDArray[np.bool_]) -> list[tuple[NDArray[np.bool_], NDArray[np.intp]]]:
    """Columns of an (S, P) presence table grouped by identical columns: (mask (S,), column indices)."""
    packed = np.packbits(present, axis=0)
    groups: dict[bytes, list[int]] = {}
    for column in range(present.shape[1]):
        groups.setdefault(packed[:, column].tobytes(), []).append(column)
    return [(present[:, columns[0]], np.asarray(columns)) for columns in groups.values()]


def orthonormal_basis(confounds: Array) -> Array:
    """An orthonormal basis, orthogonal to the constant, of the confounds on these rows; its width is rank[1 Z] - 1.

    Columns are centred and scaled to unit length here, constant ones dropped, and directions counted by singular
    values (QR, then SVD of the small triangle), so that the units of a confound do not decide about the rank.
    """
    centred = confounds - confounds.mean(axis=0) if confounds.shape[1] else confounds
    lengths = np.sqrt(np.einsum("ij,ij->j", centred, centred))
    varying = ~_negligible(lengths, confounds)
    if not varying.any():
        return np.empty((len(confounds), 0))
    scaled = centred[:, varying] / lengths[varying]
    q, triangle = np.linalg.qr(scaled)
    left, singular, _ = np.linalg.svd(triangle, full_matrices=False)
    rank = int((singular > RANK_TOLERANCE * singular[0]).sum())
    return q @ left[:, :rank]


def explained_by_confounds(values: Array, confounds: Array) -> NDArray[np.bool_]:
    """Which columns (n, P) are a linear combination of the confounds (n, K) and the constant; both complete.

    Confounds that span all rows explain everything, which says nothing about a column: none is marked then, and the
    scan says that there are too few degrees of freedom.
    """
    basis = orthonormal_basis(standardised(confounds))
    if basis.shape[1] + 1 >= len(values):
        return np.zeros(values.shape[1], dtype=bool)
    return Residuals(values - values.mean(axis=0), basis).collinear


class Residuals:
    """Columns on one set of rows: centred length, length after the confounds, and the residuals at unit length."""

    def __init__(self, values: Array, basis: Array):
        centred = values - values.mean(axis=0)
        self.length = np.sqrt(np.einsum("ij,ij->j", centred, centred))
        self.constant = _negligible(self.length, values)
        residual = centred - basis @ (basis.T @ centred)
        residual -= basis @ (
            basis.T @ residual
        )  # twice is enough: removes the rounding of the first pass
        self.residual_length = np.sqrt(np.einsum("ij,ij->j", residual, residual))
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (self.residual_length / self.length) ** 2
            self.unit = residual / self.residual_length
        self.collinear = ~self.constant & ~(share > COLLINEAR_TOLERANCE)
        self.sd = self.length / np.sqrt(max(len(values) - 1, 1))
        n_free = max(len(values) - basis.shape[1] - 1, 0)  # 0: fewer rows than confounds, no test
        self.residual_sd = (
            self.residual_length / np.sqrt(n_free) if n_free else self.length * np.nan
        )


def is_constant(values: Array) -> NDArray[np.bool_]:
    """Which columns of (n, P) do not vary, but for rounding."""
    centred = values - values.mean(axis=0)
    return _negligible(np.sqrt(np.einsum("ij,ij->j", centred, centred)), values)


def _negligible(lengths: Array, values: Array) -> NDArray[np.bool_]:
    """Whether centred columns of these lengths are what rounding leaves of values (n, P)."""
    largest = np.abs(values).max(axis=0, initial=0.0)
    return lengths <= CONSTANT_TOLERANCE * np.sqrt(len(values)) * largest


def column_means(values: Array) -> Array:
    """Means of the present values by column; 0 for an empty column."""
    present = np.isfinite(values)
    return np.where(present, values, 0.0).sum(axis=0) / np.maximum(present.sum(axis=0), 1)


def standardised(values: Array) -> Array:
    """Columns with mean 0 and SD 1; constant ones are only centred."""
    if values.shape[1] == 0:
        return values
    centred = values - values.mean(axis=0)
    sd = centred.std(axis=0)
    return centred / np.where(sd > 0, sd, 1.0)
