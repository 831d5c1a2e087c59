"""Mean and covariance of columns with missing values: maximum likelihood under a multivariate normal, by EM.

Complete rows give the plain moments without iteration. Dropping incomplete subjects would waste most of a validation
set of many contrasts, and pairwise covariances need not be positive definite; the likelihood suffers from neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TOLERANCE = 1e-8
MAXIMUM_ITERATIONS = 2000
# Relative to unit variances: the smallest eigenvalue that is inverted, so that duplicated columns share what they tell.
EIGENVALUE_FLOOR = 1e-10
STARTING_FLOOR = 1e-3
PRIOR_SUBJECTS = 3.0
# Elements of the inverses gathered for subjects at one time (128 MB).
CHUNK_ELEMENTS = 16_000_000


@dataclass(frozen=True)
class Moments:
    """means (V,), covariance (V, V) with divisor n; log_likelihoods one an EM iteration (none: complete data)."""

    means: Array
    covariance: Array
    n: float
    converged: bool = True
    log_likelihoods: tuple[float, ...] = ()

    @property
    def n_iterations(self) -> int:
        """EM iterations; 0 for complete data."""
        return len(self.log_likelihoods)


def moments_of(
    values: Array,
    counts: Array | None = None,
    start: Moments | None = None,
    tolerance: float = TOLERANCE,
    maximum_iterations: int = MAXIMUM_ITERATIONS,
    prior_subjects: float = 0.0,
) -> Moments:
    r"""Maximum-likelihood mean and covariance of rows with missing values.

    E step: a row's missing values M are expected at mu_M + Sigma_MO Sigma_OO^-1 (x_O - mu_O), with covariance
    Sigma_MM - Sigma_MO Sigma_OO^-1 Sigma_OM. M step: mean and covariance of the rows so completed, the latter plus the
    average of these conditional covariances. Valid when values are missing at random given those present.
    In the precision matrix P = Sigma^-1 the same two are -P_MM^-1 P_MO (x_O - mu_O) and P_MM^-1: inverses of the size
    of what is missing.

    With few subjects a column: missing values are then expected along directions that the noise chose, the likelihood
    has no bound, and weights from such moments err wildly (57 simulated contrasts, 100 subjects, 20 % missing: a mean
    error of 16 years against 2.1 with the prior). `prior_subjects` k adds to the likelihood k subjects whose
    standardised columns are uncorrelated (ridge prior; it maximises the penalised likelihood,
    covariance = (n S + k I) / (n + k)). Complete rows need no prior and get none.

    Parameters
    ----------
    values : (S, V) float
        NaN where missing; no row is wholly missing.
    counts : (S,) float, optional
        How often a row counts (a bootstrap resample); once each by default.
    start : Moments, optional
        Where the iterations begin; by default at the moments of pairwise available values, made positive definite.
    tolerance : float
        Largest change of a standardised mean or of a covariance of standardised columns at which iterating ends.
    maximum_iterations : int
        Then `converged` is False and the last moments are returned.
    prior_subjects : float
        k; 0 is maximum likelihood. `log_likelihoods` are then of the penalised likelihood.

    Raises
    ------
    ValueError
        A column or a row without any value.

    Source: Dempster, Laird and Rubin 1977, J R Stat Soc B 39:1, and Little and Rubin, Statistical Analysis with
    Missing Data, chapter on the multivariate normal; ridge prior: Schafer 1997, Analysis of Incomplete Multivariate
    Data; not re-read: the tests compare with a direct maximisation of the
    likelihood and with the closed form for two columns of which one is incomplete.
    """
    counts = np.ones(len(values)) if counts is None else np.asarray(counts, dtype=float)
    present = np.isfinite(values)
    if not present.any(axis=1).all():
        raise ValueError("a row without any value says nothing of the moments; leave it out")
    used = counts > 0
    if not present[used].any(axis=0).all():
        raise ValueError("a column without any value has no moments; leave it out")
    if present[used].all():
        return _plain_moments(values[used], counts[used])
    values, counts, present = values[used], counts[used], present[used]
    centre, spread = _available_location(values, counts, present)
    standard = (np.where(present, values, centre) - centre) / spread
    if start is None:
        mean, covariance = np.zeros(len(centre)), _available_covariance(standard, counts, present)
    else:
        mean = (start.means - centre) / spread
        covariance = start.covariance / np.outer(spread, spread)
    rows = _MissingBlocks(standard, counts, present, prior_subjects)
    log_likelihoods: list[float] = []
    converged = False
    while not converged and len(log_likelihoods) < maximum_iterations:
        new_mean, new_covariance, log_likelihood = rows.step(mean, covariance)
        log_likelihoods.append(log_likelihood - float(counts @ (present @ np.log(spread))))
        change = max(np.abs(new_mean - mean).max(), np.abs(new_covariance - covariance).max())
        converged = bool(change < tolerance)
        mean, covariance = new_mean, new_covariance
    return Moments(
        centre + spread * mean,
        covariance * np.outer(spread, spread),
        float(counts.sum()),
        converged,
        tuple(log_likelihoods),
    )


def _plain_moments(values: Array, counts: Array) -> Moments:
    """The ordinary moments; unit counts leave every bit as without counts."""
    n = float(counts.sum())
    if (counts == 1.0).all():
        means = values.mean(axis=0)
        centred = values - means
        return Moments(means, centred.T @ centred / len(values), n)
    means = counts @ values / n
    centred = values - means
    return Moments(means, (centred * counts[:, None]).T @ centred / n, n)


def _available_location(
    values: Array, counts: Array, present: NDArray[np.bool_]
) -> tuple[Array, Array]:
    """Mean and SD of the values that each column has; SD 1 for a constant column."""
    n = counts @ present
    centre = counts @ np.where(present, values, 0.0) / n
    deviation = np.where(present, values - centre, 0.0)
    spread = np.sqrt(counts @ deviation**2 / n)
    return centre, np.where(spread > 0.0, spread, 1.0)


def _available_covariance(standard: Array, counts: Array, present: NDArray[np.bool_]) -> Array:
    """Pairwise covariance of standardised columns (0 for pairs never met), eigenvalues raised to be positive."""
    together = (present * counts[:, None]).T @ present.astype(float)
    products = (standard * counts[:, None]).T @ standard
    pairwise = np.divide(products, together, out=np.zeros_like(products), where=together > 0)
    eigenvalues, vectors = np.linalg.eigh((pairwise + pairwise.T) / 2)
    return (vectors * np.maximum(eigenvalues, STARTING_FLOOR)) @ vectors.T


def _precision(covariance: Array) -> tuple[Array, float]:
    """Inverse and log determinant of a covariance, eigenvalues floored."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    floored = np.maximum(eigenvalues, EIGENVALUE_FLOOR)
    return (vectors / floored) @ vectors.T, float(np.log(floored).sum())


class _MissingBlocks:
    """Rows grouped by pattern and patterns by the number of missing values, so that inverses are made in stacks."""

    def __init__(
        self, standard: Array, counts: Array, present: NDArray[np.bool_], prior_subjects: float
    ):
        self._standard, self._counts, self._present = standard, counts, present
        self._prior = prior_subjects
        patterns, self._pattern_of = np.unique(present, axis=0, return_inverse=True)
        self._pattern_counts = np.bincount(self._pattern_of, weights=counts)
        n_missing = (~patterns).sum(axis=1)
        self._blocks = [
            self._block(patterns, np.flatnonzero(n_missing == m)) for m in np.unique(n_missing) if m
        ]

    def _block(
        self, patterns: NDArray[np.bool_], members: NDArray[np.intp]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """Patterns with m missing: their numbers, missing columns (u, m), rows, and each row's place in `members`."""
        columns = np.array([np.flatnonzero(~patterns[u]) for u in members])
        place = np.full(len(patterns), -1)
        place[members] = np.arange(len(members))
        rows = np.flatnonzero(place[self._pattern_of] >= 0)
        return members, columns, rows, place[self._pattern_of[rows]]

    def step(self, mean: Array, covariance: Array) -> tuple[Array, Array, float]:
        """The moments after one EM iteration, and the log-likelihood of those before it."""
        precision, log_determinant = _precision(covariance)
        n, n_columns = float(self._counts.sum()), len(mean)
        centred = np.where(self._present, self._standard - mean, 0.0)
        pulled = centred @ precision
        log_determinants = np.full(len(self._pattern_counts), log_determinant)
        conditional = np.zeros(n_columns**2)
        for members, columns, rows, place in self._blocks:
            among = precision[columns[:, :, None], columns[:, None, :]]  # (u, m, m)
            inverse = np.linalg.inv(among)
            log_determinants[members] += np.linalg.slogdet(among)[1]
            for part in _chunks(len(rows), columns.shape[1] ** 2):
                chosen, missing = rows[part], columns[place[part]]
                expected = -np.matmul(
                    inverse[place[part]], pulled[chosen[:, None], missing][..., None]
                )
                centred[chosen[:, None], missing] = expected[..., 0]
            flat = (columns[:, :, None] * n_columns + columns[:, None, :]).ravel()
            weighted = inverse * self._pattern_counts[members][:, None, None]
            conditional += np.bincount(flat, weighted.ravel(), minlength=n_columns**2)
        shift = self._counts @ centred / n
        weighted_rows = centred * self._counts[:, None]
        second = weighted_rows.T @ centred / n + conditional.reshape(n_columns, n_columns) / n
        within = second - np.outer(shift, shift)
        new_covariance = (n * within + self._prior * np.eye(n_columns)) / (n + self._prior)
        # The quadratic form of the present values is the smallest over the missing ones: at their expectation.
        quadratic = float(np.sum(weighted_rows * (centred @ precision)))
        n_values = float(self._counts @ self._present.sum(axis=1))
        log_likelihood = -0.5 * (
            float(self._pattern_counts @ log_determinants)
            + quadratic
            + n_values * float(np.log(2 * np.pi))
            + self._prior * (log_determinant + float(np.trace(precision)))
        )
        return mean + shift, (new_covariance + new_covariance.T) / 2, log_likelihood


def _chunks(n_rows: int, elements_a_row: int) -> Iterator[slice]:
    size = max(1, CHUNK_ELEMENTS // max(1, elements_a_row))
    return (slice(first, first + size) for first in range(0, n_rows, size))
