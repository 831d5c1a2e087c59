"""The scan by rows: the plain way, an orthonormal basis of the confounds on the rows of every pattern (QR).

It is what the engine is checked against, and what takes the pairs for which sums of products are not exact enough.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from utils.association.scan.basis import (
    Residuals,
    column_means,
    group_by_mask,
    orthonormal_basis,
    standardised,
)
from utils.association.scan.statistics import (
    COLLINEAR,
    CONSTANT,
    DEGENERATE,
    DEGENERATE_TOLERANCE,
    DELTA_COLLINEAR,
    DELTA_CONSTANT,
    TOO_FEW_CASES,
    TOO_FEW_DF,
    TOO_FEW_SUBJECTS,
    PairLimits,
    PairStatistics,
)

Array = NDArray[np.float64]


def scan_by_rows(
    deltas: Array, nidps: Array, confounds: Array, binary: NDArray[np.bool_], limits: PairLimits
) -> PairStatistics:
    """What `scan_pairs` gives, one least squares basis for every pattern of missing values; see there."""
    out = PairStatistics.empty(deltas.shape[1], nidps.shape[1])
    centred = nidps - column_means(nidps)
    scaled = standardised(confounds)
    delta_groups = group_by_mask(np.isfinite(deltas))
    for nidp_mask, nidp_columns in group_by_mask(np.isfinite(nidps)):
        for delta_mask, delta_columns in delta_groups:
            rows = np.flatnonzero(nidp_mask & delta_mask)
            n_cases = (nidps[np.ix_(rows, nidp_columns)] == 1.0).sum(axis=0)
            smaller = np.minimum(n_cases, rows.size - n_cases).astype(float)
            part = scan_rows(
                deltas[np.ix_(rows, delta_columns)],
                centred[np.ix_(rows, nidp_columns)],
                scaled[rows],
                np.where(binary[nidp_columns], smaller, np.nan),
                limits,
            )
            out.put(np.ix_(delta_columns, nidp_columns), part)
    return out


def scan_rows(
    deltas: Array, centred_nidps: Array, confounds: Array, n_cases: Array, limits: PairLimits
) -> PairStatistics:
    """All pairs of deltas (n, C) and nIDPs (n, P) that have exactly these n rows, given confounds (n, K).

    n_cases : (P,), subjects in the smaller class, NaN where the nIDP is not binary. All values are complete.
    """
    out = PairStatistics.empty(deltas.shape[1], centred_nidps.shape[1])
    n = len(deltas)
    out.n[:] = n
    if n < limits.minimum_n:
        out.reason[:] = TOO_FEW_SUBJECTS
        return out
    basis = orthonormal_basis(confounds)
    rank = basis.shape[1] + 1
    df = n - rank - 1
    out.rank[:], out.df[:] = rank, df
    if df < limits.needed_df(rank):
        out.reason[:] = TOO_FEW_DF
        return out
    _fill(out, Residuals(deltas, basis), Residuals(centred_nidps, basis), n_cases, limits)
    return out


def _fill(
    out: PairStatistics, d: Residuals, y: Residuals, n_cases: Array, limits: PairLimits
) -> None:
    """Correlations, effect sizes and reasons of pairs that share their rows."""
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
    out.reason[:] = reason
    out.n_cases[:] = np.broadcast_to(n_cases, r.shape)
    out.r[:] = np.where(tested | (reason == DEGENERATE), r, np.nan)
    out.beta_per_sd[:] = np.where(tested, beta, np.nan)
    out.delta_years_per_sd[:] = np.where(tested, years, np.nan)
