"""How far to shrink a covariance towards equal, uncorrelated variances: Ledoit and Wolf's estimate, values may miss."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def ledoit_wolf_shrinkage(values: Array, covariance: Array) -> float:
    r"""The share of (average variance) identity that makes the covariance's expected squared error smallest, 0 to 1.

    shrinkage = min(b2, d2) / d2 with d2 the squared distance of the covariance from its target and b2 the sum over
    its elements of their sampling variances, var(x_j x_k) / n. With missing values each element's variance is that
    over the n_jk subjects who have both; for a pair hardly met (fewer than two) the variance that a normal
    distribution has with one subject stands in.

    Parameters
    ----------
    values : (S, C) float
        NaN where missing.
    covariance : (C, C) float
        Of the same columns, divisor n.

    Source: Ledoit and Wolf 2004, J Multivar Anal 88:365 (not re-read; complete values agree with scikit-learn's
    ledoit_wolf_shrinkage). The form for missing values is this program's.
    """
    target = np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    distance = float(np.sum((covariance - target) ** 2))
    if distance == 0.0:
        return 0.0
    present = np.isfinite(values)
    n = present.T.astype(float) @ present
    mean = np.where(present, values, 0.0).sum(axis=0) / np.maximum(np.diag(n), 1.0)
    centred = np.where(present, values - mean, 0.0)
    met = np.maximum(n, 1.0)
    product_variance = (centred**2).T @ centred**2 / met - (centred.T @ centred / met) ** 2
    if (n < 2).any():
        variance = np.diag(covariance)
        normal = np.outer(variance, variance) + covariance**2
        product_variance = np.where(n < 2, normal, product_variance)
    return float(min(np.sum(product_variance / met), distance) / distance)
