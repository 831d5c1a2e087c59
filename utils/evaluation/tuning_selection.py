"""Penalties of a combination chosen by cross-validation among the validation subjects, who may lack contrasts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from utils.evaluation.combination_weights import (
    Tuning,
    elastic_net_path,
    error_covariance,
    ridge_path,
)
from utils.evaluation.error_shrinkage import ledoit_wolf_shrinkage
from utils.evaluation.incomplete_moments import PRIOR_SUBJECTS, Moments, moments_of

Array = NDArray[np.float64]

N_FOLDS = 5
RIDGE_PENALTIES = (0.0, 1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)
# Of the smallest alpha at which every weight is 0; descending, so that a solution starts the next.
ALPHA_SHARES = (0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)
L1_RATIOS = (0.1, 0.5, 0.9)
# Far below what moves a choice of penalty: a standardised covariance of 1,000 subjects is known to 0.03.
FOLD_TOLERANCE = 1e-5
PATHS = {"ridge": ridge_path, "elastic_net": elastic_net_path}


def draw_folds(
    subject_ids: Sequence[str], n_folds: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """(S,) fold of each subject, of equal sizes; it depends on the subjects and not on their order."""
    order = np.argsort(np.array([str(identifier) for identifier in subject_ids]), kind="stable")
    fold = np.empty(len(order), dtype=np.intp)
    fold[order] = rng.permutation(len(order)) % n_folds
    return fold


def select_tuning(
    method: str,
    joint: Array,
    moments: Moments,
    subject_ids: Sequence[str],
    rng: np.random.Generator,
) -> tuple[Tuning, dict[str, float]]:
    """What a method learns beside the moments, and the cross-validated squared error (years2) of each candidate.

    Parameters
    ----------
    method : str
        Only "ridge" and "elastic_net" have candidates and use `rng`; "gls" estimates its shrinkage.
    joint : (S, C + 1) float
        Predictions, NaN where missing, and age last.
    moments : Moments
        Of `joint`; also where the iterations for a fold with missing values begin.
    subject_ids : (S,) str
        Of `joint`.
    rng : numpy.random.Generator
        Draws the folds.
    """
    if method == "gls":
        errors = joint[:, :-1] - joint[:, -1:]
        shrinkage = ledoit_wolf_shrinkage(errors, error_covariance(moments.covariance))
        return Tuning(shrinkage=shrinkage), {}
    if method not in PATHS:
        return Tuning(), {}
    candidates = _candidates(method, moments)
    fold = draw_folds(subject_ids, N_FOLDS, rng)
    squared = np.zeros(len(candidates))
    for k in range(N_FOLDS):
        learned = moments_of(
            joint[fold != k], start=moments, tolerance=FOLD_TOLERANCE, prior_subjects=PRIOR_SUBJECTS
        )
        squared += _squared_errors(method, learned, joint[fold == k], candidates)
    errors = squared / len(joint)
    return candidates[int(np.argmin(errors))], {
        _label(tuning): float(error) for tuning, error in zip(candidates, errors)
    }


def _candidates(method: str, moments: Moments) -> list[Tuning]:
    if method == "ridge":
        return [Tuning(penalty) for penalty in RIDGE_PENALTIES]
    covariance = moments.covariance
    largest = float(np.abs(covariance[:-1, -1] / np.sqrt(np.diag(covariance)[:-1])).max())
    return [
        Tuning(share * largest / l1_ratio, l1_ratio)
        for l1_ratio in L1_RATIOS
        for share in ALPHA_SHARES
    ]


def _label(tuning: Tuning) -> str:
    if tuning.l1_ratio is None:
        return str(tuning.penalty)
    return f"{tuning.penalty} l1_ratio {tuning.l1_ratio}"


def _squared_errors(
    method: str, moments: Moments, left_out: Array, candidates: list[Tuning]
) -> Array:
    """Sum over left-out subjects of the squared error of each candidate; a subject with the weights of its pattern."""
    centred = left_out - moments.means
    patterns, pattern_of = np.unique(np.isfinite(left_out[:, :-1]), axis=0, return_inverse=True)
    squared = np.zeros(len(candidates))
    for u, present in enumerate(patterns):
        rows = centred[pattern_of == u]
        weights = PATHS[method](moments.covariance, present, candidates)
        error = rows[:, -1:] - rows[:, :-1][:, present] @ weights.T
        squared += np.sum(error**2, axis=0)
    return squared
