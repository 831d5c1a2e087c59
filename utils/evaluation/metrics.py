"""Accuracy of predicted ages, with bootstrap intervals over subjects. Always of uncorrected predictions.

"Corrected" predictions are not scored here: a correction that uses the subject's own age makes a useless network look
accurate (Butler et al. 2021, Hum Brain Mapp 42:4092).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Interval = dict[str, float | None]

MINIMUM_N_INTERVAL = 10
MINIMUM_N_R = 3
MEASURES = ("mae_years", "rmse_years", "r", "r2")
Z_975 = 1.959963984540054
# Weights of a block of resamples are held at once; more would only use more memory.
BLOCK_ELEMENTS = 4_000_000


def accuracy(
    predicted_years: ArrayLike,
    age_years: ArrayLike,
    rng: np.random.Generator,
    n_resamples: int = 1000,
) -> dict[str, Interval]:
    """MAE, RMSE, Pearson's r and R2 of predicted ages, with 95 % bootstrap percentile intervals.

    R2 = 1 - sum (age - predicted)^2 / sum (age - mean age)^2: it is below 0 for a predictor that is worse than the
    mean age of these very subjects, and it is not r squared. All four come from the same resamples of subjects.

    Parameters
    ----------
    predicted_years, age_years : (S,) float
        Subjects where either is missing are left out.
    rng : numpy.random.Generator
        Draws the resamples.
    n_resamples : int
        Number of resamples; 0: no intervals.

    Returns
    -------
    dict
        {mae_years, rmse_years, r, r2: {value, low, high}}. None where it cannot be known: an interval below 10
        subjects, r below 3 subjects or without variance.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, percentile interval.
    """
    predicted, age = _complete(predicted_years, age_years)
    if predicted.size == 0:
        return {measure: {"value": None, "low": None, "high": None} for measure in MEASURES}
    moments = _moments(predicted, age)
    values = _measures(moments.mean(axis=0)[None, :], predicted.size)
    if predicted.size < MINIMUM_N_INTERVAL or n_resamples == 0:
        return {m: {"value": _known(values[m][0]), "low": None, "high": None} for m in MEASURES}
    resampled = _measures(_resampled_means(moments, rng, n_resamples), predicted.size)
    return {m: _interval(values[m][0], resampled[m]) for m in MEASURES}


def null_mae(age_years: ArrayLike, training_mean_age_years: float) -> float | None:
    """MAE in years of the predictor that says the mean age of the training subjects for everybody.

    It gives the MAE of a network its meaning: the wider the ages, the larger both.
    """
    age = np.asarray(age_years, dtype=float)
    age = age[np.isfinite(age)]
    return float(np.mean(np.abs(age - training_mean_age_years))) if age.size else None


def ensemble_gain(network_years: ArrayLike, age_years: ArrayLike) -> dict[str, float | None]:
    """How many years of MAE the mean of the networks saves against its members.

    Parameters
    ----------
    network_years : (S, K) float
        One column a network; subjects that any network or the age misses are left out.
    age_years : (S,) float
        Ages.

    Returns
    -------
    dict
        gain_over_average_network_years: mean of the networks' MAEs minus the ensemble's (never negative, by
        convexity). gain_over_best_network_years: the smallest of them minus the ensemble's; the best is picked on
        these same subjects, which flatters it. None without subjects.
    """
    networks, age = np.asarray(network_years, dtype=float), np.asarray(age_years, dtype=float)
    complete = np.isfinite(networks).all(axis=1) & np.isfinite(age)
    names = ("gain_over_average_network_years", "gain_over_best_network_years")
    if not complete.any():
        return dict.fromkeys(names)
    networks, age = networks[complete], age[complete]
    single = np.mean(np.abs(networks - age[:, None]), axis=0)
    ensemble = np.mean(np.abs(networks.mean(axis=1) - age))
    return dict(zip(names, (float(single.mean() - ensemble), float(single.min() - ensemble))))


def paired_mae_difference(
    first_years: ArrayLike,
    second_years: ArrayLike,
    age_years: ArrayLike,
    rng: np.random.Generator,
    n_resamples: int = 1000,
) -> dict[str, float | int | None]:
    """MAE of the first predictor minus MAE of the second on the same subjects, with a paired bootstrap interval.

    Below 0: the first is more accurate. The pairing removes what both predictors find hard in the same subjects,
    so the difference is known far better than two separate intervals suggest.

    Parameters
    ----------
    first_years, second_years, age_years : (S,) float
        Subjects where any is missing are left out.
    rng : numpy.random.Generator
        Draws the resamples.
    n_resamples : int
        Number of resamples; 0: no intervals.

    Returns
    -------
    dict
        n, value, low, high (years); low and high None below 10 subjects, value None without subjects.
    """
    first, second, age = (
        np.asarray(x, dtype=float) for x in (first_years, second_years, age_years)
    )
    complete = np.isfinite(first) & np.isfinite(second) & np.isfinite(age)
    difference = (np.abs(first - age) - np.abs(second - age))[complete]
    if difference.size < MINIMUM_N_INTERVAL or n_resamples == 0:
        value = float(difference.mean()) if difference.size else None
        return {"n": difference.size, "value": value, "low": None, "high": None}
    resampled = _resampled_means(difference[:, None], rng, n_resamples)[:, 0]
    return {"n": difference.size, **_interval(float(difference.mean()), resampled)}


def correlation(x: ArrayLike, y: ArrayLike) -> Interval:
    """Pearson's r with its 95 % interval by Fisher's z; for the delta's remaining correlation with age.

    Returns
    -------
    dict
        value (None below 3 subjects or without variance), low, high (None below 10 subjects).
    """
    a, b = _complete(x, y)
    none: Interval = {"value": None, "low": None, "high": None}
    if a.size < MINIMUM_N_R:
        return none
    r = _known(_measures(_moments(a, b).mean(axis=0)[None, :], a.size)["r"][0])
    if r is None or a.size < MINIMUM_N_INTERVAL:
        return {**none, "value": r}
    z = np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15))
    half = Z_975 / np.sqrt(a.size - 3)
    return {"value": r, "low": float(np.tanh(z - half)), "high": float(np.tanh(z + half))}


def _complete(first: ArrayLike, second: ArrayLike) -> tuple[Array, Array]:
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"one value a subject is needed in both: shapes {a.shape} and {b.shape}")
    complete = np.isfinite(a) & np.isfinite(b)
    return a[complete], b[complete]


def _moments(predicted: Array, age: Array) -> Array:
    """Per subject |e|, e^2, p, a, p^2, a^2, pa; p and a centred and scaled so that variances lose no digits."""
    error = predicted - age
    p, a = _scaled(predicted), _scaled(age)
    scale = float(np.mean((age - age.mean()) ** 2))
    relative = error**2 / scale if scale > 0 else np.full_like(error, np.nan)
    return np.column_stack([np.abs(error), error**2, p, a, p * p, a * a, p * a, relative])


def _scaled(values: Array) -> Array:
    """Mean 0 and SD 1; all 0 when the spread is rounding."""
    centred = values - values.mean()
    sd = float(np.sqrt(np.mean(centred**2)))
    if sd <= 1e-12 * float(np.abs(values).max()):
        return np.zeros_like(values)
    return centred / sd


def _measures(means: Array, n: int) -> dict[str, Array]:
    """The four measures from means of the columns of `_moments`, one row a resample; NaN where undefined."""
    absolute, square, p, a, pp, aa, pa, relative = means.T
    var_p, var_a = pp - p * p, aa - a * a
    # A resample that drew one subject throughout has no variance, up to rounding.
    possible = (var_p > 1e-12) & (var_a > 1e-12) & (n >= MINIMUM_N_R)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.where(possible, (pa - p * a) / np.sqrt(var_p * var_a), np.nan)
        r2 = np.where(var_a > 1e-12, 1.0 - relative / var_a, np.nan)
    return {
        "mae_years": absolute,
        "rmse_years": np.sqrt(square),
        "r": np.clip(r, -1.0, 1.0),
        "r2": r2,
    }


def _resampled_means(columns: Array, rng: np.random.Generator, n_resamples: int) -> Array:
    """Means of the columns over resamples of the rows (with replacement): (n_resamples, columns)."""
    n = len(columns)
    block = max(1, min(n_resamples, BLOCK_ELEMENTS // n))
    out = []
    for start in range(0, n_resamples, block):
        size = min(block, n_resamples - start)
        drawn = rng.integers(0, n, size=(size, n))
        drawn += n * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        out.append(counts.astype(float) @ columns / n)
    return np.concatenate(out)


def _interval(value: float, resampled: Array) -> Interval:
    known = resampled[np.isfinite(resampled)]
    if known.size < 0.9 * resampled.size:
        return {"value": _known(value), "low": None, "high": None}
    low, high = np.percentile(known, [2.5, 97.5])
    return {"value": _known(value), "low": float(low), "high": float(high)}


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
