"""The largest -log10 p among many squared correlations, without computing them all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from utils.association.tails import nlog10p_from_t

Array = NDArray[np.float64]

# 1 - r^2 cannot be resolved below this in single precision.
LARGEST_R_SQUARED = 1.0 - 2.0**-22


class LargestByDf:
    """The largest -log10 p of each predictor over its targets, evaluated where it can be largest.

    -log10 p rises with r^2 and with df. With targets in descending order of df only those whose r^2 exceeds that of
    all before can hold the maximum: some ten of thousands.

    Parameters
    ----------
    df : (C, P) float
        Degrees of freedom, which stay from permutation to permutation; NaN where a pair is not tested.
    """

    def __init__(self, df: Array):
        self._df = np.nan_to_num(df, nan=1.0)
        distinct, row_of = np.unique(np.nan_to_num(df, nan=-1.0), axis=0, return_inverse=True)
        row_of = row_of.reshape(-1)
        self._orders = [
            (np.flatnonzero(row_of == number), np.argsort(-row, kind="stable"))
            for number, row in enumerate(distinct)
        ]

    def __call__(self, r_squared: NDArray[np.float32]) -> Array:
        """(B, C) maxima of -log10 p for (B, C, P) squared correlations, which are 0 where a pair is not tested."""
        maxima = np.zeros(r_squared.shape[:2])
        for predictors, order in self._orders:
            ordered = r_squared[:, predictors][:, :, order]
            running = np.maximum.accumulate(ordered, axis=2)
            record = np.empty(ordered.shape, dtype=bool)
            record[:, :, 0] = True
            np.greater(ordered[:, :, 1:], running[:, :, :-1], out=record[:, :, 1:])
            _, predictor, place = np.nonzero(record)
            r2 = np.minimum(ordered[record].astype(float), LARGEST_R_SQUARED)
            df = self._df[predictors[predictor], order[place]]
            nlog10p = nlog10p_from_t(np.sqrt(r2 * df / (1.0 - r2)), df)
            first = np.flatnonzero(
                place == 0
            )  # every series of records begins with the first target
            maxima[:, predictors] = np.maximum.reduceat(nlog10p, first).reshape(ordered.shape[:2])
        return maxima
