"""The deltas of one sex: contrasts and their combination, corrected for the age bias.

Everything is fitted on the validation split and frozen before another split is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from utils.evaluation.deltas import AgeBiasCorrection, CorrectionRefused
from utils.evaluation.ensembling import ContrastCombination
from utils.evaluation.pattern_deltas import PatternedBiasCorrection

COMBINED = "ensemble"
FITTED_ON = "validation"


@dataclass(frozen=True)
class SplitPredictions:
    """Predictions of all contrasts for the subjects of one split and sex."""

    subject_ids: list[str]
    ages_years: np.ndarray  # (S,)
    predicted_years: np.ndarray  # (S, C), NaN where a contrast is missing
    notes: list[list[str]]  # (S, C) the note of each prediction

    @classmethod
    def from_tables(cls, tables: list[pd.DataFrame | None]) -> SplitPredictions:
        """Join the predictions tables of the contrasts on subject_id (None: the cell has none)."""
        there = [table for table in tables if table is not None]
        ids = list(dict.fromkeys(i for table in there for i in table["subject_id"]))
        ages = pd.concat([t.set_index("subject_id")["age_years"] for t in there]).astype(float)
        ages = ages.groupby(level=0).first().reindex(ids)
        predicted = np.full((len(ids), len(tables)), np.nan)
        notes = [["no prediction"] * len(tables) for _ in ids]
        for c, table in enumerate(tables):
            if table is None:
                continue
            column = table.set_index("subject_id")["predicted_years"].astype(float)
            predicted[:, c] = column.reindex(ids)
            texts = table.set_index("subject_id")["note"].fillna("").astype(str)
            for s, subject_id in enumerate(ids):
                if subject_id in texts.index:
                    notes[s][c] = texts[subject_id]
        return cls(ids, ages.to_numpy(), predicted, notes)

    def usable(self) -> SplitPredictions:
        """Those with an age, on which something can be fitted."""
        keep = np.flatnonzero(np.isfinite(self.ages_years))
        return SplitPredictions(
            [self.subject_ids[i] for i in keep],
            self.ages_years[keep],
            self.predicted_years[keep],
            [self.notes[i] for i in keep],
        )


@dataclass
class SexDeltas:
    """Combination and bias corrections of one sex, fitted on validation; `apply` gives deltas."""

    sex: str
    contrasts: list[str]
    combination_method: str  # ridge or mean
    correction_method: str  # subtract, divide or none
    combinations: dict[str, ContrastCombination] = field(default_factory=dict)
    corrections: dict[str, AgeBiasCorrection] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def combines(self) -> bool:
        """A combination of one contrast would be that contrast."""
        return len(self.contrasts) > 1

    def fit(self, validation: SplitPredictions, rng: np.random.Generator) -> SexDeltas:
        """Fit combinations and one correction a contrast on the validation split."""
        self._validation = validation = validation.usable()
        if self.combines:
            for method in ("ridge", "mean"):
                self.combinations[method] = ContrastCombination(self.contrasts, method).fit(
                    validation.predicted_years, validation.ages_years, validation.subject_ids, rng
                )
        for c, contrast in enumerate(self.contrasts):
            if self.correction_method == "none":
                self.refused[contrast] = "bias_correction = none"
                continue
            correction = AgeBiasCorrection(self.correction_method)
            try:
                self.corrections[contrast] = correction.fit(
                    validation.predicted_years[:, c], validation.ages_years, validation.subject_ids
                )
            except CorrectionRefused as refusal:
                self.refused[contrast] = refusal.reason
        return self

    def combined_years(self, split: SplitPredictions, method: str) -> np.ndarray:
        """(S,) combined prediction by "ridge" or "mean"."""
        return self.combinations[method].apply(split.predicted_years).predicted_years

    def apply(self, split: SplitPredictions, name: str) -> tuple[pd.DataFrame, dict[str, Any]]:
        """The long deltas table of a split, and the record of the corrections applied to it."""
        in_sample = name == FITTED_ON
        tables, records = [], {}
        for c, contrast in enumerate(self.contrasts):
            predicted = split.predicted_years[:, c]
            corrected = np.full(len(predicted), np.nan)
            note = self.refused.get(contrast, "")
            if contrast in self.corrections:
                done = self.corrections[contrast].correct(
                    predicted, split.ages_years, split.subject_ids, allow_in_sample=in_sample
                )
                corrected, records[contrast] = done.corrected_delta_years, done.record
            else:
                records[contrast] = {"refused": note}
            notes = ["; ".join(filter(None, (row[c], note))) for row in split.notes]
            tables.append(self._long(split, contrast, predicted, corrected, notes))
        if self.combines:
            table, records[COMBINED] = self._apply_combination(split, in_sample)
            tables.append(table)
        return pd.concat(tables, ignore_index=True), records

    def _apply_combination(
        self, split: SplitPredictions, in_sample: bool
    ) -> tuple[pd.DataFrame, dict[str, Any]]:
        combination = self.combinations[self.combination_method]
        applied = combination.apply(split.predicted_years)
        predicted = applied.predicted_years
        corrected = np.full(len(predicted), np.nan)
        record: dict[str, Any] = {"refused": "bias_correction = none"}
        refused: dict[str, str] = {}
        if self.correction_method != "none":
            fitted_on = self._validation
            correction = PatternedBiasCorrection(combination, self.correction_method).fit(
                fitted_on.predicted_years,
                fitted_on.ages_years,
                fitted_on.subject_ids,
                applied.patterns.tolist(),
            )
            done = correction.correct(
                split.predicted_years, split.ages_years, split.subject_ids, in_sample
            )
            corrected, record, refused = (
                done.corrected_delta_years,
                done.record,
                correction.refused_,
            )
        notes = []
        for pattern in map(str, applied.patterns):
            missing = [name for name, flag in zip(self.contrasts, pattern) if flag == "0"]
            without = f"without {', '.join(missing)}" if missing else ""
            notes.append("; ".join(filter(None, (without, refused.get(pattern, "")))))
        return self._long(split, COMBINED, predicted, corrected, notes), record

    def _long(
        self,
        split: SplitPredictions,
        contrast: str,
        predicted: np.ndarray,
        corrected: np.ndarray,
        notes: list[str],
    ) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "subject_id": split.subject_ids,
                "sex": self.sex,
                "contrast": contrast,
                "age_years": split.ages_years,
                "predicted_years": predicted,
                "delta_years": predicted - split.ages_years,
                "corrected_delta_years": corrected,
                "note": notes,
            }
        )
