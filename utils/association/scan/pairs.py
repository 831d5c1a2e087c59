"""From sums to statistics: the pairs of one group of predictors with the targets of a tile.

With B = Q'y and the pattern's W, loadings and left (`patterns`),

    r = (D'y - (WB)'WA) / sqrt(left (y'y - |WB|^2)),    rank = rows of W,    df = n - rank - 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utils.association.scan.patterns import Pattern
from utils.association.scan.predictors import PredictorGroup
from utils.association.scan.statistics import (
    DELTA_COLLINEAR,
    DELTA_CONSTANT,
    TOO_FEW_CASES,
    TOO_FEW_DF,
    TOO_FEW_SUBJECTS,
    PairLimits,
    PairStatistics,
)
from utils.association.scan.targets import centred_squares, enough_left

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Closer to 1, the rows decide whether a target is a copy of a predictor.
NEARLY_DEGENERATE = 1e-6


@dataclass(frozen=True)
class TargetSums:
    """Sums over a group's subjects for p targets, centred over their own.

    products : (p, k) Q'y and (p, c) D'y
    totals : (p,) 1'y
    squares : (p,) y'y
    n_cases : (p,) subjects in the smaller class; NaN where a target is not binary
    """

    products: tuple[Array, Array]
    totals: Array
    squares: Array
    n_cases: Array


def pair_statistics(
    group: PredictorGroup, patterns: list[Pattern], sums: TargetSums, limits: PairLimits
) -> tuple[PairStatistics, Mask]:
    """Statistics (c, p) of a group with p targets, and for which targets (p,) they have to come from their rows."""
    out = PairStatistics.empty(len(group.columns), len(patterns))
    n = np.array([pattern.n for pattern in patterns])
    rank = np.array([pattern.rank for pattern in patterns])
    few = n < limits.minimum_n
    known = ~few & np.array([pattern.exact for pattern in patterns])
    tested = known & (n - rank - 1 >= np.array([limits.needed_df(k) for k in rank]))
    out.n[:] = n
    out.rank[:] = np.where(known, rank, np.nan)
    out.df[:] = np.where(known, n - rank - 1, np.nan)
    out.reason[:, few] = TOO_FEW_SUBJECTS
    out.reason[:, known & ~tested] = TOO_FEW_DF
    out.n_cases[:, tested] = sums.n_cases[tested]
    sound = _fill(out, group, patterns, sums, tested)
    _say_why_not(out, group, patterns, tested, limits)
    return out, ~few & (~known | (tested & ~sound))


def _fill(
    out: PairStatistics,
    group: PredictorGroup,
    patterns: list[Pattern],
    sums: TargetSums,
    tested: Mask,
) -> Mask:
    """Correlations and effect sizes of the tested targets; returns which of all (p,) the sums are exact enough for."""
    of_basis, of_predictors = sums.products
    left_y = np.full(len(patterns), np.nan)
    left_d, numerators = (np.full(of_predictors.shape, np.nan) for _ in range(2))
    for j in np.flatnonzero(tested):
        pattern = patterns[j]
        explained = pattern.whitening @ of_basis[j]
        left_y[j] = sums.squares[j] - explained @ explained
        left_d[j] = pattern.left
        numerators[j] = of_predictors[j] - explained @ pattern.loadings
    n, rank = out.n[0], out.rank[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        centred = centred_squares(sums.squares, sums.totals, n)
        sd = np.sqrt(centred / (n - 1))
        r = np.clip((numerators / np.sqrt(left_d * left_y[:, None])).T, -1.0, 1.0)
        out.r[:] = r
        out.beta_per_sd[:] = r * (np.sqrt(left_y / (n - rank)) / sd)
        residual_length = group.residual_length[:, None] * np.sqrt(left_d.T)
        out.delta_years_per_sd[:] = r * residual_length * (sd / np.sqrt(left_y))
        sound = enough_left(sums.squares, centred, left_y)
    copies = np.abs(r[group.alive]) > 1.0 - NEARLY_DEGENERATE
    return sound & ~copies.any(axis=0)


def _say_why_not(
    out: PairStatistics,
    group: PredictorGroup,
    patterns: list[Pattern],
    tested: Mask,
    limits: PairLimits,
) -> None:
    """Reasons of the tested targets that have no test; their numbers go."""
    with np.errstate(invalid="ignore"):
        out.reason[:, tested & (out.n_cases[0] < limits.minimum_class)] = TOO_FEW_CASES
    dead = np.flatnonzero(~group.alive)
    for j in np.flatnonzero(tested) if dead.size else ():
        out.reason[dead, j] = np.where(patterns[j].constant, DELTA_CONSTANT, DELTA_COLLINEAR)
    for values in (out.r, out.beta_per_sd, out.delta_years_per_sd):
        values[out.reason != ""] = np.nan
