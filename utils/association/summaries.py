"""Counts and small tables of the associations, whose units are always said; none holds a row about a person."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.association.inference.normal_tails import normal_from_nlog10p

# Corrections by name: the column that tells who passes. Columns of -log10 (p or q) pass from -log10 alpha on, columns
# of q up to alpha, columns of True and False as they say.
CORRECTIONS = {
    "bonferroni": "nlog10p_bonf",
    "holm": "nlog10p_holm",
    "fwer": "nlog10p_fwer",
    "bh": "nlog10q_bh",
    "by": "q_by",
    "storey": "nlog10q_storey",
    "hierarchical": "rejected_within",
}
# What is counted as one nIDP, and its meaning.
UNITS = {
    "column": "column of the nIDP table",
    "field": "UK Biobank field; a column that names none counts as itself",
    "category": "category of the dictionary; columns without one are not counted",
}
# No number about fewer subjects leaves the platform.
MINIMUM_PERSONS = 10
# The median of chi-squared with one degree of freedom.
MEDIAN_CHI2 = 0.454936423119572
LAMBDA_AT = 1000.0


def passing(table: pd.DataFrame, alpha: float) -> dict[str, NDArray[np.bool_]]:
    """Which rows pass each correction that was made, at level alpha; an empty column was not (no permutations)."""
    passed = {}
    tested = table["nlog10p"].notna().any()
    for name, column in CORRECTIONS.items():
        if column not in table or (tested and table[column].isna().all()):
            continue
        values = table[column].to_numpy()
        if values.dtype != bool:
            values = values.astype(float)
            values = values >= -np.log10(alpha) if "nlog10" in column else values <= alpha
        passed[name] = values
    return passed


def summarise(table: pd.DataFrame, families: list[dict], alpha: float) -> dict:
    """Counts of tested and untested rows, the families, hits by correction and sign, and unique nIDPs.

    Parameters
    ----------
    table : DataFrame
        Associations with their corrections (`results.COLUMNS`).
    families : list of dict
        Each family's size, thresholds and hits, as `add_multiplicity` returns them.
    alpha : float
        The level of every correction.

    Returns
    -------
    dict
        unique_nidps: by column of the nIDP table, for Bonferroni and Benjamini-Hochberg: union over the sexes and
        each sex. unique_by_unit: for every unit of `UNITS` and every correction, union, each sex, and the sum over the
        sexes, which counts a nIDP of both sexes twice. hits: rows, positive and negative ones, by correction.
    """
    passed = passing(table, alpha)
    by_unit = unique_by_unit(table, passed)
    counted = {
        name: {k: v for k, v in by_unit["column"][name].items() if k != "sum_over_sexes"}
        for name in ("bonferroni", "bh")
        if name in passed
    }
    untested = table["reason"][(table["reason"] != "").to_numpy()].value_counts()
    positive = (table["r"] > 0).to_numpy()
    return {
        "n_rows": len(table),
        "n_tested": len(table) - int(untested.sum()),
        "n_untested": int(untested.sum()),
        "untested_by_reason": {str(k): int(v) for k, v in untested.sort_index().items() if v},
        "families": families,
        "n_bonferroni": sum(f["n_bonferroni"] for f in families),
        "n_bh": sum(f["n_bh"] for f in families),
        "hits": {
            name: {
                "rows": int(rows.sum()),
                "positive": int((rows & positive).sum()),
                "negative": int((rows & ~positive).sum()),
            }
            for name, rows in passed.items()
        },
        "unique_nidps": {"unit": UNITS["column"], **counted},
        "unique_by_unit": by_unit,
    }


def unique_by_unit(table: pd.DataFrame, passed: dict[str, NDArray[np.bool_]]) -> dict[str, dict]:
    """Distinct nIDPs among the passing rows: {unit: {meaning, correction: {union, each sex, sum_over_sexes}}}."""
    sexes = [str(sex) for sex in table["sex"].unique()]
    of_sex = {sex: (table["sex"] == sex).to_numpy() for sex in sexes}
    counts: dict[str, dict] = {}
    for unit, meaning in UNITS.items():
        if unit not in table:
            continue
        codes = _unit_codes(table, unit)
        counts[unit] = {"meaning": meaning}
        for name, rows in passed.items():
            counted = rows & (codes >= 0)
            by_sex = {sex: _n_distinct(codes[counted & of_sex[sex]]) for sex in sexes}
            counts[unit][name] = {
                "union": _n_distinct(codes[counted]),
                **by_sex,
                "sum_over_sexes": sum(by_sex.values()),
            }
    return counts


def group_summary(table: pd.DataFrame, by: Sequence[str], alpha: float) -> pd.DataFrame:
    """One row for each group of rows, e.g. by ('contrast', 'sex'), ('category', 'sex') or ('contrast', 'category').

    Parameters
    ----------
    table : DataFrame
        Associations with their corrections.
    by : columns of the table
    alpha : float
        The level of every correction.

    Returns
    -------
    DataFrame
        The columns `by`, in order of first appearance, and: n_rows, n_tested; for every correction CORR that the table
        holds n_CORR (rows) and n_CORR_positive; n_nidps_bonferroni (distinct columns with a hit); largest_r (signed),
        largest_nidp, largest_n, largest_nlog10p of the tested row with the largest |r| among rows of ten subjects and
        more; median_n; lambda_gc, the median chi-squared that matches p over its null median, and lambda_1000, the
        same carried to 1,000 subjects: 1 + (lambda_gc - 1) 1000 / median_n. Lambda above 1 is expected where effects
        are many and tests correlated; only permuted data must give 1.
    """
    names = list(by)
    groups, codes = _groups(table, names)
    size = len(groups)
    tested = (table["reason"] == "").to_numpy()
    positive = (table["r"] > 0).to_numpy()

    def count(rows: NDArray[np.bool_]) -> NDArray[np.intp]:
        return np.bincount(codes[rows], minlength=size)

    groups["n_rows"], groups["n_tested"] = np.bincount(codes, minlength=size), count(tested)
    passed = passing(table, alpha)
    for name, rows in passed.items():
        groups[f"n_{name}"], groups[f"n_{name}_positive"] = count(rows), count(rows & positive)
    if "bonferroni" in passed:
        rows = passed["bonferroni"]
        pairs = pd.DataFrame(
            {"group": codes[rows], "column": pd.factorize(table["column"][rows])[0]}
        )
        once = pairs.drop_duplicates()["group"].to_numpy()
        groups["n_nidps_bonferroni"] = np.bincount(once, minlength=size)
    _add_largest(groups, table, codes, tested)
    _add_inflation(groups, table, codes, tested)
    return groups


def contrast_summary(table: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """`group_summary` of every contrast and sex."""
    return group_summary(table, ("contrast", "sex"), alpha)


def category_summary(table: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """`group_summary` of every category and sex, over all contrasts."""
    return group_summary(table, ("category", "sex"), alpha)


def _groups(table: pd.DataFrame, by: list[str]) -> tuple[pd.DataFrame, NDArray[np.intp]]:
    """The distinct values of `by` in order of first appearance, and each row's place among them."""
    combined = np.zeros(len(table), dtype=np.int64)
    for name in by:
        codes, values = pd.factorize(table[name], use_na_sentinel=False)
        combined = combined * max(len(values), 1) + codes
    places, distinct = pd.factorize(combined)
    first = np.full(len(distinct), len(table), dtype=np.intp)
    np.minimum.at(first, places, np.arange(len(table)))
    groups = table[by].iloc[first].reset_index(drop=True)
    return groups.astype({name: object for name in by}), places


def _add_largest(
    groups: pd.DataFrame, table: pd.DataFrame, codes: NDArray, tested: NDArray
) -> None:
    """Add the tested row with the largest |r| of each group, of ten subjects or more, in place."""
    size = table["r"].abs().to_numpy()
    rows = np.flatnonzero(tested & np.isfinite(size) & (table["n"] >= MINIMUM_PERSONS).to_numpy())
    rows = rows[np.lexsort((rows, -size[rows], codes[rows]))]
    _, first = np.unique(codes[rows], return_index=True)
    rows = rows[first]
    for new, name in (("r", "r"), ("n", "n"), ("nlog10p", "nlog10p")):
        groups[f"largest_{new}"] = np.nan
        groups.loc[codes[rows], f"largest_{new}"] = table[name].to_numpy(dtype=float)[rows]
    nidps = np.full(len(groups), "", dtype=object)
    nidps[codes[rows]] = table["nidp"].iloc[rows].astype(object)
    groups["largest_nidp"] = nidps


def _add_inflation(
    groups: pd.DataFrame, table: pd.DataFrame, codes: NDArray, tested: NDArray
) -> None:
    """Add median n (none under ten subjects), lambda_gc and lambda_1000 of each group, in place."""
    rows = np.flatnonzero(tested)
    values = pd.DataFrame(
        {
            "n": table["n"].to_numpy(dtype=float)[rows],
            "chi2": normal_from_nlog10p(table["nlog10p"].to_numpy(dtype=float)[rows]) ** 2,
        }
    )
    medians = values.groupby(codes[rows]).median().reindex(range(len(groups)))
    n = medians["n"].where(medians["n"] >= MINIMUM_PERSONS)
    groups["median_n"] = n
    groups["lambda_gc"] = medians["chi2"] / MEDIAN_CHI2
    groups["lambda_1000"] = 1.0 + (groups["lambda_gc"] - 1.0) * LAMBDA_AT / n


def _unit_codes(table: pd.DataFrame, unit: str) -> NDArray[np.int64]:
    """A number for each row's nIDP in this unit; -1 where it is not counted."""
    codes, names = pd.factorize(table[unit])
    empty = np.array([str(name).strip() == "" for name in names], dtype=bool)
    missing = codes < 0
    missing[~missing] = empty[codes[~missing]]
    if unit == "field":
        columns, _ = pd.factorize(table["column"])
        return np.where(missing, len(names) + columns, codes)
    return np.where(missing, -1, codes)


def _n_distinct(codes: NDArray[np.int64]) -> int:
    return len(pd.unique(codes))
