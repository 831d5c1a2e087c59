"""The combination of contrasts into one predicted age: fitted on validation subjects of one sex, frozen, applied.

Subjects may lack contrasts. Weights for every pattern of present contrasts follow exactly from the same frozen moments,
so no value is ever filled in and nothing is refitted on the subjects that are predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datasets.subjects import subjects_hash

Array = NDArray[np.float64]

METHODS = ("ridge", "mean")
PENALTIES = (0.0, 1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)
N_FOLDS = 5
MINIMUM_N_FIT = 20
SUBJECTS_PER_COEFFICIENT = 3


@dataclass(frozen=True)
class CombinedPredictions:
    """predicted_years (S,), NaN without any contrast; patterns (S,) of present contrasts, "101" in their order."""

    predicted_years: Array
    patterns: NDArray[np.str_]


def patterns_of(predicted_years: Array) -> NDArray[np.str_]:
    """Which contrasts each subject has, as text: "1" present, "0" missing."""
    present = np.isfinite(predicted_years)
    return np.array(["".join("1" if p else "0" for p in row) for row in present], dtype=np.str_)


class ContrastCombination:
    r"""Combines the predictions of C contrasts; "ridge" stacks them, "mean" averages those present.

    With mu and Sigma the mean and covariance of (predictions, age) over validation subjects with all contrasts, and S
    the contrasts that a subject has,

        w_S = (Sigma_SS + lambda diag Sigma_SS)^-1 Sigma_Sa,    combined = mu_a + w_S' (p_S - mu_S).

    lambda is chosen by cross-validation among the validation subjects; it is the same for every S.

    Parameters
    ----------
    contrasts : sequence of str
        Names, in the order of the columns of predictions.
    method : str
        "ridge" or "mean". Ridge with too few complete validation subjects becomes the mean, and `reason_` says so.

    Source: Breiman 1996, Mach Learn 24:49 (stacked regressions), with ridge in place of non-negativity.
    """

    def __init__(self, contrasts: Sequence[str], method: str = "ridge"):
        if method not in METHODS:
            raise ValueError(f"method is one of {', '.join(METHODS)}, not {method!r}")
        if not contrasts or len(set(contrasts)) != len(contrasts):
            raise ValueError("contrasts are named once each, and there is at least one")
        self.contrasts = tuple(contrasts)
        self.method = method
        self.method_ = ""
        self.reason_ = ""
        self.penalty_: float | None = None
        self.record_: dict = {}
        self._means = np.empty(0)
        self._covariance = np.empty((0, 0))
        self._weights: dict[str, Array] = {}

    def fit(
        self,
        predicted_years: ArrayLike,
        age_years: ArrayLike,
        subject_ids: Sequence[str],
        rng: np.random.Generator,
    ) -> ContrastCombination:
        """Fit on validation subjects; those without all contrasts are left out and counted.

        Parameters
        ----------
        predicted_years : (S, C) float
            Uncorrected predictions, NaN where missing.
        age_years : (S,) float
            Ages.
        subject_ids : (S,) str
            Their hash is recorded.
        rng : numpy.random.Generator
            Draws the folds in which lambda is chosen.
        """
        predicted = self._checked(predicted_years)
        age = np.asarray(age_years, dtype=float)
        complete = np.isfinite(predicted).all(axis=1) & np.isfinite(age)
        n_fit, n_contrasts = int(complete.sum()), len(self.contrasts)
        self.method_, self.reason_, self._weights = self.method, "", {}
        self.record_ = {
            "n_fit": n_fit,
            "n_left_out": int(complete.size - n_fit),
            "fit_subjects_sha256": subjects_hash(
                str(s) for s, kept in zip(subject_ids, complete) if kept
            ),
        }
        if self.method == "mean":
            return self
        needed = max(MINIMUM_N_FIT, SUBJECTS_PER_COEFFICIENT * (n_contrasts + 1))
        if n_fit < needed or np.ptp(age[complete]) == 0.0:
            self.method_ = "mean"
            self.reason_ = (
                f"ridge needs at least {needed} validation subjects of different ages with all {n_contrasts} "
                f"contrasts; there are {n_fit}: the plain mean is used"
            )
            return self
        joint = np.column_stack([predicted[complete], age[complete]])
        self.penalty_, errors = _choose_penalty(joint, rng)
        self.record_["cross_validated_mse_years2"] = dict(zip(map(str, PENALTIES), errors))
        self._means, self._covariance = _moments(joint)
        return self

    def apply(self, predicted_years: ArrayLike) -> CombinedPredictions:
        """Combine the contrasts that each subject has.

        Parameters
        ----------
        predicted_years : (S, C) float
            Uncorrected predictions, NaN where missing.
        """
        predicted = self._checked(predicted_years)
        if not self.method_:
            raise ValueError("the combination is applied before it was fitted")
        patterns = patterns_of(predicted)
        combined = np.full(len(predicted), np.nan)
        for pattern in np.unique(patterns):
            if "1" not in pattern:
                continue
            rows = patterns == pattern
            combined[rows] = self._combine(predicted[rows], str(pattern))
        return CombinedPredictions(combined, patterns)

    def weights(self, pattern: str | None = None) -> dict[str, float]:
        """Weight of each present contrast for a pattern ("101"; None: all contrasts)."""
        pattern = pattern or "1" * len(self.contrasts)
        present = [name for name, flag in zip(self.contrasts, pattern) if flag == "1"]
        return dict(zip(present, self._weights_of(pattern).tolist()))

    def to_dict(self) -> dict:
        """Everything needed to apply it again, as plain values; `weights` (all contrasts) is for reading."""
        return {
            "contrasts": list(self.contrasts),
            "method_requested": self.method,
            "method": self.method_,
            "reason": self.reason_,
            "penalty": self.penalty_,
            "weights": self.weights(),
            "means_years": self._means.tolist(),
            "covariance_years2": self._covariance.tolist(),
            **self.record_,
        }

    @classmethod
    def from_dict(cls, record: dict) -> ContrastCombination:
        """The combination that `to_dict` described; it applies to the same bits."""
        combination = cls(record["contrasts"], record["method_requested"])
        combination.method_, combination.reason_ = record["method"], record["reason"]
        combination.penalty_ = record["penalty"]
        combination._means = np.asarray(record["means_years"], dtype=float)
        combination._covariance = np.asarray(record["covariance_years2"], dtype=float)
        kept = ("n_fit", "n_left_out", "fit_subjects_sha256", "cross_validated_mse_years2")
        combination.record_ = {key: record[key] for key in kept if key in record}
        return combination

    def _checked(self, predicted_years: ArrayLike) -> Array:
        predicted = np.asarray(predicted_years, dtype=float)
        if predicted.ndim != 2 or predicted.shape[1] != len(self.contrasts):
            raise ValueError(
                f"predictions of {len(self.contrasts)} contrasts are needed as columns, not {predicted.shape}"
            )
        return predicted

    def _weights_of(self, pattern: str) -> Array:
        present = np.array([flag == "1" for flag in pattern])
        if self.method_ == "mean":
            return np.full(int(present.sum()), 1.0 / present.sum())
        if pattern not in self._weights:
            self._weights[pattern] = _ridge_weights(self._covariance, present, self.penalty_ or 0.0)
        return self._weights[pattern]

    def _combine(self, predicted: Array, pattern: str) -> Array:
        """Combined predictions of subjects that share a pattern; contrasts outside it are not looked at."""
        present = np.array([flag == "1" for flag in pattern])
        if self.method_ == "mean":
            return predicted[:, present].mean(axis=1)
        weights = self._weights_of(pattern)
        centred = predicted[:, present] - self._means[:-1][present]
        return self._means[-1] + centred @ weights


def _moments(joint: Array) -> tuple[Array, Array]:
    centred = joint - joint.mean(axis=0)
    return joint.mean(axis=0), centred.T @ centred / len(joint)


def _ridge_weights(covariance: Array, present: NDArray[np.bool_], penalty: float) -> Array:
    """w_S of the class docstring, solved on correlations so that contrasts of any spread count alike."""
    within = covariance[:-1, :-1][np.ix_(present, present)]
    with_age = covariance[:-1, -1][present]
    sd = np.sqrt(np.diag(within))
    usable = sd > 0
    weights = np.zeros(len(sd))
    if usable.any():
        scaled = within[np.ix_(usable, usable)] / np.outer(sd[usable], sd[usable])
        system = scaled + penalty * np.eye(int(usable.sum()))
        # Least squares of smallest norm: identical contrasts share their weight at penalty 0.
        solution = np.linalg.lstsq(system, with_age[usable] / sd[usable], rcond=1e-10)[0]
        weights[usable] = solution / sd[usable]
    return weights


def _choose_penalty(joint: Array, rng: np.random.Generator) -> tuple[float, list[float]]:
    """The penalty with the smallest cross-validated squared error, and the errors of all."""
    n, everything = len(joint), np.ones(joint.shape[1] - 1, dtype=bool)
    fold = rng.permutation(n) % N_FOLDS
    errors = np.zeros(len(PENALTIES))
    for k in range(N_FOLDS):
        means, covariance = _moments(joint[fold != k])
        left_out = joint[fold == k] - means
        for i, penalty in enumerate(PENALTIES):
            weights = _ridge_weights(covariance, everything, penalty)
            errors[i] += float(np.sum((left_out[:, -1] - left_out[:, :-1] @ weights) ** 2))
    best = int(np.argmin(errors))
    return PENALTIES[best], (errors / n).tolist()
