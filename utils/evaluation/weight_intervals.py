"""How certain the weights of a combination are: percentile intervals over resampled validation subjects."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from utils.evaluation.combination_weights import Tuning, weights_for
from utils.evaluation.incomplete_moments import PRIOR_SUBJECTS, Moments, moments_of

Array = NDArray[np.float64]

# EM is repeated for every resample; percentiles of 200 are known to about a tenth of a standard error.
RESAMPLES_INCOMPLETE = 200
RESAMPLE_TOLERANCE = 1e-4


def bootstrap_weights(
    method: str,
    joint: Array,
    moments: Moments,
    tuning: Tuning,
    rng: np.random.Generator,
    n_resamples: int,
) -> Array:
    """(B, C) weights for all contrasts when the validation subjects are drawn again with replacement.

    Penalties and shrinkage stay as they were chosen: the intervals tell the sampling error of the weights of the method
    as applied, not of the choice of its penalty. With missing values at most 200 resamples are drawn, each by EM from
    the moments of all, iterated to 1e-4 of a standard deviation.

    Parameters
    ----------
    method : str
        See `combination_weights.WEIGHTS`.
    joint : (S, C + 1) float
        Predictions and age, NaN where missing.
    moments : Moments
        Of `joint`.
    tuning : Tuning
        Held fixed.
    rng : numpy.random.Generator
        Draws how often each subject counts.
    n_resamples : int
        B, for complete data.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13 (percentile intervals; not re-read).
    """
    n, n_contrasts = len(joint), joint.shape[1] - 1
    everything = np.ones(n_contrasts, dtype=bool)
    if not np.isfinite(joint).all():
        n_resamples = min(n_resamples, RESAMPLES_INCOMPLETE)
    counts = rng.multinomial(n, np.full(n, 1.0 / n), size=n_resamples).astype(float)
    weights = np.empty((n_resamples, n_contrasts))
    for b in range(n_resamples):
        resampled = moments_of(
            joint,
            counts[b],
            start=moments,
            tolerance=RESAMPLE_TOLERANCE,
            prior_subjects=PRIOR_SUBJECTS,
        )
        weights[b] = weights_for(method, resampled.covariance, everything, tuning)
    return weights
