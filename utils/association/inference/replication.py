"""Does what one set of subjects shows hold in another? Discovery and replication of associations.

A discovery passes the family's threshold in the first set; it is replicated if it has the same sign in the second
and a one-sided p below alpha / (number of discoveries tested there). Counts of hits on both sides say nothing of
this: they are never compared.

Effects of discoveries are too large on average (they were chosen for it), so their slope of the second r on the
first is below 1 even where every effect is real; over all pairs the slope is below 1 by the noise of the first r
alone (regression to the mean), which the corrected slope takes out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.association.inference.normal_tails import one_sided_nlog10p
from utils.association.inference.null_share import null_share
from utils.association.inference.row_keys import PAIR, matched_rows, row_codes

NORMAL_95 = 1.959963984540054

# Every column of the table, with its meaning; a: discovery, b: replication.
COLUMNS = {
    "contrast": "contrast whose delta is tested",
    "sex": "female, male or both",
    "nidp": "tested variable",
    "column": "column of the nIDP table it comes from",
    "category": "category of the dictionary",
    "n_a": "subjects of the discovery set",
    "n_b": "subjects of the replication set",
    "r_a": "partial correlation in the discovery set",
    "r_b": "partial correlation in the replication set",
    "nlog10p_a": "-log10 of the two-sided p in the discovery set",
    "nlog10p_b": "-log10 of the two-sided p in the replication set",
    "nlog10p_one_sided_b": "-log10 of the one-sided p in the replication set, in the direction of r_a",
    "same_sign": "whether r_a and r_b have the same sign",
    "discovery": "whether the pair passes the criterion in the discovery set",
    "replicated": "whether a discovery has the same sign and a one-sided p below alpha / discoveries tested",
    "z_mean": "mean of the two Fisher z (Bland-Altman)",
    "z_difference": "Fisher z of the discovery set minus that of the replication set",
    "z_limit": "1.96 sqrt(1/w_a + 1/w_b), w = df - 1: 95 % of differences lie within it if the effects are equal",
    "reason": "why there is no comparison: not_in_replication, or why it was not tested there; else empty",
}


@dataclass(frozen=True)
class ReplicationResult:
    """table: `COLUMNS`, a row for every pair tested in the discovery set. summary: counts, agreement and notes."""

    table: pd.DataFrame
    summary: dict


def replicate(
    discovery: pd.DataFrame,
    replication: pd.DataFrame,
    criterion: str = "nlog10p_bonf",
    alpha: float = 0.05,
) -> ReplicationResult:
    """Compare the associations of two disjoint sets of subjects.

    Parameters
    ----------
    discovery, replication : DataFrame
        Tables of associations (contrast, sex, nidp, n, df, r, nlog10p, reason, column, category).
    criterion : str
        Column of the discovery table with -log10 of a corrected p (Bonferroni, permutation): a discovery is >= -log10
        alpha there.
    alpha : float
        Level of discovery and of replication.

    Returns
    -------
    ReplicationResult

    Raises
    ------
    ValueError
        A contrast, sex and nIDP has two rows in a table.
    """
    tested = discovery.iloc[np.flatnonzero(_is_tested(discovery))]
    first, second = matched_rows(*row_codes([tested, replication], PAIR))
    table = tested[["contrast", "sex", "nidp", "column", "category"]].reset_index(drop=True)
    both = _is_tested(replication.iloc[second])

    def of_replication(name: str) -> NDArray[np.float64]:
        values = replication[name].to_numpy(dtype=float)[second[both]]
        return _put(len(table), first[both], values, np.nan)

    for name in ("n", "r", "nlog10p"):
        table[f"{name}_a"] = tested[name].to_numpy()
    table["n_b"] = _put(len(table), first, replication["n"].to_numpy()[second], 0)
    for name in ("r", "nlog10p"):
        table[f"{name}_b"] = of_replication(name)
    w_a, w_b = tested["df"].to_numpy(dtype=float) - 1.0, of_replication("df") - 1.0
    table["discovery"] = tested[criterion].to_numpy(dtype=float) >= -np.log10(alpha)
    table["reason"] = _reasons(len(table), first, replication["reason"].iloc[second])
    _add_signs(table, alpha)
    _add_agreement(table, w_a, w_b)
    summary = _summary(table, w_a, criterion, alpha)
    return ReplicationResult(table[list(COLUMNS)], summary)


def _is_tested(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Rows with a p, and a correlation that has a finite Fisher z."""
    tested = np.isfinite(table["nlog10p"].to_numpy(dtype=float))
    return tested & (np.abs(table["r"].to_numpy(dtype=float)) < 1.0)


def _put(size: int, places: NDArray[np.intp], values: NDArray, missing: float) -> NDArray:
    full = np.full(size, missing, dtype=values.dtype)
    full[places] = values
    return full


def _reasons(size: int, places: NDArray[np.intp], reasons: pd.Series) -> pd.Categorical:
    known = pd.Categorical(reasons)
    names = [str(name) for name in known.categories]
    codes = _put(size, places, known.codes.astype(np.int64), len(names))
    return pd.Categorical.from_codes(codes, [*names, "not_in_replication"])


def _add_signs(table: pd.DataFrame, alpha: float) -> None:
    """Add direction, one-sided p and whether each discovery is replicated, in place."""
    compared = table["r_b"].notna().to_numpy()
    same = np.sign(table["r_a"].to_numpy()) == np.sign(table["r_b"].to_numpy())
    one_sided = one_sided_nlog10p(table["nlog10p_b"], same)
    n_tested = int((table["discovery"] & compared).sum())
    needed = np.log10(max(n_tested, 1) / alpha)
    table["same_sign"] = same & compared
    table["nlog10p_one_sided_b"] = one_sided
    table["replicated"] = table["discovery"] & table["same_sign"] & (one_sided > needed)


def _add_agreement(table: pd.DataFrame, w_a: NDArray, w_b: NDArray) -> None:
    """Add mean and difference of the two Fisher z and the limit of chance, in place."""
    z_a, z_b = np.arctanh(table["r_a"].to_numpy()), np.arctanh(table["r_b"].to_numpy())
    table["z_mean"], table["z_difference"] = (z_a + z_b) / 2.0, z_a - z_b
    table["z_limit"] = NORMAL_95 * np.sqrt(1.0 / w_a + 1.0 / w_b)


def _summary(table: pd.DataFrame, w_a: NDArray, criterion: str, alpha: float) -> dict:
    compared = table["r_b"].notna()
    found = table[table["discovery"] & compared]
    both = table[compared]
    n_found, n_same = len(found), int(found["same_sign"].sum())
    low, high = exact_binomial_interval(n_same, n_found)
    share = null_share(found["nlog10p_one_sided_b"])
    slope_all, slope_true, reliability = _slopes(both, w_a[compared.to_numpy()])
    difference = both["z_difference"]
    return {
        "criterion": f"{criterion} >= -log10 {alpha:g}",
        "alpha": alpha,
        "n_pairs_compared": len(both),
        "n_discoveries": int(table["discovery"].sum()),
        "n_discoveries_tested": n_found,
        "one_sided_threshold_nlog10p": float(np.log10(n_found / alpha)) if n_found else None,
        "n_replicated": int(table["replicated"].sum()),
        "unique_nidps": {
            "unit": "column of the nIDP table",
            "discovered": int(table.loc[table["discovery"], "column"].nunique()),
            "replicated": int(table.loc[table["replicated"], "column"].nunique()),
        },
        "n_same_sign": n_same,
        "same_sign": {"share": n_same / n_found if n_found else None, "ci_lo": low, "ci_hi": high},
        "pi1": _or_none(share.pi1),
        "pi1_notes": list(share.notes),
        "slope": {
            "discoveries": _least_squares(found["r_a"], found["r_b"]),
            "all_pairs": slope_all,
            "all_pairs_without_noise": slope_true,
            "reliability_of_z_a": reliability,
        },
        "bland_altman": {
            "mean_difference": _or_none(difference.mean()),
            "sd_difference": _or_none(difference.std(ddof=1)),
            "share_within_limits": _or_none((difference.abs() <= both["z_limit"]).mean()),
        },
        "notes": [
            "intervals take pairs for independent, which related nIDPs and contrasts are not",
            "discoveries were chosen for their size: their slope is below 1 also where every effect is real",
        ],
    }


def exact_binomial_interval(
    n_successes: int, n_trials: int, level: float = 0.95
) -> tuple[float | None, float | None]:
    """Clopper and Pearson's interval of a share; None without trials.

    Source: Clopper and Pearson 1934, Biometrika 26:404 (agreement with scipy's binomtest is tested).
    """
    from scipy.special import betaincinv

    if n_trials == 0:
        return None, None
    tail, n_failures = (1.0 - level) / 2.0, n_trials - n_successes
    low = betaincinv(n_successes, n_failures + 1, tail) if n_successes else 0.0
    high = betaincinv(n_successes + 1, n_failures, 1.0 - tail) if n_failures else 1.0
    return float(low), float(high)


def _slopes(both: pd.DataFrame, w_a: NDArray) -> tuple[float | None, float | None, float | None]:
    """Slope of r_b on r_a over all pairs, the same without the noise of z_a, and the reliability of z_a.

    The noise of z_a has the known variance 1 / w_a, so the share of the variance of z_a that is not noise is known
    too, and dividing by it undoes the dilution (errors in variables by moments). Nothing is chosen by r_a here: for
    the discoveries alone this correction would not hold. It is left out where less than a tenth is not noise.
    """
    slope = _least_squares(both["r_a"], both["r_b"])
    if slope is None:
        return None, None, None
    variance = float(np.var(np.arctanh(both["r_a"]), ddof=1))
    reliability = 1.0 - float(np.mean(1.0 / w_a)) / variance
    return slope, slope / reliability if reliability >= 0.1 else None, reliability


def _least_squares(x: pd.Series, y: pd.Series) -> float | None:
    """Slope of y on x with an intercept; None for fewer than three points or no spread in x."""
    x_, y_ = x.to_numpy(dtype=float), y.to_numpy(dtype=float)
    if len(x_) < 3 or np.ptp(x_) == 0:
        return None
    centred = x_ - x_.mean()
    return float(centred @ y_ / (centred @ centred))


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
