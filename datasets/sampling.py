"""Which subjects an epoch sees, in which order: each once, or as many drawn so that ages are balanced."""

from __future__ import annotations

import numpy as np

from utils.common.errors import UserError
from utils.common.randomness import generator

EACH, AGE_BALANCED = "each", "age_balanced"
SAMPLINGS = (EACH, AGE_BALANCED)

# A subject's weight is 1 / the number of training subjects of about its age, itself included.
WINDOW_YEARS = 2.5
# No weight is above this many times the smallest: one subject of a rare age would fill the epochs.
LARGEST_WEIGHT_RATIO = 10.0


def sampled(ages_years: np.ndarray, seed: int, epoch: int, sampling: str = EACH) -> list[int]:
    """Positions of the subjects of an epoch in its order: as many as there are ages.

    each : every subject once. age_balanced : drawn with replacement, with `age_weights`; some subjects
    come twice or more often, others not at all. A function of seed, epoch and ages.
    """
    if sampling == EACH:
        return generator(seed, "order", epoch).permutation(len(ages_years)).tolist()
    if sampling != AGE_BALANCED:
        raise ValueError(f"sampling is {sampling!r}, it can be {' or '.join(SAMPLINGS)}")
    weights = age_weights(ages_years)
    drawn = generator(seed, "age balanced", epoch).choice(
        len(weights), size=len(weights), p=weights / weights.sum()
    )
    return drawn.tolist()


def age_weights(ages_years: np.ndarray) -> np.ndarray:
    """(S,) weight of each of (S,) subjects: 1 / the number of subjects within WINDOW_YEARS of its age.

    At most LARGEST_WEIGHT_RATIO times the smallest.

    Raises
    ------
    UserError
        An age is not known.
    """
    ages = np.asarray(ages_years, dtype=np.float64)
    if not np.isfinite(ages).all():
        raise UserError(
            f"sampling = {AGE_BALANCED}: {int((~np.isfinite(ages)).sum())} training subject(s) have no age."
        )
    ordered = np.sort(ages)
    n_within = np.searchsorted(ordered, ages + WINDOW_YEARS, "right") - np.searchsorted(
        ordered, ages - WINDOW_YEARS, "left"
    )
    weights = 1.0 / n_within
    return np.minimum(weights, LARGEST_WEIGHT_RATIO * weights.min(initial=np.inf))
