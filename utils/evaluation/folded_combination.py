"""Combined predictions of validation subjects with weights that were fitted without them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utils.evaluation.contrast_patterns import CombinedPredictions


@dataclass(frozen=True)
class FoldedCombination:
    """Fitted combinations (their `apply`), each on all folds but its own; fold (S,) of the subjects in their order.

    The slope of combined predictions on age is too steep on the subjects of the fit, whose noise the weights know. A
    bias correction fitted on it leaves a negative correlation of delta and age in others: with 57 simulated contrasts
    and 100 subjects -0.16 for gls, -0.03 for ridge, whose penalty flattens the slope (`benchmarks/combination.py`).
    Here no subject meets weights of its own making; they come from slightly fewer subjects.
    """

    apply_without: tuple[Callable[[ArrayLike], CombinedPredictions], ...]
    fold: NDArray[np.intp]

    def apply(
        self, predicted_years: ArrayLike, rows: Sequence[int] | NDArray | None = None
    ) -> CombinedPredictions:
        """Combine, each subject with the weights of its fold.

        Parameters
        ----------
        predicted_years : (S, C) float
            NaN where missing, or where a contrast is left out so that the slope of another pattern can be fitted.
        rows : (S,) int or (all,) bool, optional
            Which of the subjects of the folds these are; all of them by default.
        """
        predicted = np.asarray(predicted_years, dtype=float)
        fold = self.fold if rows is None else self.fold[np.asarray(rows)]
        if len(predicted) != len(fold):
            raise ValueError(
                f"{len(predicted)} rows of predictions for {len(fold)} validation subjects; name their `rows`"
            )
        combined = np.full(len(predicted), np.nan)
        patterns = self.apply_without[0](predicted).patterns
        for k, apply in enumerate(self.apply_without):
            chosen = fold == k
            if chosen.any():
                combined[chosen] = apply(predicted[chosen]).predicted_years
        return CombinedPredictions(combined, patterns)
