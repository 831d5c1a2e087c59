"""What second looks need: the columns of an analysis, and limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from utils.association.inference.logistic import LogisticLimits

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RecheckData:
    """What the checks read, all of the S analysed subjects of one analysis.

    contrasts, nidps : names of the C predictors and the P targets
    predictors : (S, C) float, NaN missing, years
    targets_of : indices of nIDPs -> their prepared values (S, m), NaN missing
    confounds : (S, K) float, complete, without the constant
    minimal_columns : which of them are the minimal set (age terms)
    age_years : (S,) float
    parents : for each nIDP the nominal column that it is a level of, empty for all others
    reliability : (C, 3) float, reliability of each delta with the ends of its 95 % interval; None: not known
    quality : (S,) float, a measure of image quality such as head motion, NaN missing; None: not known
    """

    contrasts: Sequence[str]
    nidps: Sequence[str]
    predictors: Array
    targets_of: Callable[[list[int]], Array]
    confounds: Array
    minimal_columns: Sequence[int]
    age_years: Array
    parents: Sequence[str]
    reliability: Array | None = None
    quality: Array | None = None


@dataclass(frozen=True)
class RecheckLimits:
    """How many pairs are looked at, and when something is flagged or left out.

    maximum: pairs, the strongest first. hc3_ratio: robust / ordinary standard error that is flagged.
    noticeable_nlog10p: -log10 p from which a curve, quality or selection is flagged. fewest_without: subjects
    needed with and without an nIDP to compare them. nidps_at_a_time: bounds the memory.
    """

    maximum: int = 1000
    hc3_ratio: float = 1.2
    noticeable_nlog10p: float = 3.0
    fewest_without: int = 10
    nidps_at_a_time: int = 256
    logistic: LogisticLimits = field(default_factory=LogisticLimits)
