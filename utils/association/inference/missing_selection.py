"""Who has an nIDP at all: are those with it younger, or of another delta, than those without?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utils.association.inference.shared_rows import SharedRows, partial_correlations

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Selection:
    """Subjects with the delta but without the nIDP, and how they differ; each (P,), NaN with too few of them.

    n_without : subjects; age_difference_sd, delta_difference_sd : mean with minus mean without the nIDP, in pooled
    SDs; presence_r, presence_nlog10p : partial correlation of having the nIDP with the delta, and its test
    """

    n_without: NDArray[np.int64]
    age_difference_sd: Array
    delta_difference_sd: Array
    presence_r: Array
    presence_nlog10p: Array


def selection_by_presence(
    delta: Array, age_years: Array, present: NDArray[np.bool_], shared: SharedRows, fewest: int
) -> Selection:
    """Whether the presence of an nIDP is itself related to the delta, among the subjects with the delta.

    A partial correlation on the rows where both exist is that of the subjects who have the nIDP. Where these were
    chosen by what the delta measures (the healthier come to a second examination), it need not hold for the others.

    Parameters
    ----------
    delta, age_years : (n,) float
        On the rows with the delta, complete.
    present : (n, P) bool
        Which of these subjects have the nIDP.
    shared : SharedRows
        The rows with the delta, and the basis of their confounds.
    fewest : int
        Subjects needed with and without the nIDP; below, differences are NaN.
    """
    n_with = present.sum(axis=0)
    n_without = len(delta) - n_with
    enough = (n_with >= max(fewest, 2)) & (n_without >= max(fewest, 2))
    found = partial_correlations(
        shared.residuals(delta), shared.residuals(present.astype(float)), shared.df
    )
    return Selection(
        n_without,
        np.where(enough, _standardised_difference(age_years, present), np.nan),
        np.where(enough, _standardised_difference(delta, present), np.nan),
        np.where(enough, found.r, np.nan),
        np.where(enough, found.nlog10p, np.nan),
    )


def _standardised_difference(values: Array, present: NDArray[np.bool_]) -> Array:
    """(Mean with - mean without) / pooled SD of values (n,) for each column of presence (n, P)."""
    centred = values - values.mean()
    n_with = present.sum(axis=0)
    n_without = len(values) - n_with
    total, total2 = centred.sum(), centred @ centred
    of_with = present.astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_with = (centred @ of_with) / n_with
        mean_without = (total - centred @ of_with) / n_without
        inside = total2 - n_with * mean_with**2 - n_without * mean_without**2
        pooled = np.sqrt(np.maximum(inside, 0.0) / (len(values) - 2))
        return (mean_with - mean_without) / pooled
