"""What predicting in bfloat16 changes, and whether that can be accepted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# Above this, predictions in bfloat16 are not used: a fortieth of the best published error (2.1 years).
LARGEST_CHANGE_YEARS = 0.05


@dataclass(frozen=True)
class PrecisionChange:
    """How far the averaged predictions in bfloat16 lie from those in float32, over subjects."""

    n: int
    largest_years: float
    mean_years: float  # of absolute changes

    @property
    def is_acceptable(self) -> bool:
        """Whether no subject's age changed by more than `LARGEST_CHANGE_YEARS`; NaN is not acceptable."""
        return self.largest_years <= LARGEST_CHANGE_YEARS

    @property
    def sentence(self) -> str:
        """For messages."""
        verdict = "used" if self.is_acceptable else "not used: float32 is"
        return (
            f"bfloat16 changes the predicted age by {self.mean_years:.4f} years on average and by at most "
            f"{self.largest_years:.4f} ({self.n} validation subjects; accepted are "
            f"{LARGEST_CHANGE_YEARS}); it is {verdict}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a metrics file."""
        return {
            "n": self.n,
            "largest_years": self.largest_years,
            "mean_years": self.mean_years,
            "accepted_years": LARGEST_CHANGE_YEARS,
            "accepted": self.is_acceptable,
        }


def precision_change(float32_years: np.ndarray, bfloat16_years: np.ndarray) -> PrecisionChange:
    """Compare (S, K) predictions of S subjects by K networks; subjects that failed in both are left out."""
    usable = ~np.isnan(float32_years).all(axis=1)
    changes = np.abs(float32_years[usable].mean(axis=1) - bfloat16_years[usable].mean(axis=1))
    if not len(changes):
        return PrecisionChange(0, float("nan"), float("nan"))
    return PrecisionChange(len(changes), float(changes.max()), float(changes.mean()))
