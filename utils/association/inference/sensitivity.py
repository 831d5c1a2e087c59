"""Does a hit hang on something else: a curve instead of a line, or the quality of the images?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utils.association.inference.normal_tails import nlog10p_from_normal
from utils.association.inference.shared_rows import (
    ConfoundBases,
    PartialCorrelations,
    SharedRows,
    partial_correlations,
)

Array = NDArray[np.float64]


def squared_delta_test(delta: Array, nidps: Array, shared: SharedRows) -> PartialCorrelations:
    """The t of d^2 in y ~ d + d^2 + Z, d the residual of the delta given [1 Z].

    The square is taken after the confounds, so that age, which raw deltas carry, does not pose as a curve of the
    delta. One degree of freedom less than the ordinary test.

    Parameters
    ----------
    delta : (n,) float
        Residuals of the delta on the shared rows.
    nidps : (n, P) float
        Residuals of the nIDPs.
    shared : SharedRows
        The rows with the basis of their confounds.
    """
    length2 = delta @ delta
    if length2 == 0.0:
        nothing = np.full(nidps.shape[1], np.nan)
        return PartialCorrelations(nothing, nothing, nothing)
    squared = shared.residuals(delta**2)
    squared = squared - delta * ((delta @ squared) / length2)
    left = nidps - np.outer(delta, (delta @ nidps) / length2)
    return partial_correlations(squared, left, shared.df - 1)


@dataclass(frozen=True)
class QualityHalves:
    """Partial r in the halves with the smaller and the larger quality value, and -log10 p of their difference."""

    r_lower: Array
    r_upper: Array
    nlog10p: Array


def quality_halves(
    delta: Array, nidps: Array, quality: Array, rows: NDArray[np.intp], bases: ConfoundBases
) -> QualityHalves:
    """Partial correlations on either side of the median quality (ties to the lower half), and their difference.

    An association that motion or noise makes is stronger in the worse half. The confounds are fitted anew in each
    half; the difference is that of two independent Fisher z, each with variance 1 / (df - 1).

    Parameters
    ----------
    delta : (n,) float
        The delta itself on `rows`, complete.
    nidps : (n, P) float
        The nIDPs themselves on `rows`, complete.
    quality : (n,) float
        A measure of image quality such as head motion; subjects without it are left out.
    rows : (n,) int
        Where these subjects stand among all.
    bases : ConfoundBases
        The confounds of all subjects.
    """
    known = np.isfinite(quality)
    middle = np.median(quality[known]) if known.any() else np.nan
    halves = [known & (quality <= middle), known & (quality > middle)]
    r, variance = [], []
    for half in halves:
        if half.sum() < 3:
            r.append(np.full(nidps.shape[1], np.nan))
            variance.append(np.nan)
            continue
        shared = bases.on(rows[half])
        found = partial_correlations(
            shared.residuals(delta[half]), shared.residuals(nidps[half]), shared.df
        )
        r.append(found.r if shared.df >= 2 else np.full(nidps.shape[1], np.nan))
        variance.append(1.0 / (shared.df - 1) if shared.df >= 2 else np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (np.arctanh(r[0]) - np.arctanh(r[1])) / np.sqrt(variance[0] + variance[1])
    return QualityHalves(r[0], r[1], nlog10p_from_normal(z))
