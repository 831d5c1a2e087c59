"""Bias-corrected deltas of combined contrasts: one correction for each pattern of present contrasts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from utils.evaluation.deltas import AgeBiasCorrection, CorrectedDeltas, CorrectionRefused
from utils.evaluation.ensembling import ContrastCombination


class PatternedBiasCorrection:
    """Age-bias correction of combined predictions, one for each pattern of present contrasts.

    The slope of predicted on true age depends on which contrasts were combined. For a pattern, every validation
    subject that has at least its contrasts is predicted with that pattern's weights, and the correction fitted on
    these. A pattern whose correction is refused leaves its subjects without a corrected delta, with the reason.

    Parameters
    ----------
    combination : ContrastCombination
        Fitted.
    method : str
        "subtract" or "divide", see `AgeBiasCorrection`.
    """

    def __init__(self, combination: ContrastCombination, method: str = "subtract"):
        self.combination = combination
        self.method = method
        self.corrections_: dict[str, AgeBiasCorrection] = {}
        self.refused_: dict[str, str] = {}

    def fit(
        self,
        predicted_years: ArrayLike,
        age_years: ArrayLike,
        subject_ids: Sequence[str],
        patterns: Sequence[str],
    ) -> PatternedBiasCorrection:
        """Fit on validation predictions (S, C) for the patterns that will be met."""
        predicted, age = np.asarray(predicted_years, float), np.asarray(age_years, float)
        self.corrections_, self.refused_ = {}, {}
        for pattern in sorted(set(patterns)):
            if "1" not in pattern:
                continue
            present = np.array([flag == "1" for flag in pattern])
            rows = np.isfinite(predicted[:, present]).all(axis=1)
            masked = np.where(present, predicted[rows], np.nan)
            combined = self.combination.apply(masked).predicted_years
            ids = [str(s) for s, kept in zip(subject_ids, rows) if kept]
            try:
                fitted = AgeBiasCorrection(self.method).fit(combined, age[rows], ids)
            except CorrectionRefused as refusal:
                self.refused_[pattern] = refusal.reason
                continue
            self.corrections_[pattern] = fitted
        return self

    def correct(
        self,
        predicted_years: ArrayLike,
        age_years: ArrayLike,
        subject_ids: Sequence[str],
        allow_in_sample: bool = False,
    ) -> CorrectedDeltas:
        """Corrected deltas of subjects outside the fit from their contrasts' predictions (S, C).

        The record holds one entry a pattern; a refused or unfitted pattern gives NaN and its reason.
        """
        combined = self.combination.apply(predicted_years)
        age, ids = np.asarray(age_years, float), np.asarray(subject_ids, dtype=object)
        corrected = np.full(age.size, np.nan)
        outside = np.zeros(age.size, dtype=bool)
        records: dict[str, dict] = {}
        for pattern in map(str, np.unique(combined.patterns)):
            rows = np.flatnonzero(combined.patterns == pattern)
            if pattern not in self.corrections_:
                reason = self.refused_.get(pattern, "no contrast is present")
                records[pattern] = {"n": rows.size, "refused": reason}
                continue
            part = self.corrections_[pattern].correct(
                combined.predicted_years[rows], age[rows], ids[rows].tolist(), allow_in_sample
            )
            corrected[rows], outside[rows] = part.corrected_delta_years, part.extrapolated
            records[pattern] = {"n": rows.size, **part.record}
        record = {
            "method": self.method,
            "contrasts": list(self.combination.contrasts),
            "in_sample": any(entry.get("in_sample", False) for entry in records.values()),
            "patterns": records,
        }
        return CorrectedDeltas(corrected, outside, record)
