"""Maximum of the logistic likelihood, plain or penalised by Firth, over all or some of the coefficients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Newton's decrement (its root is the distance to the maximum in standard errors) at which a fit is done.
DONE = 1e-18
# Rounding can keep the decrement above that; where no step improves it any more, this will do.
NEARLY_DONE = 1e-10
MAXIMUM_ITERATIONS = 300
MAXIMUM_HALVINGS = 30
# No step changes a linear predictor by more, or by more than its present size: far from the maximum the quadratic
# picture is wrong.
LARGEST_STEP = 5.0
# A log likelihood is known this well (its determinant under separation); what is lower by less is not lower.
ROUNDING = 1e-9
# From here on the decrement falls from step to step, unless the steps are too long.
OVERSHOOTING = 1e-4
# Near the maximum (decrement) a linear predictor that still moves this much is on its way to infinity.
SEPARATION_DECREMENT = 1e-3
SEPARATION_STEP = 0.5

CONVERGED = ""
SEPARATED = "separation"
NO_CONVERGENCE = "did_not_converge"


@dataclass(frozen=True)
class Maximum:
    """Where the climb ended.

    coefficients : (k,) float
    log_likelihood : float, with Firth's penalty where it was asked for
    score : (k,) float, the gradient there (0 but for rounding at the free coefficients)
    covariance : (k, k) float, inverse of the information of all coefficients
    reason : empty, or why this is no maximum
    """

    coefficients: Array
    log_likelihood: float
    score: Array
    covariance: Array
    reason: str


@dataclass(frozen=True)
class _Point:
    """One place on the surface: predictor (n,), log likelihood, score (k,), information and its inverse (k, k)."""

    predictor: Array
    log_likelihood: float
    score: Array
    information: Array
    covariance: Array


@dataclass(frozen=True)
class LogisticLikelihood:
    r"""l(b) = sum_i y_i x_i'b - ln(1 + exp x_i'b), with Firth's penalty + ln det(X'WX) / 2 where asked.

    W = diag(p (1 - p)). The gradient of the penalised likelihood is X'(y - p + h (1/2 - p)) with h the diagonal of
    W^(1/2) X (X'WX)^-1 X' W^(1/2): it removes the first-order bias and keeps estimates finite under separation.

    design : (n, k) float, of full rank and well scaled
    cases : (n,) float, 0 or 1
    penalised : bool

    Source: Firth 1993, Biometrika 80:27; Heinze and Schemper 2002, Stat Med 21:2409 (formulas as in the R package
    logistf, with whose published numbers the tests agree; the papers were not re-read).
    """

    design: Array
    cases: Array
    penalised: bool

    def maximise(self, start: Array, n_free: int | None = None) -> Maximum:
        """Newton's method with Fisher's information over the first n_free coefficients (default: all).

        The others stay as in `start` (k,), but still count in the penalty: that is the restricted maximum which a
        penalised likelihood ratio compares with.
        """
        free = slice(0, self.design.shape[1] if n_free is None else n_free)
        coefficients = start.copy()
        point = self._at(coefficients, self.design @ coefficients)
        damping, before = 1.0, np.inf
        for _ in range(MAXIMUM_ITERATIONS):
            if point is None:
                return self._end(coefficients, None, SEPARATED)
            # A plane with all cases on one side: the likelihood has no maximum.
            if not self.penalised and np.array_equal(point.predictor > 0, self.cases > 0):
                return self._end(coefficients, point, SEPARATED)
            score = point.score[free]
            try:
                step: Array = np.asarray(
                    np.linalg.solve(point.information[free, free], score), dtype=np.float64
                )
            except np.linalg.LinAlgError:
                return self._end(coefficients, point, SEPARATED)
            decrement = float(score @ step)
            if decrement < DONE:
                return self._end(coefficients, point, CONVERGED)
            move = self.design[:, free] @ step
            largest = float(np.abs(move).max())
            if (
                not self.penalised
                and decrement < SEPARATION_DECREMENT
                and largest > SEPARATION_STEP
            ):
                return self._end(coefficients, point, SEPARATED)
            # Under separation the penalty bends the surface as much as the likelihood does, and steps overshoot.
            if before <= decrement < OVERSHOOTING:
                damping /= 2.0
            before = decrement
            limit = max(LARGEST_STEP, float(np.abs(point.predictor).max()))
            length = min(damping, limit / largest)
            better, length = self._climb(coefficients, point, step, move, length, free)
            if better is None:
                break
            coefficients[free] += length * step
            point = better
        return self._end(coefficients, point, CONVERGED if before < NEARLY_DONE else NO_CONVERGENCE)

    def _climb(
        self,
        coefficients: Array,
        point: _Point,
        step: Array,
        move: Array,
        length: float,
        free: slice,
    ) -> tuple[_Point | None, float]:
        """The first point along the step that is not lower, halving its length; None where there is none."""
        rounding = ROUNDING * (1.0 + 1e-3 * abs(point.log_likelihood))
        for _ in range(MAXIMUM_HALVINGS):
            tried = coefficients.copy()
            tried[free] += length * step
            better = self._at(tried, point.predictor + length * move)
            if better is not None and better.log_likelihood >= point.log_likelihood - rounding:
                return better, length
            length /= 2.0
        return None, length

    def _at(self, coefficients: Array, predictor: Array) -> _Point | None:
        """Likelihood and derivatives at the coefficients; None where the information is singular."""
        # exp of minus the absolute value cannot overflow and serves both the probability and the logarithm.
        small = np.exp(-np.abs(predictor))
        probability = np.where(predictor >= 0, 1.0, small) / (1.0 + small)
        weight = small / (1.0 + small) ** 2
        log_likelihood = float(
            self.cases @ predictor - (np.maximum(predictor, 0.0) + np.log1p(small)).sum()
        )
        weighted = self.design * np.sqrt(weight)[:, None]
        information = weighted.T @ weighted
        try:
            triangle = np.linalg.cholesky(information)
        except np.linalg.LinAlgError:
            return None
        inverse_triangle = np.linalg.inv(triangle)
        covariance = inverse_triangle.T @ inverse_triangle
        residual = self.cases - probability
        if self.penalised:
            leverage = np.einsum("ij,ij->i", weighted @ covariance, weighted)
            residual += leverage * (0.5 - probability)
            log_likelihood += float(np.log(np.diag(triangle)).sum())
        return _Point(predictor, log_likelihood, self.design.T @ residual, information, covariance)

    def _end(self, coefficients: Array, point: _Point | None, reason: str) -> Maximum:
        if point is None:
            k = len(coefficients)
            nothing = np.full((k, k), np.nan)
            return Maximum(coefficients, np.nan, np.full(k, np.nan), nothing, reason)
        return Maximum(coefficients, point.log_likelihood, point.score, point.covariance, reason)
