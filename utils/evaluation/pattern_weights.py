"""What a fitted combination does to a subject: weights, prediction and expected line of any pattern of contrasts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from utils.evaluation.combination_weights import Tuning, weights_for
from utils.evaluation.incomplete_moments import Moments

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class PatternLine:
    """Expected of a pattern: combined = alpha + beta age, and the SD of what is left about that line."""

    alpha_years: float
    beta: float
    delta_sd_years: float


@dataclass(frozen=True)
class PatternWeights:
    """A method with its frozen moments; means (C + 1,) and covariance (C + 1, C + 1) of predictions and age (last).

    NaN in the moments for contrasts that are not used; both empty where a mean had too few subjects for moments.
    """

    method: str
    tuning: Tuning
    used: Mask
    means: Array
    covariance: Array
    _of_pattern: dict[bytes, Array] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of_moments(
        cls, method: str, tuning: Tuning, used: Mask, moments: Moments | None
    ) -> PatternWeights:
        """From the moments of the used contrasts and age."""
        if moments is None:
            return cls(method, tuning, used, np.empty(0), np.empty((0, 0)))
        both = np.append(used, True)
        means = np.full(both.size, np.nan)
        means[both] = moments.means
        covariance = np.full((both.size, both.size), np.nan)
        covariance[np.ix_(both, both)] = moments.covariance
        return cls(method, tuning, used, means, covariance)

    def moments(self, n: int) -> Moments:
        """The moments of the used contrasts and age, of n subjects."""
        both = np.append(self.used, True)
        return Moments(self.means[both], self.covariance[np.ix_(both, both)], float(n))

    def weights(self, present: Mask) -> Array:
        """(C,) weights where these contrasts are present; 0 for what is absent or not used."""
        mask = present & self.used
        weights = np.zeros(mask.size)
        if mask.any():
            weights[mask] = self._weights(mask)
        return weights

    def combine(self, predicted_years: Array, present: Mask) -> Array:
        """(S,) years of subjects (S, C) that share a pattern; contrasts outside it are not looked at."""
        mask = present & self.used
        if not mask.any():
            return np.full(len(predicted_years), np.nan)
        if self.method == "mean":
            return predicted_years[:, mask].mean(axis=1)
        centred = predicted_years[:, mask] - self.means[:-1][mask]
        return self.means[-1] + centred @ self._weights(mask)

    def line(self, present: Mask) -> PatternLine:
        r"""The regression on age of what `combine` gives, from the moments.

        b_S = w_S' Sigma_Sa / s2_a,    s2_S = w_S' Sigma_SS w_S - b_S^2 s2_a.

        Raises
        ------
        ValueError
            No contrast is used, there are no moments, or no variance of age.
        """
        mask = present & self.used
        if not mask.any():
            raise ValueError("no contrast of the pattern is used")
        if not len(self.means):
            raise ValueError(
                "the mean had too few validation subjects for moments: they give no slope"
            )
        weights, age_variance = self._weights(mask), float(self.covariance[-1, -1])
        if age_variance == 0.0:
            raise ValueError("all validation subjects have the same age: no slope on age")
        beta = float(weights @ self.covariance[:-1, -1][mask]) / age_variance
        within = self.covariance[:-1, :-1][np.ix_(mask, mask)]
        variance = float(weights @ within @ weights) - beta**2 * age_variance
        at_mean_age = float(self.means[-1])
        if self.method == "mean":  # the contrasts' mean errors are not taken out
            at_mean_age = float(weights @ self.means[:-1][mask])
        alpha = at_mean_age - beta * float(self.means[-1])
        return PatternLine(alpha, beta, float(np.sqrt(max(variance, 0.0))))

    def _weights(self, mask: Mask) -> Array:
        """(|S|,) weights of a pattern with at least one used contrast."""
        if self.method == "mean":
            return np.full(int(mask.sum()), 1.0 / mask.sum())
        key = mask.tobytes()
        if key not in self._of_pattern:
            both = np.append(self.used, True)
            covariance = self.covariance[np.ix_(both, both)]
            self._of_pattern[key] = weights_for(
                self.method, covariance, mask[self.used], self.tuning
            )
        return self._of_pattern[key]
