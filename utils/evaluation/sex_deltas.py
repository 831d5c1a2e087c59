"""The deltas of one sex: contrasts and their combination, corrected for the age bias.

Everything is fitted on the validation split and frozen before another split is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from utils.evaluation.debiased_accuracy import debiased_accuracy
from utils.evaluation.deltas import (
    MINIMUM_N_FIT,
    AgeBiasCorrection,
    CorrectedDeltas,
    CorrectionRefused,
)
from utils.evaluation.ensembling import ContrastCombination
from utils.evaluation.folded_combination import FoldedCombination
from utils.evaluation.metrics import MINIMUM_N_INTERVAL
from utils.evaluation.pattern_deltas import PatternedBiasCorrection

COMBINED = "ensemble"
FITTED_ON = "validation"
RETEST = "retest"  # second scans, of subjects of any split
COMPARED = ("ridge", "mean")  # combinations whose accuracy is told beside the chosen one's
NOT_CORRECTED = "bias_correction = none"


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


@dataclass(frozen=True)
class DeltaRules:
    """How contrasts are combined and deltas corrected."""

    combination: str = "ridge"  # one of `ensembling.METHODS`
    correction: str = "subtract"  # one of `deltas.METHODS`, or none
    cross_fit: bool = (
        True  # the combination's correction on predictions by weights that had not seen the subject
    )
    allow_in_sample: bool = (
        False  # apply a correction to subjects that it was fitted on, and stamp it
    )
    n_weight_resamples: int = 0  # behind the intervals of the combination's weights


@dataclass
class SexDeltas:
    """Combination and bias corrections of one sex, fitted on validation; `apply` gives deltas."""

    sex: str
    contrasts: list[str]
    rules: DeltaRules
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
            for method in dict.fromkeys((*COMPARED, self.rules.combination)):
                self.combinations[method] = ContrastCombination(self.contrasts, method).fit(
                    validation.predicted_years, validation.ages_years, validation.subject_ids, rng
                )
            self._folded = self._fold(rng)
            self.combinations[self.rules.combination].estimate_intervals(
                validation.predicted_years,
                validation.ages_years,
                validation.subject_ids,
                rng,
                self.rules.n_weight_resamples,
            )
        for c, contrast in enumerate(self.contrasts):
            if self.rules.correction == "none":
                self.refused[contrast] = NOT_CORRECTED
                continue
            correction = AgeBiasCorrection(self.rules.correction)
            try:
                self.corrections[contrast] = correction.fit(
                    validation.predicted_years[:, c], validation.ages_years, validation.subject_ids
                )
            except CorrectionRefused as refusal:
                self.refused[contrast] = refusal.reason
        return self

    def _fold(self, rng: np.random.Generator) -> FoldedCombination | None:
        """The chosen combination fitted without each tenth of the subjects; None where no line needs it."""
        combination, fitted_on = self.combinations[self.rules.combination], self._validation
        wanted = self.rules.cross_fit and self.rules.correction != "none"
        few = len(fitted_on.subject_ids) < MINIMUM_N_FIT  # every correction is refused
        if not wanted or few or combination.method_ == "mean":  # a mean has no weights to fit
            return None
        return combination.out_of_fold(
            fitted_on.predicted_years, fitted_on.ages_years, fitted_on.subject_ids, rng
        )

    def weights_table(self) -> pd.DataFrame:
        """A row a contrast of the chosen combination: weight, interval, validation subjects, method, note."""
        table = self.combinations[self.rules.combination].weights_table()
        table.insert(0, "sex", self.sex)
        return table

    def combined_years(self, split: SplitPredictions, method: str) -> np.ndarray:
        """(S,) combined prediction by one of the fitted combinations."""
        return self.combinations[method].apply(split.predicted_years).predicted_years

    def apply(self, split: SplitPredictions, name: str) -> tuple[pd.DataFrame, dict[str, Any]]:
        """The long deltas table of a split, and the record of the corrections applied to it.

        Subjects of the fit are an error, but in the validation split itself, among second scans, or where the rules
        allow them; they are stamped.
        """
        in_sample = name in (FITTED_ON, RETEST) or self.rules.allow_in_sample
        tables, records = [], {}
        for c, contrast in enumerate(self.contrasts):
            predicted = split.predicted_years[:, c]
            notes = [row[c] for row in split.notes]
            done = None
            if contrast in self.corrections:
                correction = self.corrections[contrast]
                done = correction.correct(
                    predicted, split.ages_years, split.subject_ids, allow_in_sample=in_sample
                )
                records[contrast] = done.record
                if (
                    correction.method == "divide"
                    and done.record["n_corrected"] >= MINIMUM_N_INTERVAL
                ):
                    debiased = debiased_accuracy(correction, predicted, split.ages_years)
                    records[contrast]["debiased_accuracy"] = debiased
            else:
                records[contrast] = {"refused": self.refused[contrast]}
                notes = [_joined(note, self.refused[contrast]) for note in notes]
            tables.append(self._long(split, contrast, predicted, done, notes))
        if self.combines:
            table, records[COMBINED] = self._apply_combination(split, in_sample)
            tables.append(table)
        return pd.concat(tables, ignore_index=True), records

    def _apply_combination(
        self, split: SplitPredictions, in_sample: bool
    ) -> tuple[pd.DataFrame, dict[str, Any]]:
        combination = self.combinations[self.rules.combination]
        applied = combination.apply(split.predicted_years)
        notes = []
        for pattern in map(str, applied.patterns):
            missing = [name for name, flag in zip(self.contrasts, pattern) if flag == "0"]
            notes.append(f"without {', '.join(missing)}" if missing else "")
        done = None
        record: dict[str, Any] = {"refused": NOT_CORRECTED}
        if self.rules.correction != "none":
            fitted_on = self._validation
            correction = PatternedBiasCorrection(combination, self.rules.correction).fit(
                fitted_on.predicted_years,
                fitted_on.ages_years,
                fitted_on.subject_ids,
                applied.patterns.tolist(),
                self._folded,
            )
            done = correction.correct(
                split.predicted_years, split.ages_years, split.subject_ids, in_sample
            )
            record = done.record
        return self._long(split, COMBINED, applied.predicted_years, done, notes), record

    def _long(
        self,
        split: SplitPredictions,
        contrast: str,
        predicted: np.ndarray,
        done: CorrectedDeltas | None,
        notes: list[str],
    ) -> pd.DataFrame:
        nothing = np.full(len(predicted), np.nan)
        if done is not None:
            notes = [_joined(*both) for both in zip(notes, done.notes)]
        return pd.DataFrame(
            {
                "subject_id": split.subject_ids,
                "sex": self.sex,
                "contrast": contrast,
                "age_years": split.ages_years,
                "predicted_years": predicted,
                "delta_years": predicted - split.ages_years,
                "corrected_delta_years": nothing if done is None else done.corrected_delta_years,
                "delta_z": nothing if done is None else done.delta_z,
                "note": notes,
            }
        )


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))
