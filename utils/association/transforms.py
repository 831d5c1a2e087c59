"""Transformations of one nIDP: rank-based inverse normal, and the removal of outliers."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

# Blom's offset for expected normal scores.
BLOM = 3.0 / 8.0
# The MAD of a normal variable, times this, is its SD.
MAD_TO_SD = 1.4826


def inverse_normal(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank-based inverse normal transformation; tied values share the mean of their normal scores.

    z = Phi^-1((rank - 3/8) / (n + 1/4)) for ranks 1..n, then z averaged over ties (not Phi^-1 of the mean rank).
    It is applied BEFORE the confounds are removed: after it, removing them once more is exact, whereas transforming
    residuals brings their correlation with the confounds back.

    Parameters
    ----------
    values : (S,) float
        NaN where missing.

    Returns
    -------
    (S,) float
        NaN where missing; mean zero when nothing is tied at the edge of symmetry.

    Source: Blom 1958; ties as in FMRIB's nets_inormal; order of steps: Pain, Dudbridge and Ronald 2018, Eur J Hum
    Genet 26:1194.
    """
    out = np.full(values.shape, np.nan)
    present = np.isfinite(values)
    x = values[present]
    if x.size == 0:
        return out
    order = np.argsort(x, kind="stable")
    scores = _normal_scores(x.size)
    ordered = x[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    sizes = np.diff(np.r_[starts, x.size])
    means = np.add.reduceat(scores, starts) / sizes
    z = np.empty(x.size)
    z[order] = np.repeat(means, sizes)
    out[present] = z
    return out


@lru_cache(maxsize=64)
def _normal_scores(n: int) -> NDArray[np.float64]:
    scores = special.ndtri((np.arange(1, n + 1) - BLOM) / (n + 1.0 - 2.0 * BLOM))
    scores.flags.writeable = False
    return scores


def outliers(values: NDArray[np.float64], limit_sd: float) -> NDArray[np.bool_]:
    """Which values lie more than `limit_sd` robust SDs from the median: |x - median| / (1.4826 MAD) > limit.

    Where the MAD is 0 (more than half of the values are the same) the SD takes its place.

    Source: the rule for confounds of Alfaro-Almagro et al. 2021, NeuroImage 224:117002, with 8 as limit.
    """
    present = np.isfinite(values)
    if not present.any():
        return np.zeros(values.shape, dtype=bool)
    x = values[present]
    distance = np.abs(values - np.median(x))
    spread = MAD_TO_SD * np.median(distance[present])
    if spread == 0.0:
        spread = float(np.std(x))
    with np.errstate(invalid="ignore"):
        return present & (distance > limit_sd * spread) & (spread > 0.0)
