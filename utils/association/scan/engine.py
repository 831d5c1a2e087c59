"""The scan at scale: what depends on predictors and confounds once, on a pattern of missing values once per pattern.

A pair costs a few numbers then. Where sums of products are not exact enough (a nearly collinear target, directions
that are almost lost, few rows), the pair goes by its rows, so that every result is exact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from utils.association.scan.basis import column_means, standardised
from utils.association.scan.blocks import in_tiles
from utils.association.scan.by_rows import scan_rows
from utils.association.scan.pairs import TargetSums, pair_statistics
from utils.association.scan.pattern_cache import CACHE_BYTES, PatternCache, Patterns
from utils.association.scan.predictors import PredictorGroup, build_designs
from utils.association.scan.statistics import TOO_FEW_SUBJECTS, PairLimits, PairStatistics
from utils.association.scan.targets import Tile, count_ones

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

RANK, PUBLISHED = "rank", "published"
DEGREES_OF_FREEDOM = (RANK, PUBLISHED)


class Scanner:
    """Scans targets, block by block, against predictors (S, C) given confounds (S, K).

    A target's numbers are computed in the same way whatever else is scanned with it, in however many threads: one
    call, blocks and the parts of an array of jobs give the same bits on one kind of machine.

    Parameters
    ----------
    predictors : (S, C) float
        NaN where missing.
    confounds : (S, K) float
        Complete; without the constant.
    limits : PairLimits
        What a pair needs to be tested.
    degrees_of_freedom : "rank" or "published"
        n - rank[1 Z] - 1, which is exact; or n - 2, as in AgeMapper's published tables, to reproduce those alone.
    n_threads : int, optional
        As many as there are cores for this process, if not given; the products are done in one thread each.
    cache_bytes : int
        What the patterns of missing values may take that are kept from block to block.

    Raises
    ------
    ValueError
        A confound is missing somewhere (missing confounds are filled before the scan); no such degrees of freedom.
    """

    def __init__(
        self,
        predictors: Array,
        confounds: Array,
        limits: PairLimits,
        degrees_of_freedom: str = RANK,
        n_threads: int | None = None,
        cache_bytes: int = CACHE_BYTES,
    ):
        from threadpoolctl import threadpool_limits

        if not np.isfinite(confounds).all():
            raise ValueError("confounds must be complete; fill missing values before the scan")
        if degrees_of_freedom not in DEGREES_OF_FREEDOM:
            known = " or ".join(DEGREES_OF_FREEDOM)
            raise ValueError(f"degrees_of_freedom is {known}, not {degrees_of_freedom!r}")
        self.limits = limits
        self._published = degrees_of_freedom == PUBLISHED
        self._n_threads = n_threads
        self._predictors, self._confounds = predictors, standardised(confounds)
        with threadpool_limits(1, "blas"):
            designs = build_designs(predictors, self._confounds)
        self._groups = [(group, design.constant) for design in designs for group in design.groups]
        self._masks = np.empty((len(predictors), len(self._groups)))
        for g, (group, _) in enumerate(self._groups):
            self._masks[:, g] = group.mask
        self._cache = PatternCache(designs, len(predictors), limits.minimum_n, cache_bytes)

    def scan(self, targets: Array, binary: Mask) -> PairStatistics:
        """Statistics (C, P) of every predictor with targets (S, P; NaN missing); binary (P,) says which are 0/1.

        Quickest where a target's values lie together: `targets` the transposed view of a C-contiguous (P, S).
        """
        out = PairStatistics.empty(self._predictors.shape[1], targets.shape[1])

        def scan(columns: slice, patterns: list[Patterns]) -> PairStatistics:
            return self._scan_tile(targets[:, columns], binary[columns], patterns)

        for columns, part in in_tiles(targets, self._cache, self._n_threads, scan):
            out.put((slice(None), columns), part)
        if self._published:
            out.df = np.where(np.isfinite(out.df), out.n - 2.0, np.nan)
        return out

    def _scan_tile(self, targets: Array, binary: Mask, patterns: list[Patterns]) -> PairStatistics:
        """All pairs of at most TILE targets (S, p)."""
        out = PairStatistics.empty(self._predictors.shape[1], targets.shape[1])
        out.reason[:] = TOO_FEW_SUBJECTS  # also of a predictor that no subject has
        tile = Tile.of(targets)
        squares = tile.squares(self._masks)
        n_ones = count_ones(targets, self._masks) if binary.any() else np.zeros(squares.shape)
        for g, (group, constant) in enumerate(self._groups):
            of_group = [of_target[g] for of_target in patterns]
            n = np.array([pattern.n for pattern in of_group])
            n_cases = np.where(binary, np.minimum(n_ones[:, g], n - n_ones[:, g]), np.nan)
            products = tile.products(group)
            totals = products[0][:, 0] / constant
            sums = TargetSums(products, totals, squares[:, g], n_cases)
            part, by_rows = pair_statistics(group, of_group, sums, self.limits)
            for j in np.flatnonzero(by_rows):
                part.put((slice(None), [j]), self._by_rows(group, targets[:, [j]], n_cases[[j]]))
            out.put(group.columns, part)
        return out

    def _by_rows(self, group: PredictorGroup, target: Array, n_cases: Array) -> PairStatistics:
        """The pairs of a group with one target (S, 1) by their rows."""
        rows = np.flatnonzero(group.mask & np.isfinite(target[:, 0]))
        return scan_rows(
            self._predictors[np.ix_(rows, group.columns)],
            (target - column_means(target))[rows],
            self._confounds[rows],
            n_cases,
            self.limits,
        )


def scan_pairs(
    deltas: Array,
    nidps: Array,
    confounds: Array,
    binary: Mask,
    limits: PairLimits,
    degrees_of_freedom: str = RANK,
) -> PairStatistics:
    r"""Partial correlation of each delta with each nIDP given the confounds, exact on each pair's own rows.

    With S the rows where both exist, X = [1 Z] on S and M = I - X X^+,

        r = d'My / sqrt(d'Md y'My),   t = r sqrt(df / (1 - r^2)),   df = |S| - rank(X) - 1

    which is the t of d in the least squares fit y ~ d + Z (Frisch-Waugh-Lovell). rank(X) is counted on S, so a
    site that vanishes from S, or a confound given twice, costs nothing. `Scanner` does the same block by block.

    Parameters
    ----------
    deltas : (S, C) float
        NaN where missing.
    nidps : (S, P) float
        Prepared nIDPs, NaN where missing.
    confounds : (S, K) float
        Complete; without the constant.
    binary : (P,) bool
        nIDPs that are 0/1 and need enough subjects in both classes.
    limits : PairLimits
        What a pair needs to be tested.
    degrees_of_freedom : "rank" or "published"
        As above, or n - 2 (see `Scanner`).

    Returns
    -------
    PairStatistics
        Arrays of shape (C, P).

    Raises
    ------
    ValueError
        A confound is missing somewhere: missing confounds are filled before the scan.
    """
    return Scanner(deltas, confounds, limits, degrees_of_freedom).scan(nidps, binary)
