"""Which contrasts a subject has, as text, and predictions combined by such patterns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CombinedPredictions:
    """predicted_years (S,), NaN without any used contrast; patterns (S,) of used contrasts, "101" in their order."""

    predicted_years: Array
    patterns: NDArray[np.str_]


def patterns_of(predicted_years: Array) -> NDArray[np.str_]:
    """Which contrasts each subject has, as text: "1" present, "0" missing."""
    flags = np.isfinite(predicted_years).astype(np.uint8) + np.uint8(ord("0"))
    return np.ascontiguousarray(flags).view(f"S{flags.shape[1]}")[:, 0].astype(np.str_)


def mask_of(pattern: str) -> NDArray[np.bool_]:
    """(C,) whether each contrast is present."""
    return np.array([flag == "1" for flag in pattern])
