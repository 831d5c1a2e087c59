"""The opponent that a network has to beat: a ridge regression on intensities that sees no anatomy."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

N_BINS = 32
PENALTIES = tuple(float(p) for p in np.logspace(-2, 5, 15))


def histogram_features(volume: np.ndarray) -> np.ndarray:
    """(34,) float: mean, standard deviation, and the histogram of a cropped volume in units of its mean.

    The histogram's bins (shares of the volume) run from 0 to 10 times the mean, the last one open; exact zeros, the
    background, have the first bin to themselves.
    """
    volume = np.asarray(volume, dtype=np.float64)
    mean = volume.mean()
    relative = volume / mean if mean else volume
    edges = np.linspace(0, 10, N_BINS)
    bins = np.where(relative == 0, 0, np.clip(np.digitize(relative, edges), 1, N_BINS - 1))
    shares = np.bincount(bins.ravel(), minlength=N_BINS) / volume.size
    return np.concatenate([[mean, volume.std()], shares])


def ridge_baseline_mae(
    train_features: Iterable[np.ndarray],
    train_age_years: np.ndarray,
    test_features: Iterable[np.ndarray],
    test_age_years: np.ndarray,
) -> float:
    """Mean absolute error in years on the test subjects; features standardised, penalty by leave-one-out."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), RidgeCV(alphas=PENALTIES))
    model.fit(np.stack(list(train_features)), np.asarray(train_age_years))
    predicted = model.predict(np.stack(list(test_features)))
    return float(np.abs(predicted - np.asarray(test_age_years)).mean())
