"""Bias-corrected deltas of combined contrasts: one correction for each pattern of present contrasts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from utils.evaluation.age_dependence import dependence_before_and_after
from utils.evaluation.age_line import line_record
from utils.evaluation.contrast_patterns import mask_of
from utils.evaluation.cross_fitting import predict_without_self
from utils.evaluation.deltas import (
    LINES,
    MINIMUM_N_FIT,
    AgeBiasCorrection,
    CorrectedDeltas,
    CorrectionRefused,
)
from utils.evaluation.ensembling import ContrastCombination
from utils.evaluation.folded_combination import FoldedCombination

Array = NDArray[np.float64]

RARE_PATTERN = 20
NOTE_RARE = f"fewer than {RARE_PATTERN} subjects have just these contrasts"
FROM_MOMENTS = "moments"
NOTE_MOMENTS = f"line from the moments: fewer than {MINIMUM_N_FIT} validation subjects have all these contrasts"


class PatternedBiasCorrection:
    """Age-bias correction of combined predictions, one for each pattern of present contrasts.

    Slope and spread of the predicted about the true age depend on which contrasts were combined. For a pattern, every
    validation subject that has at least its contrasts is predicted with that pattern's weights, and the correction
    fitted on these. So a rare pattern needs no pooling with others, whose slopes are not its own: it borrows subjects
    instead; it is flagged. Where fewer than 50 have them all, a line is taken from the combination's moments
    (`PatternWeights.line`), if at least 50 have each two of them: of 57 contrasts that miss here and there hardly two
    subjects have the same. A curve is refused there. A pattern whose correction is refused leaves its subjects without
    a corrected delta, with the reason.

    Parameters
    ----------
    combination : ContrastCombination
        Fitted.
    method : str
        One of `deltas.METHODS`.
    """

    def __init__(self, combination: ContrastCombination, method: str = "subtract"):
        self.combination = combination
        self.method = method
        self.cross_fitted_ = False
        self.corrections_: dict[str, AgeBiasCorrection] = {}
        self.refused_: dict[str, str] = {}

    def fit(
        self,
        predicted_years: ArrayLike,
        age_years: ArrayLike,
        subject_ids: Sequence[str],
        patterns: Sequence[str],
        folded: FoldedCombination | None = None,
    ) -> PatternedBiasCorrection:
        """Fit on validation predictions (S, C) for the patterns that will be met.

        folded : the combination's `out_of_fold` of these subjects in this order; the corrections are then fitted on
        predictions by weights that had not seen the subject. Left out, on the combination's own.
        """
        predicted, age = np.asarray(predicted_years, float), np.asarray(age_years, float)
        self.corrections_, self.refused_ = {}, {}
        self.cross_fitted_ = folded is not None
        there = np.isfinite(predicted) & np.isfinite(age)[:, None]
        together = there.T.astype(float) @ there
        for pattern in sorted(set(patterns)):
            if "1" not in pattern:
                continue
            present = mask_of(pattern)
            rows = there[:, present].all(axis=1)
            n_together = int(together[np.ix_(present, present)].min())
            if rows.sum() < MINIMUM_N_FIT <= n_together and self.method in LINES:
                used = there[:, present].any(axis=1)
                ids = [str(s) for s, kept in zip(subject_ids, used) if kept]
                self._take_line(pattern, age[used], ids, n_together)
                continue
            masked = np.where(rows[:, None] & present, predicted, np.nan)
            combined = (
                self.combination.apply(masked).predicted_years
                if folded is None
                else predict_without_self(self.combination, folded, masked)
            )
            ids = [str(s) for s, kept in zip(subject_ids, rows) if kept]
            try:
                fitted = AgeBiasCorrection(self.method).fit(combined[rows], age[rows], ids)
            except CorrectionRefused as refusal:
                self.refused_[pattern] = refusal.reason
                continue
            self.corrections_[pattern] = fitted
        return self

    def _take_line(self, pattern: str, age: Array, ids: list[str], n_together: int) -> None:
        """The line of a pattern from the moments, with intervals as from the fewest subjects of a covariance."""
        try:
            expected = self.combination.line(pattern)
            line = line_record(
                expected.alpha_years, expected.beta, expected.delta_sd_years, age, n_together
            )
            self.corrections_[pattern] = AgeBiasCorrection.from_line(
                self.method, line, ids, FROM_MOMENTS
            )
        except CorrectionRefused as refusal:
            self.refused_[pattern] = refusal.reason
        except ValueError as error:  # a mean of too few subjects, or of one age, has no moments
            self.refused_[pattern] = str(error)

    def correct(
        self,
        predicted_years: ArrayLike,
        age_years: ArrayLike,
        subject_ids: Sequence[str],
        allow_in_sample: bool = False,
    ) -> CorrectedDeltas:
        """Corrected deltas of subjects outside the fit from their contrasts' predictions (S, C).

        `delta_z` is over the SD that the pattern's fit left, so that subjects with few contrasts, whose deltas scatter
        more, and those with many are comparable. The record holds one entry a pattern; a refused or unfitted pattern
        gives NaN and its reason.
        """
        combined = self.combination.apply(predicted_years)
        age, ids = np.asarray(age_years, float), np.asarray(subject_ids, dtype=object)
        corrected, z = np.full(age.size, np.nan), np.full(age.size, np.nan)
        outside, in_sample = np.zeros(age.size, dtype=bool), np.zeros(age.size, dtype=bool)
        notes = np.full(age.size, "", dtype=object)
        records: dict[str, dict] = {}
        for pattern in map(str, np.unique(combined.patterns)):
            rows = np.flatnonzero(combined.patterns == pattern)
            if pattern not in self.corrections_:
                reason = self.refused_.get(pattern, "no contrast is present")
                records[pattern] = {"n": rows.size, "refused": reason}
                notes[rows] = reason
                continue
            part = self.corrections_[pattern].correct(
                combined.predicted_years[rows], age[rows], ids[rows].tolist(), allow_in_sample
            )
            corrected[rows], z[rows] = part.corrected_delta_years, part.delta_z
            outside[rows], in_sample[rows] = part.extrapolated, part.in_sample
            rare = rows.size < RARE_PATTERN
            of_moments = part.record.get("line_from") == FROM_MOMENTS
            shared = _joined(NOTE_RARE if rare else "", NOTE_MOMENTS if of_moments else "")
            notes[rows] = [_joined(shared, note) for note in part.notes]
            records[pattern] = {"n": rows.size, "rare": rare, **part.record}
        record = {
            "method": self.method,
            "contrasts": list(self.combination.contrasts),
            "cross_fitted": self.cross_fitted_,
            "in_sample": any(entry.get("in_sample", False) for entry in records.values()),
            "n_of_rare_patterns": sum(e["n"] for e in records.values() if e.get("rare", False)),
            "n_of_moment_lines": sum(e["n"] for e in records.values() if "line_from" in e),
            "age_dependence": dependence_before_and_after(
                combined.predicted_years - age, corrected, age
            ),
            "patterns": records,
        }
        return CorrectedDeltas(corrected, z, outside, in_sample, tuple(notes), record)


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))
