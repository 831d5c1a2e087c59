"""The combination of contrasts into one predicted age: fitted on validation subjects of one sex, frozen, applied.

Subjects may lack contrasts. Weights for every pattern of present contrasts follow exactly from the same frozen moments,
so no value is ever filled in and nothing is refitted on the subjects that are predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from datasets.subjects import subjects_hash
from utils.evaluation.combination_weights import WEIGHTS, Tuning
from utils.evaluation.contrast_patterns import CombinedPredictions, mask_of, patterns_of
from utils.evaluation.folded_combination import FoldedCombination
from utils.evaluation.incomplete_moments import PRIOR_SUBJECTS, moments_of
from utils.evaluation.pattern_weights import PatternLine, PatternWeights
from utils.evaluation.tuning_selection import draw_folds, select_tuning
from utils.evaluation.validation_subjects import (
    ENOUGH_N_FIT,
    ValidationSubjects,
    take_subjects,
    usable_contrasts,
)
from utils.evaluation.weight_intervals import bootstrap_weights

Array = NDArray[np.float64]

METHODS = tuple(WEIGHTS)
N_FOLDS_OUT = 10
INTERVAL = (2.5, 97.5)
RECORDED = (
    "n_fit", "n_left_out", "n_complete", "n_by_contrast", "n_pairs_never_together", "fit_subjects_sha256",
    "em_iterations", "em_converged", "cross_validated_mse_years2", "n_resamples",
)  # fmt: skip


class ContrastCombination:
    r"""Combines the predictions of C contrasts with weights fitted on validation subjects.

    With mu and Sigma the mean and covariance of (predictions, age) over validation subjects, and S the contrasts that
    a subject has,

        combined = mu_a + w_S' (p_S - mu_S),    w_S a function of Sigma_SS and Sigma_Sa (`combination_weights`).

    "ridge", "nonnegative" and "elastic_net" regress age on the predictions. The weights of "inverse_variance" and
    "gls" sum to 1: averages of the predictions freed of each contrast's mean error. "mean" averages the predictions as
    they are and needs no fit. Validation subjects may lack contrasts: mu and Sigma are then estimated by EM
    (`incomplete_moments`). A contrast with too few validation subjects, or the same prediction for all, is not used,
    and `notes_` says why. Penalties and shrinkage are the same for every S.

    For complete validation subjects the weights of a pattern S equal those of refitting on the columns of S alone with
    the same penalty; gls would estimate another shrinkage on S alone and keeps that of all contrasts.

    Parameters
    ----------
    contrasts : sequence of str
        Names, in the order of the columns of predictions.
    method : str
        One of METHODS. With too few validation subjects it becomes the mean, and `reason_` says so.

    Source: Breiman 1996, Mach Learn 24:49 (stacked regressions), with ridge in place of non-negativity by default.
    """

    def __init__(self, contrasts: Sequence[str], method: str = "ridge"):
        if method not in METHODS:
            raise ValueError(f"method is one of {', '.join(METHODS)}, not {method!r}")
        if not contrasts or len(set(contrasts)) != len(contrasts):
            raise ValueError("contrasts are named once each, and there is at least one")
        self.contrasts = tuple(contrasts)
        self.method = method
        self.reason_ = ""
        self.notes_: dict[str, str] = {}
        self.intervals_: dict[str, list[float]] = {}
        self.record_: dict[str, Any] = {}
        self._pattern_weights: PatternWeights | None = None

    @property
    def method_(self) -> str:
        """The method in force; "" before the fit."""
        return self._pattern_weights.method if self._pattern_weights else ""

    @property
    def penalty_(self) -> float | None:
        """Ridge's lambda, or the elastic net's alpha in years."""
        return self._fitted().tuning.penalty

    def fit(
        self,
        predicted_years: ArrayLike,
        age_years: ArrayLike,
        subject_ids: Sequence[str],
        rng: np.random.Generator,
    ) -> ContrastCombination:
        """Fit on validation subjects with an age and at least one contrast; the others are left out and counted.

        Parameters
        ----------
        predicted_years : (S, C) float
            Uncorrected predictions, NaN where missing.
        age_years : (S,) float
            Ages.
        subject_ids : (S,) str
            Their hash is recorded.
        rng : numpy.random.Generator
            Draws the folds in which penalties are chosen.
        """
        predicted, age = self._checked(predicted_years), np.asarray(age_years, dtype=float)
        method, self.notes_, self.reason_ = self.method, {}, ""
        if method != "mean":
            self.notes_, self.reason_ = usable_contrasts(method, self.contrasts, predicted, age)
        if self.reason_:
            method, self.notes_ = "mean", {}
        used = np.array([name not in self.notes_ for name in self.contrasts])
        return self._fit(method, take_subjects(predicted, age, subject_ids, used), rng)

    def apply(self, predicted_years: ArrayLike) -> CombinedPredictions:
        """Combine the contrasts that each subject has.

        Parameters
        ----------
        predicted_years : (S, C) float
            Uncorrected predictions, NaN where missing.
        """
        fitted = self._fitted()
        predicted = np.where(fitted.used, self._checked(predicted_years), np.nan)
        patterns = patterns_of(predicted)
        combined = np.full(len(predicted), np.nan)
        for pattern in map(str, np.unique(patterns)):
            rows = patterns == pattern
            combined[rows] = fitted.combine(predicted[rows], mask_of(pattern))
        return CombinedPredictions(combined, patterns)

    def weights(self, pattern: str | None = None) -> dict[str, float]:
        """Weight of each present contrast for a pattern ("101"; None: all); 0 for one that is not used."""
        present = self._mask(pattern)
        weights = self._fitted().weights(present).tolist()
        return {name: w for name, w, there in zip(self.contrasts, weights, present) if there}

    def line(self, pattern: str | None = None) -> PatternLine:
        """Slope and scale of a pattern from the moments (`PatternWeights.line`), as on the subjects of the fit."""
        return self._fitted().line(self._mask(pattern))

    def out_of_fold(
        self,
        predicted_years: ArrayLike,
        age_years: ArrayLike,
        subject_ids: Sequence[str],
        rng: np.random.Generator,
        n_folds: int = N_FOLDS_OUT,
    ) -> FoldedCombination:
        """The same method fitted once a fold, penalties chosen inside, so that subjects meet weights without them.

        Takes the subjects that `fit` took. A contrast that is used by the whole is used in every fold.
        """
        method, whole = self.method_, self._again(predicted_years, age_years, subject_ids)
        fold = draw_folds(subject_ids, n_folds, rng)
        parts = [ContrastCombination(self.contrasts, self.method) for _ in range(n_folds)]
        for k, part in enumerate(parts):
            part._fit(method, whole.without(fold == k), rng)
        return FoldedCombination(tuple(part.apply for part in parts), fold)

    def estimate_intervals(
        self,
        predicted_years: ArrayLike,
        age_years: ArrayLike,
        subject_ids: Sequence[str],
        rng: np.random.Generator,
        n_resamples: int = 1000,
    ) -> ContrastCombination:
        """95 % percentile intervals of the weights (`bootstrap_weights`), from the subjects that `fit` took."""
        fitted, subjects = self._fitted(), self._again(predicted_years, age_years, subject_ids)
        self.intervals_ = {}
        if self.method_ == "mean" or n_resamples == 0:
            return self
        moments = fitted.moments(len(subjects.joint))
        drawn = bootstrap_weights(
            fitted.method, subjects.joint, moments, fitted.tuning, rng, n_resamples
        )
        used = [name for name in self.contrasts if name not in self.notes_]
        self.intervals_ = dict(zip(used, np.percentile(drawn, INTERVAL, axis=0).T.tolist()))
        self.record_["n_resamples"] = len(drawn)
        return self

    def weights_table(self) -> pd.DataFrame:
        """A row a contrast: weight among all, 95 % interval (NaN: not estimated), validation subjects, method, note."""
        weights, n = self.weights(), self.record_.get("n_by_contrast", {})
        rows = []
        for name in self.contrasts:
            fixed = [weights[name]] * 2 if self.method_ == "mean" else [np.nan] * 2
            low, high = self.intervals_.get(name, fixed)
            row = {"contrast": name, "weight": weights[name], "low": low, "high": high}
            row |= {"n": n.get(name, self.record_.get("n_fit")), "method": self.method_}
            rows.append(row | {"note": self.notes_.get(name, "")})
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Everything needed to apply it again, as plain values; `weights` (all contrasts) is for reading."""
        fitted = self._fitted()
        return {
            "contrasts": list(self.contrasts),
            "method_requested": self.method,
            "method": fitted.method,
            "reason": self.reason_,
            "notes": dict(self.notes_),
            **asdict(fitted.tuning),
            "weights": self.weights(),
            "weight_intervals": {name: list(ends) for name, ends in self.intervals_.items()},
            "means_years": _plain(fitted.means),
            "covariance_years2": [_plain(row) for row in fitted.covariance],
            **self.record_,
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> ContrastCombination:
        """The combination that `to_dict` described; it applies to the same bits. Reads release 0.3.0's records."""
        combination = cls(record["contrasts"], record["method_requested"])
        combination.reason_ = record["reason"]
        combination.notes_ = dict(record.get("notes", {}))
        combination.intervals_ = dict(record.get("weight_intervals", {}))
        combination.record_ = {key: record[key] for key in RECORDED if key in record}
        tuning = Tuning(record["penalty"], record.get("l1_ratio"), record.get("shrinkage"))
        used = np.array([name not in combination.notes_ for name in combination.contrasts])
        combination._pattern_weights = PatternWeights(
            record["method"],
            tuning,
            used,
            np.array(record["means_years"], dtype=float),
            np.array(record["covariance_years2"], dtype=float),
        )
        return combination

    def _fit(
        self, method: str, subjects: ValidationSubjects, rng: np.random.Generator
    ) -> ContrastCombination:
        """Moments, tuning and what is said of the subjects; method and contrasts are decided already."""
        self.intervals_, self.record_ = {}, subjects.record(self.contrasts)
        moments, tuning = None, Tuning()
        # The mean needs no moments; where there are enough subjects for them they tell its slope.
        if method != "mean" or subjects.n_by_contrast.min() >= ENOUGH_N_FIT:
            moments = moments_of(subjects.joint, prior_subjects=PRIOR_SUBJECTS)
            self.record_["em_iterations"] = moments.n_iterations
            self.record_["em_converged"] = moments.converged
            tuning, errors = select_tuning(
                method, subjects.joint, moments, subjects.subject_ids, rng
            )
            if errors:
                self.record_["cross_validated_mse_years2"] = errors
        self._pattern_weights = PatternWeights.of_moments(method, tuning, subjects.usable, moments)
        return self

    def _again(
        self, predicted_years: ArrayLike, age_years: ArrayLike, subject_ids: Sequence[str]
    ) -> ValidationSubjects:
        """The subjects of the fit, refused if these are others."""
        age = np.asarray(age_years, dtype=float)
        subjects = take_subjects(
            self._checked(predicted_years), age, subject_ids, self._fitted().used
        )
        if subjects_hash(subjects.subject_ids) != self.record_["fit_subjects_sha256"]:
            raise ValueError("these are not the subjects that the combination was fitted on")
        return subjects

    def _fitted(self) -> PatternWeights:
        if self._pattern_weights is None:
            raise ValueError("the combination is applied before it was fitted")
        return self._pattern_weights

    def _mask(self, pattern: str | None) -> NDArray[np.bool_]:
        return mask_of(pattern or "1" * len(self.contrasts))

    def _checked(self, predicted_years: ArrayLike) -> Array:
        predicted = np.asarray(predicted_years, dtype=float)
        if predicted.ndim != 2 or predicted.shape[1] != len(self.contrasts):
            raise ValueError(
                f"predictions of {len(self.contrasts)} contrasts are needed as columns, not {predicted.shape}"
            )
        return predicted


def _plain(values: Array) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
