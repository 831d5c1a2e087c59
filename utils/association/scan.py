"""The scan: exact partial correlation of every delta with every nIDP on the rows where both exist.

Pairs that share their rows share one orthonormal basis of the confounds: the work grows with the number of distinct
patterns of missing values, not with the number of pairs. Nothing outside this file knows how the scan is done.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utils.association.tails import nlog10p_from_t

Array = NDArray[np.float64]

# A direction of the standardised confounds with a smaller share of the largest singular value is no direction.
RANK_TOLERANCE = 1e-8
# A column whose spread on the rows is a smaller share of its largest value there is constant (rounding aside).
CONSTANT_TOLERANCE = 1e-10
# A column that keeps a smaller share of its variance after the confounds is explained by them.
COLLINEAR_TOLERANCE = 1e-10
# |r| closer to 1 than this means that one variable is a copy of the other.
DEGENERATE_TOLERANCE = 1e-12
Z_975 = 1.959963984540054

TOO_FEW_SUBJECTS = "too_few_subjects"
TOO_FEW_DF = "too_few_degrees_of_freedom"
TOO_FEW_CASES = "too_few_cases"
CONSTANT = "constant"
COLLINEAR = "collinear_with_confounds"
DELTA_CONSTANT = "delta_constant"
DELTA_COLLINEAR = "delta_collinear_with_confounds"
DEGENERATE = "degenerate"


@dataclass(frozen=True)
class PairLimits:
    """What a pair needs to be tested: subjects, df >= max(minimum_df, df_per_rank x rank), subjects per class."""

    minimum_n: int = 51
    minimum_df: int = 50
    df_per_rank: float = 2.0
    minimum_class: int = 10


@dataclass
class PairStatistics:
    """One value per contrast and nIDP, all of shape (C, P); NaN and a reason where there is no test."""

    n: NDArray[np.int64]
    n_cases: Array
    rank: Array
    df: Array
    r: Array
    beta_per_sd: Array
    delta_years_per_sd: Array
    reason: NDArray[np.object_]

    @classmethod
    def empty(cls, n_contrasts: int, n_nidps: int) -> PairStatistics:
        """Nothing tested yet."""
        shape = (n_contrasts, n_nidps)
        return cls(
            n=np.zeros(shape, dtype=np.int64),
            n_cases=np.full(shape, np.nan),
            rank=np.full(shape, np.nan),
            df=np.full(shape, np.nan),
            r=np.full(shape, np.nan),
            beta_per_sd=np.full(shape, np.nan),
            delta_years_per_sd=np.full(shape, np.nan),
            reason=np.full(shape, "", dtype=object),
        )

    @property
    def t(self) -> Array:
        """t = r sqrt(df / (1 - r^2)), with 1 - r^2 as (1 - r)(1 + r)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.r * np.sqrt(self.df / ((1.0 - self.r) * (1.0 + self.r)))

    @property
    def nlog10p(self) -> Array:
        """-log10 of the two-sided p; NaN where a reason stands."""
        return np.where(self.reason == "", nlog10p_from_t(self.t, self.df), np.nan)

    @property
    def fisher_z(self) -> Array:
        """Atanh r; its standard error is 1 / sqrt(df - 1) = 1 / sqrt(n - q - 3)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.arctanh(self.r)

    def interval(self) -> tuple[Array, Array]:
        """The 95 % confidence interval of r by Fisher's z."""
        with np.errstate(divide="ignore", invalid="ignore"):
            half = Z_975 / np.sqrt(self.df - 1.0)
        return np.tanh(self.fisher_z - half), np.tanh(self.fisher_z + half)


def scan_pairs(
    deltas: Array, nidps: Array, confounds: Array, binary: NDArray[np.bool_], limits: PairLimits
) -> PairStatistics:
    r"""Partial correlation of each delta with each nIDP given the confounds, exact on each pair's own rows.

    With S the rows where both exist, X = [1 Z] on S and M = I - X X^+,

        r = d'My / sqrt(d'Md y'My),   t = r sqrt(df / (1 - r^2)),   df = |S| - rank(X) - 1

    which is the t of d in the least squares fit y ~ d + Z (Frisch-Waugh-Lovell). rank(X) is counted on S, so a
    site that vanishes from S, or a confound given twice, costs nothing.

    Parameters
    ----------
    deltas : (S, C) float
        NaN where missing.
    nidps : (S, P) float
        Prepared nIDPs, NaN where missing.
    confounds : (S, K) float
        Complete; without the constant.
    binary : (P,) bool
        nIDPs that are 0/1 and need enough subjects in both classes.
    limits : PairLimits
        What a pair needs to be tested.

    Returns
    -------
    PairStatistics
        Arrays of shape (C, P).

    Raises
    ------
    ValueError
        A confound is missing somewhere: missing confounds are filled before the scan.
    """
    if not np.isfinite(confounds).all():
        raise ValueError("confounds must be complete; fill missing values before the scan")
    out = PairStatistics.empty(deltas.shape[1], nidps.shape[1])
    columns = _Columns(
        deltas, nidps, nidps - _column_means(nidps), _standardised(confounds), binary
    )
    delta_groups = group_by_mask(np.isfinite(deltas))
    for nidp_mask, nidp_columns in group_by_mask(np.isfinite(nidps)):
        for delta_mask, delta_columns in delta_groups:
            rows = np.flatnonzero(nidp_mask & delta_mask)
            _scan_block(out, columns, rows, np.ix_(delta_columns, nidp_columns), limits)
    return out


@dataclass(frozen=True)
class _Columns:
    """What a scan reads: deltas (S, C), nIDPs (S, P) as given and centred, confounds (S, K), which are binary."""

    deltas: Array
    nidps: Array
    centred_nidps: Array
    confounds: Array
    binary: NDArray[np.bool_]


def _scan_block(
    out: PairStatistics,
    columns: _Columns,
    rows: NDArray[np.intp],
    block: tuple[NDArray[np.intp], ...],
    limits: PairLimits,
) -> None:
    """All pairs that have exactly these rows: enough subjects and df, residuals, statistics."""
    delta_columns, nidp_columns = block[0].ravel(), block[1].ravel()
    out.n[block] = rows.size
    if rows.size < limits.minimum_n:
        out.reason[block] = TOO_FEW_SUBJECTS
        return
    basis = orthonormal_basis(columns.confounds[rows])
    rank = basis.shape[1] + 1
    df = rows.size - rank - 1
    out.rank[block], out.df[block] = rank, df
    if df < max(limits.minimum_df, limits.df_per_rank * rank, 1):
        out.reason[block] = TOO_FEW_DF
        return
    d = _Residuals(columns.deltas[np.ix_(rows, delta_columns)], basis)
    y = _Residuals(columns.centred_nidps[np.ix_(rows, nidp_columns)], basis)
    n_cases = (columns.nidps[np.ix_(rows, nidp_columns)] == 1.0).sum(axis=0)
    smaller = np.minimum(n_cases, rows.size - n_cases).astype(float)
    smaller = np.where(columns.binary[nidp_columns], smaller, np.nan)
    _fill_block(out, block, d, y, smaller, limits)


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
    largest = np.abs(confounds).max(axis=0, initial=0.0)
    varying = lengths > CONSTANT_TOLERANCE * np.sqrt(len(confounds)) * largest
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
    basis = orthonormal_basis(_standardised(confounds))
    if basis.shape[1] + 1 >= len(values):
        return np.zeros(values.shape[1], dtype=bool)
    return _Residuals(values - values.mean(axis=0), basis).collinear


class _Residuals:
    """Columns on one set of rows: centred length, length after the confounds, and the residuals at unit length."""

    def __init__(self, values: Array, basis: Array):
        largest = np.abs(values).max(axis=0)
        centred = values - values.mean(axis=0)
        self.length = np.sqrt(np.einsum("ij,ij->j", centred, centred))
        self.constant = self.length <= CONSTANT_TOLERANCE * np.sqrt(len(values)) * largest
        residual = centred - basis @ (basis.T @ centred)
        residual -= basis @ (
            basis.T @ residual
        )  # twice is enough: removes the rounding of the first pass
        self.residual_length = np.sqrt(np.einsum("ij,ij->j", residual, residual))
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (self.residual_length / self.length) ** 2
            self.unit = residual / self.residual_length
        self.collinear = ~self.constant & ~(share > COLLINEAR_TOLERANCE)
        self.sd = self.length / np.sqrt(len(values) - 1)
        n_free = max(len(values) - basis.shape[1] - 1, 0)  # 0: fewer rows than confounds, no test
        self.residual_sd = (
            self.residual_length / np.sqrt(n_free) if n_free else self.length * np.nan
        )


def _fill_block(
    out: PairStatistics,
    block: tuple[NDArray, ...],
    d: _Residuals,
    y: _Residuals,
    n_cases: Array,
    limits: PairLimits,
) -> None:
    """Correlations, effect sizes and reasons of one block of pairs that share their rows."""
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.clip(d.unit.T @ y.unit, -1.0, 1.0)
        # Slope of the nIDP on the delta is r |My| / |Md|, of the delta on the nIDP r |Md| / |My|. A SD of the delta is
        # taken after the confounds: the SD of a raw delta would count its age bias.
        beta = r * y.residual_sd[None, :] / y.sd[None, :]
        years = r * (d.residual_length[:, None] / y.residual_length[None, :]) * y.sd[None, :]
    reason = np.full(r.shape, "", dtype=object)
    reason[np.abs(r) > 1.0 - DEGENERATE_TOLERANCE] = DEGENERATE
    reason[:, n_cases < limits.minimum_class] = TOO_FEW_CASES
    reason[:, y.collinear] = COLLINEAR
    reason[:, y.constant] = CONSTANT
    reason[d.collinear, :] = DELTA_COLLINEAR
    reason[d.constant, :] = DELTA_CONSTANT
    tested = reason == ""
    out.reason[block] = reason
    out.n_cases[block] = np.broadcast_to(n_cases, r.shape)
    keep_r = tested | (reason == DEGENERATE)
    out.r[block] = np.where(keep_r, r, np.nan)
    out.beta_per_sd[block] = np.where(tested, beta, np.nan)
    out.delta_years_per_sd[block] = np.where(tested, years, np.nan)


def _column_means(values: Array) -> Array:
    """Means of the present values by column; 0 for an empty column."""
    present = np.isfinite(values)
    return np.where(present, values, 0.0).sum(axis=0) / np.maximum(present.sum(axis=0), 1)


def _standardised(values: Array) -> Array:
    """Columns with mean 0 and SD 1; constant ones are only centred."""
    if values.shape[1] == 0:
        return values
    centred = values - values.mean(axis=0)
    sd = centred.std(axis=0)
    return centred / np.where(sd > 0, sd, 1.0)
