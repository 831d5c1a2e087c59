"""Partial Spearman correlation: exact on a pair's rows, and ranks of whole columns for an approximate scan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from utils.association.inference.shared_rows import (
    PartialCorrelations,
    SharedRows,
    partial_correlations,
)

Array = NDArray[np.float64]


def partial_spearman(delta: Array, nidps: Array, shared: SharedRows) -> PartialCorrelations:
    """Partial correlation of the ranks of a delta and of nIDPs given the confounds as they are.

    Both sides are ranked within the shared rows (ties get their mean rank), the ranks are residualised on [1 Z], and
    t has the degrees of freedom of the ordinary test. The confounds are not ranked: they stand for what is to be
    removed, age and age squared among them, not for a monotone relation. (pingouin's `partial_corr` ranks them.)

    Parameters
    ----------
    delta : (n,) float
        The delta itself, complete.
    nidps : (n, P) float
        The nIDPs themselves, complete.
    shared : SharedRows
        The rows with the basis of their confounds.
    """
    return partial_correlations(
        shared.residuals(_mean_ranks(delta[:, None]))[:, 0],
        shared.residuals(_mean_ranks(nidps)),
        shared.df,
    )


def ranks_by_column(values: Array) -> Array:
    """Each column (S, P) replaced by its ranks over its own present rows, scaled to (0, 1); NaN stays NaN.

    With predictors and targets so transformed the ordinary scan gives an approximate partial Spearman correlation for
    every pair. It is exact for complete columns. With missing values a pair's rows are fewer than the column's, and
    the ranks are not those within the pair; on rows missing at random the difference shrinks as 1/n, and the
    strongest pairs are checked exactly by `partial_spearman`. Of 0/1 columns the ranks are an affine map.

    Returns
    -------
    (S, P) float
        (rank - 1/2) / n, as the transposed view of a C-contiguous (P, S) array.
    """
    out = np.full(values.shape[::-1], np.nan)
    for column in range(values.shape[1]):
        present = np.flatnonzero(np.isfinite(values[:, column]))
        if present.size:
            ranks = _mean_ranks(values[present, column][:, None])[:, 0]
            out[column, present] = (ranks - 0.5) / present.size
    return out.T


def _mean_ranks(values: Array) -> Array:
    """Ranks from 1 down each column, ties at their mean."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(values, method="average", axis=0), dtype=float)
