r"""Weights of the contrasts that a subject has, one function a method, all from the same frozen moments.

Sigma (C + 1, C + 1) is the covariance of the predictions of C contrasts and of age (last) over validation subjects, S
the contrasts that are present. Weights for S use Sigma_SS and Sigma_Sa alone: those of refitting on these columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utils.evaluation.signed_least_squares import signed_least_squares

Array = NDArray[np.float64]
Present = NDArray[np.bool_]

# Eigenvalues below this share of the largest are none: identical contrasts share their weight.
RELATIVE_RANK = 1e-10
ERROR_FLOOR = 1e-12


@dataclass(frozen=True)
class Tuning:
    """What a method learns beside the moments, the same for every pattern; None where it has no part in it."""

    penalty: float | None = None  # ridge: lambda; elastic net: alpha, years
    l1_ratio: float | None = None  # elastic net
    shrinkage: float | None = (
        None  # gls: of the error covariance towards equal, uncorrelated errors
    )


def weights_for(method: str, covariance: Array, present: Present, tuning: Tuning) -> Array:
    """(|S|,) weights of the present contrasts by a method's name."""
    return WEIGHTS[method](covariance, present, tuning)


def mean_weights(covariance: Array, present: Present, tuning: Tuning) -> Array:
    """1 / |S|."""
    n = int(present.sum())
    return np.full(n, 1.0 / n)


def inverse_variance_weights(covariance: Array, present: Present, tuning: Tuning) -> Array:
    """w_c = (1 / s2_c) / sum of the same, s2_c the variance of prediction - age: best if errors are uncorrelated."""
    variance = np.diag(error_covariance(covariance))[present]
    variance = np.maximum(variance, ERROR_FLOOR * covariance[-1, -1])
    return (1.0 / variance) / np.sum(1.0 / variance)


def gls_weights(covariance: Array, present: Present, tuning: Tuning) -> Array:
    r"""w = Sigma_e^-1 1 / (1' Sigma_e^-1 1): the smallest error variance among weights that sum to 1; some may be < 0.

    Sigma_e, the covariance of errors (prediction - age), is shrunk towards the average variance on the diagonal. The
    shrinkage is estimated once, on all contrasts, and a pattern takes its part of the shrunk matrix.

    Source: Bates and Granger 1969, Oper Res Q 20:451 (not re-read; compared with generalised least squares).
    """
    errors = shrunk(error_covariance(covariance), tuning.shrinkage or 0.0)
    eigenvalues, vectors = np.linalg.eigh(errors[np.ix_(present, present)])
    floor = ERROR_FLOOR * max(float(eigenvalues[-1]), float(covariance[-1, -1]))
    solution = vectors @ (vectors.sum(axis=0) / np.maximum(eigenvalues, floor))
    return solution / solution.sum()


def ridge_weights(covariance: Array, present: Present, tuning: Tuning) -> Array:
    """w = (Sigma_SS + lambda diag Sigma_SS)^-1 Sigma_Sa; lambda 0 is least squares."""
    return ridge_path(covariance, present, [Tuning(tuning.penalty or 0.0)])[0]


def ridge_path(covariance: Array, present: Present, tunings: list[Tuning]) -> Array:
    """(L, |S|) ridge weights at several penalties from one eigendecomposition of the correlations."""
    correlations, with_age, sd = _standardised(covariance, present)
    eigenvalues, vectors = np.linalg.eigh(correlations)
    penalties = np.array([[tuning.penalty or 0.0] for tuning in tunings])
    shifted = eigenvalues + penalties
    kept = shifted > RELATIVE_RANK * shifted[:, -1:]
    inverse = np.divide(1.0, shifted, out=np.zeros_like(shifted), where=kept)
    return (inverse * (vectors.T @ with_age)) @ vectors.T / sd


def nonnegative_weights(covariance: Array, present: Present, tuning: Tuning) -> Array:
    """Least squares with w >= 0 (not constrained to sum to 1).

    Source: Breiman 1996, Mach Learn 24:49 (stacked regressions, non-negative; not re-read).
    """
    correlations, with_age, sd = _standardised(covariance, present)
    return signed_least_squares(correlations, with_age, nonnegative=True) / sd


def elastic_net_weights(covariance: Array, present: Present, tuning: Tuning) -> Array:
    """Minimum of mean squared error / 2 + alpha l1 |v|_1 + alpha (1 - l1) |v|^2 / 2 for standardised contrasts."""
    return elastic_net_path(covariance, present, [tuning])[0]


def elastic_net_path(covariance: Array, present: Present, tunings: list[Tuning]) -> Array:
    """(L, |S|) elastic-net weights; each solution starts the next, so neighbouring penalties stand side by side.

    Source: Zou and Hastie 2005, J R Stat Soc B 67:301, in the parameters alpha and l1_ratio of scikit-learn (compared
    with it).
    """
    correlations, with_age, sd = _standardised(covariance, present)
    weights = np.empty((len(tunings), len(sd)))
    start: Array | None = None
    for i, tuning in enumerate(tunings):
        alpha, l1_ratio = tuning.penalty or 0.0, tuning.l1_ratio or 0.0
        gram = correlations + alpha * (1.0 - l1_ratio) * np.eye(len(sd))
        start = signed_least_squares(gram, with_age, alpha * l1_ratio, start=start)
        weights[i] = start / sd
    return weights


def error_covariance(covariance: Array) -> Array:
    """(C, C) covariance of the errors prediction - age from that of predictions and age."""
    with_age = covariance[:-1, -1]
    return covariance[:-1, :-1] - with_age[:, None] - with_age[None, :] + covariance[-1, -1]


def shrunk(covariance: Array, shrinkage: float) -> Array:
    """(1 - shrinkage) covariance + shrinkage (average variance) identity."""
    average = float(np.trace(covariance)) / len(covariance)
    return (1.0 - shrinkage) * covariance + shrinkage * average * np.eye(len(covariance))


def _standardised(covariance: Array, present: Present) -> tuple[Array, Array, Array]:
    """Correlations within S, covariances of standardised contrasts with age, SDs; contrasts of any spread count alike.

    A contrast without spread has infinite SD here and thereby weight 0.
    """
    within = covariance[:-1, :-1][np.ix_(present, present)]
    sd = np.sqrt(np.diag(within))
    sd = np.where(sd > 0.0, sd, np.inf)
    return within / np.outer(sd, sd), covariance[:-1, -1][present] / sd, sd


WEIGHTS: dict[str, Callable[[Array, Present, Tuning], Array]] = {
    "mean": mean_weights,
    "inverse_variance": inverse_variance_weights,
    "gls": gls_weights,
    "ridge": ridge_weights,
    "nonnegative": nonnegative_weights,
    "elastic_net": elastic_net_weights,
}
