"""How many independent tests some correlated tests are worth: three published numbers that disagree.

Descriptive only. For 57 deltas and 5,000 nIDPs they can lie five-fold apart, and all of them far from what the
permuted maximum says; thresholds come from Bonferroni or the permutations, never from here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# An eigenvalue this close to a whole number is that number: Li and Ji's count jumps there.
WHOLE = 1e-8


@dataclass(frozen=True)
class EffectiveTests:
    """Numbers of effective tests among `n_tests`: Li and Ji, Galwey, Nyholt."""

    n_tests: int
    li_ji: float
    galwey: float
    nyholt: float

    def times(self, other: EffectiveTests) -> EffectiveTests:
        """Of every pair of one of these and one of the others: products (deltas and nIDPs, unrelated)."""
        return EffectiveTests(
            self.n_tests * other.n_tests,
            self.li_ji * other.li_ji,
            self.galwey * other.galwey,
            self.nyholt * other.nyholt,
        )

    def as_record(self) -> dict[str, float]:
        """For a JSON file."""
        return asdict(self)


def effective_tests(eigenvalues: ArrayLike) -> EffectiveTests:
    r"""Effective tests from the eigenvalues l of a correlation matrix (M, M).

    Li-Ji: sum of [l >= 1] + (l - floor l). Galwey: (sum sqrt l)^2 / sum l. Nyholt: 1 + (M - 1)(1 - Var(l) / M), the
    variance with M - 1. Eigenvalues below 0, as correlations of pairwise complete values have them, count as 0.

    Sources: Li and Ji 2005, Heredity 95:221, equation 5; Galwey 2009, Genet Epidemiol 33:559; Nyholt 2004, Am J
    Hum Genet 74:765 (formulas as in the statistics specification of this project, papers not re-read; hand-worked
    cases are tested).
    """
    values = np.asarray(eigenvalues, dtype=float)
    n_tests = len(values)
    if n_tests == 0:
        return EffectiveTests(0, 0.0, 0.0, 0.0)
    values = np.maximum(values, 0.0)
    whole = np.round(values)
    snapped = np.where(np.abs(values - whole) < WHOLE * np.maximum(1.0, whole), whole, values)
    li_ji = np.sum((snapped >= 1.0) + (snapped - np.floor(snapped)))
    galwey = np.sum(np.sqrt(values)) ** 2 / values.sum()
    variance = values.var(ddof=1) if n_tests > 1 else 0.0
    nyholt = 1.0 + (n_tests - 1.0) * (1.0 - variance / n_tests)
    return EffectiveTests(n_tests, float(li_ji), float(galwey), float(nyholt))


def effective_columns(values: NDArray[np.float64]) -> EffectiveTests:
    """Effective tests among the columns of a table with missing values.

    Parameters
    ----------
    values : (S, M) float
        Columns (deltas or nIDPs, preferably residuals given the confounds), NaN where missing. The time grows with
        M^3 and the memory with 48 M^2 bytes: 5,000 columns take 1.2 GB.

    Returns
    -------
    EffectiveTests
        Of the columns that vary; the others are no tests.
    """
    correlation = pairwise_correlation(values)
    varies = np.isfinite(np.diag(correlation))
    correlation = correlation[np.ix_(varies, varies)]
    # Pairs without a common subject tell nothing of their correlation.
    return effective_tests(np.linalg.eigvalsh(np.nan_to_num(correlation, nan=0.0)))


def pairwise_correlation(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson correlations (M, M) of every two columns over the rows where both are present.

    NaN where a column does not vary over these rows, or fewer than two rows are shared.
    """
    present = np.isfinite(values)
    n_present = present.sum(axis=0)
    # Columns are centred and scaled first: sums of squares then lose no digits by subtraction.
    filled = np.where(present, values, 0.0)
    filled -= np.where(present, filled.sum(axis=0) / np.maximum(n_present, 1), 0.0)
    size = np.abs(filled).max(axis=0, initial=0.0)
    filled /= np.where(size > 0, size, 1.0)
    filled /= np.maximum(np.sqrt((filled**2).sum(axis=0)), np.finfo(float).tiny)
    mask = present.astype(float)
    shared = mask.T @ mask
    sums = filled.T @ mask  # (j, k): sum of column j where k is present
    squares = (filled**2).T @ mask
    with np.errstate(divide="ignore", invalid="ignore"):
        covariance = filled.T @ filled - sums * sums.T / shared
        variance = squares - sums**2 / shared
        variance[variance <= 1e-12 * squares] = np.nan
        correlation = covariance / np.sqrt(variance * variance.T)
    correlation[shared < 2] = np.nan
    return np.clip(correlation, -1.0, 1.0)
