"""What a scan gives: one value per contrast and nIDP, the reason where there is no test, and what a pair needs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.association.tails import nlog10p_from_t

Array = NDArray[np.float64]

Z_975 = 1.959963984540054
# |r| closer to 1 than this means that one variable is a copy of the other.
DEGENERATE_TOLERANCE = 1e-12

TOO_FEW_SUBJECTS = "too_few_subjects"
TOO_FEW_DF = "too_few_degrees_of_freedom"
TOO_FEW_CASES = "too_few_cases"
CONSTANT = "constant"
COLLINEAR = "collinear_with_confounds"
DELTA_CONSTANT = "delta_constant"
DELTA_COLLINEAR = "delta_collinear_with_confounds"
DEGENERATE = "degenerate"


@dataclass(frozen=True)
class PairLimits:
    """What a pair needs to be tested: subjects, df >= max(minimum_df, df_per_rank x rank), subjects per class."""

    minimum_n: int = 51
    minimum_df: int = 50
    df_per_rank: float = 2.0
    minimum_class: int = 10

    def needed_df(self, rank: int) -> float:
        """Degrees of freedom that a pair with this rank of [1 Z] needs."""
        return max(self.minimum_df, self.df_per_rank * rank, 1)


@dataclass
class PairStatistics:
    """One value per contrast and nIDP, all of shape (C, P); NaN and a reason where there is no test."""

    n: NDArray[np.int64]
    n_cases: Array
    rank: Array
    df: Array
    r: Array
    beta_per_sd: Array
    delta_years_per_sd: Array
    reason: NDArray[np.object_]

    @classmethod
    def empty(cls, n_contrasts: int, n_nidps: int) -> PairStatistics:
        """Nothing tested yet."""
        shape = (n_contrasts, n_nidps)
        return cls(
            n=np.zeros(shape, dtype=np.int64),
            n_cases=np.full(shape, np.nan),
            rank=np.full(shape, np.nan),
            df=np.full(shape, np.nan),
            r=np.full(shape, np.nan),
            beta_per_sd=np.full(shape, np.nan),
            delta_years_per_sd=np.full(shape, np.nan),
            reason=np.full(shape, "", dtype=object),
        )

    def put(self, where: Any, part: PairStatistics) -> None:
        """Write the statistics of some pairs; `where` indexes arrays of shape (C, P)."""
        for field in fields(self):
            getattr(self, field.name)[where] = getattr(part, field.name)

    @property
    def t(self) -> Array:
        """t = r sqrt(df / (1 - r^2)), with 1 - r^2 as (1 - r)(1 + r)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.r * np.sqrt(self.df / ((1.0 - self.r) * (1.0 + self.r)))

    @property
    def nlog10p(self) -> Array:
        """-log10 of the two-sided p; NaN where a reason stands."""
        return np.where(self.reason == "", nlog10p_from_t(self.t, self.df), np.nan)

    @property
    def fisher_z(self) -> Array:
        """Atanh r; its standard error is 1 / sqrt(df - 1) = 1 / sqrt(n - q - 3)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.arctanh(self.r)

    def interval(self) -> tuple[Array, Array]:
        """The 95 % confidence interval of r by Fisher's z."""
        with np.errstate(divide="ignore", invalid="ignore"):
            half = Z_975 / np.sqrt(self.df - 1.0)
        return np.tanh(self.fisher_z - half), np.tanh(self.fisher_z + half)
