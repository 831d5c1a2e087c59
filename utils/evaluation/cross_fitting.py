"""Predictions of validation subjects by combinations that were fitted without them.

Weights fitted on a subject fit it too well: its combined prediction lies closer to its age than a new subject's does. A
line for the age bias fitted on such predictions is too steep, which leaves a negative correlation of delta and age in
everybody else, and their residual SD is too small. The weights that are applied stay those of all subjects.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from utils.evaluation.ensembling import ContrastCombination
from utils.evaluation.folded_combination import FoldedCombination

Array = NDArray[np.float64]


def predict_without_self(
    combination: ContrastCombination, folded: FoldedCombination, predicted_years: Array
) -> Array:
    """(S,) combined prediction of each validation subject by weights that had not seen it.

    The combination of each fold is moved so that it agrees on average with that of all subjects: the mean age of the
    other folds is higher where that of a fold is lower, which alone would tilt the line.

    Parameters
    ----------
    combination : ContrastCombination
        Fitted on all of the validation subjects.
    folded : FoldedCombination
        Its `out_of_fold`.
    predicted_years : (S, C) float
        Of all those subjects; NaN where missing, or left out to fit another pattern's line.
    """
    out = np.full(len(predicted_years), np.nan)
    rows = np.flatnonzero(np.isfinite(predicted_years).any(axis=1))
    if not rows.size:
        return out
    predicted, fold = predicted_years[rows], folded.fold[rows]
    combined = combination.apply(predicted).predicted_years
    for k, apply in enumerate(folded.apply_without):
        everybody = apply(predicted).predicted_years
        mine = fold == k
        there = np.isfinite(everybody) & np.isfinite(combined)
        if there.any():
            out[rows[mine]] = everybody[mine] + np.mean((combined - everybody)[there])
    return out
