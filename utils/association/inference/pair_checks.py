"""All second looks at one delta and the nIDPs that share their rows with it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from utils.association.inference.logistic import LogisticLimits, odds_ratio_test
from utils.association.inference.nominal import overall_f_test
from utils.association.inference.rank_correlation import partial_spearman
from utils.association.inference.reliability_correction import disattenuate
from utils.association.inference.robust_errors import hc3_test
from utils.association.inference.sensitivity import quality_halves, squared_delta_test
from utils.association.inference.shared_rows import (
    ConfoundBases,
    SharedRows,
    partial_correlations,
)
from utils.association.scan import COLLINEAR, DELTA_COLLINEAR, TOO_FEW_DF

Array = NDArray[np.float64]

Z_975 = 1.959963984540054
ODDS_COLUMNS = (
    "or_per_sd",
    "or_per_sd_lo",
    "or_per_sd_hi",
    "or_per_year",
    "or_per_year_lo",
    "or_per_year_hi",
    "logistic_nlog10p",
    "logistic_wald_nlog10p",
    "n_cases",
)
NO_HC3 = "one_subject_decides_or_no_error_is_left"
NO_RANKS = "ranks_explained_by_confounds"
NO_RELIABILITY = "reliability_unknown_or_not_above_0"
NO_INTERVAL = "reliability_too_uncertain"
NO_LEVELS = "levels_explained_by_confounds"


@dataclass(frozen=True)
class RowSet:
    """One set of rows with all and with the minimal confounds."""

    full: SharedRows
    minimal: SharedRows


@dataclass
class PairRows:
    """Columns of the table for P pairs, filled by name; and, for each pair, its reasons."""

    n_pairs: int
    columns: dict[str, list | NDArray] = field(default_factory=dict)
    reasons: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reasons = [[] for _ in range(self.n_pairs)]

    def explain(self, check: str, reason: str, where: NDArray[np.bool_]) -> None:
        """Note a reason at the pairs (P,) where it holds."""
        for pair in np.flatnonzero(where):
            self.reasons[pair].append(f"{check}: {reason}")


def linear_checks(delta: Array, nidps: Array, rows: RowSet) -> PairRows:
    """r as in the scan, HC3, ranks, minimal confounds and the squared delta, for nIDPs (n, P) and one delta (n,)."""
    shared = rows.full
    d, y = shared.residuals(delta), shared.residuals(nidps)
    out = PairRows(nidps.shape[1])
    plain = partial_correlations(d, y, shared.df)
    every = np.ones(out.n_pairs, dtype=bool)
    if shared.df < 1:
        out.explain("all", TOO_FEW_DF, every)
    elif not d.any():
        out.explain("all", DELTA_COLLINEAR, every)
    else:
        out.explain("all", COLLINEAR, np.abs(y).max(axis=0) == 0.0)
    usable = np.isfinite(plain.nlog10p)
    robust = hc3_test(d, y, shared)
    out.explain("hc3", NO_HC3, usable & np.isnan(robust.t))
    ranks = partial_spearman(delta, nidps, shared)
    out.explain("spearman", NO_RANKS, usable & np.isnan(ranks.r))
    minimal = partial_correlations(
        rows.minimal.residuals(delta), rows.minimal.residuals(nidps), rows.minimal.df
    )
    squared = squared_delta_test(d, y, shared)
    out.columns = {
        "n": np.full(out.n_pairs, shared.n),
        "df": np.full(out.n_pairs, float(shared.df)),
        "r": plain.r,
        "nlog10p": plain.nlog10p,
        "hc3_ratio": robust.ratio,
        "hc3_t": robust.t,
        "hc3_nlog10p": robust.nlog10p,
        "spearman_r": ranks.r,
        "spearman_nlog10p": ranks.nlog10p,
        "r_minimal": minimal.r,
        "nlog10p_minimal": minimal.nlog10p,
        "squared_t": squared.t,
        "squared_nlog10p": squared.nlog10p,
    }
    return out


def add_quality_halves(
    out: PairRows,
    delta: Array,
    nidps: Array,
    quality: Array,
    rows: NDArray[np.intp],
    bases: ConfoundBases,
) -> None:
    """The halves by image quality (n,) on these rows."""
    halves = quality_halves(delta, nidps, quality, rows, bases)
    out.columns |= {
        "r_quality_lower": halves.r_lower,
        "r_quality_upper": halves.r_upper,
        "quality_nlog10p": halves.nlog10p,
    }
    usable = np.isfinite(np.asarray(out.columns["nlog10p"], dtype=float))
    out.explain("quality", TOO_FEW_DF, usable & np.isnan(halves.nlog10p))


def add_disattenuated(out: PairRows, reliability: Array) -> None:
    """From the reliability of the delta with the ends of its interval (3,)."""
    r, df = (np.asarray(out.columns[name], dtype=float) for name in ("r", "df"))
    with np.errstate(divide="ignore", invalid="ignore"):
        z, half = np.arctanh(r), Z_975 / np.sqrt(df - 1.0)
    found = disattenuate(r, np.tanh(z - half), np.tanh(z + half), *reliability)
    out.columns |= {
        "r_disattenuated": found.r,
        "r_disattenuated_lo": found.low,
        "r_disattenuated_hi": found.high,
    }
    out.explain("disattenuated", NO_RELIABILITY, np.isfinite(r) & np.isnan(found.r))
    no_end = np.isnan(found.low) | np.isnan(found.high)
    out.explain("disattenuated", NO_INTERVAL, np.isfinite(found.r) & no_end)


def add_odds_ratios(
    out: PairRows, delta: Array, nidps: Array, shared: SharedRows, limits: LogisticLimits
) -> None:
    """Logistic regression of the nIDPs (n, P) that have two values on these rows, whatever their kind."""
    d = shared.residuals(delta)
    numbers = {name: np.full(out.n_pairs, np.nan) for name in ODDS_COLUMNS}
    methods = [""] * out.n_pairs
    for pair in np.flatnonzero(_has_two_values(nidps)):
        if any(reason.startswith("all: ") for reason in out.reasons[pair]):
            continue
        test = odds_ratio_test(nidps[:, pair], d, shared, limits)
        methods[pair] = test.method
        ends = np.array([test.log_odds, test.low, test.high])
        with np.errstate(over="ignore"):
            values = (*np.exp(ends * test.delta_sd), *np.exp(ends))
        values = (*values, test.nlog10p_lr, test.nlog10p_wald, float(test.n_cases))
        for name, value in zip(ODDS_COLUMNS, values):
            numbers[name][pair] = value
        if test.reason:
            out.reasons[pair].append(f"logistic: {test.reason}")
    out.columns |= {"logistic_method": methods, **numbers}


def _has_two_values(nidps: Array) -> NDArray[np.bool_]:
    """Which columns (n, P) hold exactly two different values."""
    low, high = nidps.min(axis=0), nidps.max(axis=0)
    return (low < high) & ((nidps == low) | (nidps == high)).all(axis=0)


def overall_test_columns(delta: Array, indicators: Array, shared: SharedRows) -> dict[str, float]:
    """The F of a nominal nIDP, as columns of the table."""
    found = overall_f_test(delta, indicators, shared)
    return {
        "nominal_f": found.f,
        "nominal_df_levels": float(found.df_levels),
        "nominal_df_residual": float(found.df_residual),
        "nominal_nlog10p": found.nlog10p,
    }
