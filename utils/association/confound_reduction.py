"""How many confounds there are, what to do when they are too many, and their reduction to principal components."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from utils.association.scan import orthonormal_basis
from utils.common.errors import UserError

Array = NDArray[np.float64]

# From this many subjects a confound downwards, estimating the confounds costs enough to be worth a reduction.
SUBJECTS_PER_CONFOUND = 10
ADVISED_SHARE = 0.99
# An eigenvalue of the correlation matrix above this share of the largest is far from the rounding of the product.
CERTAINLY_POSITIVE = 1e-10


def principal_components(confounds: Array, share: float) -> Array:
    """Scores of the first principal components that keep `share` of the variance of the standardised confounds.

    Columns are given mean 0 and SD 1 first, so that units do not decide; a column given twice counts twice. The
    components come from the eigenvectors of the correlation matrix: directions that the columns do not span have
    eigenvalue 0 and come last. In each eigenvector the first of the largest loadings is positive. What is cut off is
    small among the confounds, which does not make it harmless. Simulated (600 subjects, 200 confounds that explain
    30 % of deltas and nIDPs, nothing shared besides): 5 % of the tests of 0.99, 18 % of those of 0.9 had p < 0.05;
    where confounds explained 94 %, 0.99 was not enough either. Compare with the full set where that can be fitted.

    Parameters
    ----------
    confounds : (S, K) float
        Complete; any rank.
    share : float
        Between 0 and 1, such as 0.99.

    Returns
    -------
    (S, R) float
        R <= K; uncorrelated columns of mean 0, in the order of falling variance.

    Source: the advice for confounds that are not few against the subjects, Radosavljevic, Smith and Nichols 2026
    (preprint 10.64898/2026.03.02.26347455; located, not re-read). The components were checked against scikit-learn.
    """
    if not 0.0 < share < 1.0:
        raise ValueError(f"the share of variance lies between 0 and 1, not {share}")
    scaled = _standardised_columns(confounds)
    if scaled.shape[1] == 0:
        return scaled
    eigenvalues, vectors = np.linalg.eigh(scaled.T @ scaled)
    eigenvalues, vectors = np.maximum(eigenvalues[::-1], 0.0), vectors[:, ::-1]
    kept = np.cumsum(eigenvalues) / eigenvalues.sum()
    # A share that is met up to rounding is met.
    n_kept = int(np.searchsorted(kept, share - 1e-12) + 1)
    vectors = vectors[:, :n_kept]
    # Among loadings that are equal but for rounding the first decides, not the one that rounding favours.
    sizes = np.abs(vectors)
    deciding = np.argmax(sizes > (1.0 - 1e-6) * sizes.max(axis=0), axis=0)
    return scaled @ (vectors * np.sign(vectors[deciding, np.arange(n_kept)]))


def rank_of(confounds: Array) -> int:
    """The number of dimensions that confounds (S, K) span beside the constant, counted as in the scan.

    Where the correlation matrix is safely positive definite the rank is K; only otherwise the slower orthonormal basis
    decides.
    """
    n_subjects, n_columns = confounds.shape
    scaled = _standardised_columns(confounds)
    if scaled.shape[1] == n_columns and 0 < n_columns < n_subjects:
        eigenvalues = np.linalg.eigvalsh(scaled.T @ scaled)
        if eigenvalues[0] > CERTAINLY_POSITIVE * eigenvalues[-1]:
            return n_columns
    return orthonormal_basis(scaled).shape[1] if scaled.shape[1] else 0


def advise(n: int, q: int, n_pair: int = 0, reduced: bool = False) -> str:
    """What to say about `q` independent confounds in an analysis; "" where they are few.

    Parameters
    ----------
    n : int
        Subjects with deltas.
    q : int
        Rank of the confounds without the constant.
    n_pair : int
        The fewest subjects of a pair that may be tested, where it is known; 0: as `n`.
    reduced : bool
        Whether the confounds are principal components already.
    """
    subjects = min(n, n_pair) if n_pair else n
    if _leaves_nothing(n, q):
        return _nothing_left(n, q)
    if q * SUBJECTS_PER_CONFOUND <= subjects:
        return ""
    fewest = f" ({subjects:,} in the smallest pair)" if subjects < n else ""
    advice = (
        "keep a smaller share of their variance, or leave confounds out"
        if reduced
        else f"set confound_pca = {ADVISED_SHARE} to reduce them to principal components"
    )
    return (
        f"confounds: {q:,} independent columns for {n:,} subjects{fewest}, more than one for "
        f"{SUBJECTS_PER_CONFOUND} subjects: tests lose power; {advice}"
    )


def refuse_too_many(n: int, q: int) -> None:
    """Stop when the confounds leave no degrees of freedom: df = n - q - 2 for complete pairs."""
    if _leaves_nothing(n, q):
        raise UserError(f"{_nothing_left(n, q)}.")


def _leaves_nothing(n: int, q: int) -> bool:
    return n - q - 2 < 1


def _nothing_left(n: int, q: int) -> str:
    return (
        f"confounds: {q:,} independent columns leave no degrees of freedom in {n:,} subjects, so nothing can be "
        f"tested; leave confounds out or set confound_pca = {ADVISED_SHARE}"
    )


def _standardised_columns(values: Array) -> Array:
    """(S, K) with mean 0 and SD 1; columns that do not vary are left out."""
    if values.shape[1] == 0 or values.shape[0] == 0:
        return np.empty((values.shape[0], 0))
    centred = values - values.mean(axis=0)
    sd = np.sqrt(np.einsum("ij,ij->j", centred, centred) / len(centred))
    varying = sd > 1e-10 * np.abs(values).max(axis=0)
    if not varying.all():
        centred, sd = centred[:, varying], sd[varying]
    centred /= sd
    return centred
