"""The table of associations: its columns, the corrections over the declared family, and the summary."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.association.multiplicity import (
    benjamini_hochberg_nlog10,
    bh_threshold_nlog10,
    bonferroni_nlog10,
    bonferroni_threshold_nlog10,
    probability,
)
from utils.association.phenotypes import PhenotypeRules, PreparedPhenotypes
from utils.association.scan import PairStatistics

# Every column of the table of associations, with its meaning.
COLUMNS = {
    "contrast": "contrast whose delta is tested",
    "sex": "female, male, or both (sexes pooled, with sex terms among the confounds)",
    "nidp": "tested variable; 'column=level' is an indicator of one level, 'column>0' of a count above 0",
    "column": "column of the nIDP table it comes from: the unit in which unique nIDPs are counted",
    "field": "UK Biobank field of the column, where its name gives one",
    "instance": "UK Biobank instance (visit), where the name gives one",
    "category": "category of the dictionary",
    "kind": "continuous, ordinal, binary or nominal",
    "n": "subjects of this row: with delta, nIDP and confounds",
    "n_cases": "subjects in the smaller class (binary nIDPs)",
    "rank_conf": "rank of [1, confounds] on these subjects",
    "df": "degrees of freedom: n - rank_conf - 1",
    "r": "partial correlation of delta and nIDP given the confounds, age and age squared",
    "z": "Fisher's z of r; standard error 1 / sqrt(df - 1)",
    "ci_lo": "lower end of the 95 % confidence interval of r",
    "ci_hi": "upper end of the 95 % confidence interval of r",
    "beta_per_sd": "adjusted change of the nIDP, in its SDs, per SD of the delta (given the confounds)",
    "delta_years_per_sd": "adjusted change of the delta, in years, per SD of the nIDP",
    "t": "t of the partial correlation",
    "nlog10p": "-log10 of the two-sided p",
    "nlog10p_bonf": "the same after Bonferroni over the family",
    "nlog10q_bh": "-log10 of the Benjamini-Hochberg q over the family",
    "q_bh": "the same q as a number (never 0)",
    "q_by": "Benjamini-Yekutieli q over the family (any dependence)",
    "flags": "few_cases: 10-49 in the smaller class; small_n: below the headline n",
    "family_id": "the family of tests that the corrections count",
    "split_id": "which subjects the deltas are of",
    "correction_id": "which bias correction the deltas carry",
    "reason": "why there is no p; empty where there is one",
}
FAMILIES = ("all", "per_contrast")


@dataclass(frozen=True)
class AssociationResult:
    """What `associate` returns: the associations (COLUMNS), the fate of every nIDP, and counts and thresholds."""

    table: pd.DataFrame
    fates: pd.DataFrame
    summary: dict


def analysis_rows(
    sex: str,
    contrasts: list[str],
    prepared: PreparedPhenotypes,
    statistics: PairStatistics,
    rules: PhenotypeRules,
) -> pd.DataFrame:
    """One row for every contrast and nIDP of one analysis, tested or not; nIDPs in the order of their table."""
    fates = prepared.fates
    kept = np.array([fate.kept for fate in fates], dtype=bool)
    n_contrasts, n_all = len(contrasts), len(fates)

    def spread(values: NDArray, missing: object) -> NDArray:
        dtype = object if isinstance(missing, str) else float
        full = np.full((n_contrasts, n_all), missing, dtype=dtype)
        full[:, kept] = values
        return full.ravel()

    low, high = statistics.interval()
    reason = np.full((n_contrasts, n_all), "", dtype=object)
    reason[:] = np.array([fate.reason for fate in fates], dtype=object)
    reason[:, kept] = statistics.reason
    n = np.tile(np.array([fate.n for fate in fates], dtype=float), (n_contrasts, 1))
    n[:, kept] = statistics.n
    rows = {
        "contrast": np.repeat(np.array(contrasts, dtype=object), n_all),
        "sex": np.full(n_contrasts * n_all, sex, dtype=object),
        "nidp": np.tile(np.array([fate.nidp for fate in fates], dtype=object), n_contrasts),
        "column": np.tile(np.array([fate.column for fate in fates], dtype=object), n_contrasts),
        "kind": np.tile(np.array([fate.kind for fate in fates], dtype=object), n_contrasts),
        "n": n.ravel().astype(np.int64),
        "n_cases": spread(statistics.n_cases, np.nan),
        "rank_conf": spread(statistics.rank, np.nan),
        "df": spread(statistics.df, np.nan),
        "r": spread(statistics.r, np.nan),
        "z": spread(np.where(statistics.reason == "", statistics.fisher_z, np.nan), np.nan),
        "ci_lo": spread(np.where(statistics.reason == "", low, np.nan), np.nan),
        "ci_hi": spread(np.where(statistics.reason == "", high, np.nan), np.nan),
        "beta_per_sd": spread(statistics.beta_per_sd, np.nan),
        "delta_years_per_sd": spread(statistics.delta_years_per_sd, np.nan),
        "t": spread(np.where(statistics.reason == "", statistics.t, np.nan), np.nan),
        "nlog10p": spread(statistics.nlog10p, np.nan),
        "reason": reason.ravel(),
    }
    table = pd.DataFrame(rows)
    table["flags"] = _flags(table, rules)
    return table


def _flags(table: pd.DataFrame, rules: PhenotypeRules) -> NDArray[np.object_]:
    tested = table["reason"] == ""
    few = (tested & (table["n_cases"] < rules.headline_class)).to_numpy()
    small = (tested & (table["n"] < rules.headline_n)).to_numpy()
    both = np.where(few & small, "few_cases;small_n", "")
    return np.where(both != "", both, np.where(few, "few_cases", np.where(small, "small_n", "")))


def add_multiplicity(table: pd.DataFrame, family: str, alpha: float) -> list[dict]:
    """Add the corrected columns in place and return, for each family, its size, thresholds and hits.

    `family` is 'all' (every contrast, nIDP and sex together) or 'per_contrast' (each contrast and sex by itself:
    a different claim, with its own false alarms for every contrast).
    """
    families = []
    nlog10p = table["nlog10p"].to_numpy()
    for column in ("nlog10p_bonf", "nlog10q_bh", "q_bh", "q_by"):
        table[column] = np.nan
    table["family_id"] = ""
    for family_name, rows in _family_rows(table, family):
        values = nlog10p[rows]
        n_tests = int(np.isfinite(values).sum())
        family_id = f"{family_name} (N = {n_tests})"
        bonferroni = bonferroni_nlog10(values)
        bh = benjamini_hochberg_nlog10(values)
        table.loc[rows, "nlog10p_bonf"] = bonferroni
        table.loc[rows, "nlog10q_bh"] = bh
        table.loc[rows, "q_bh"] = probability(bh)
        table.loc[rows, "q_by"] = probability(benjamini_hochberg_nlog10(values, True))
        table.loc[rows, "family_id"] = family_id
        families.append(
            {
                "family_id": family_id,
                "n_tests": n_tests,
                "alpha": alpha,
                "bonferroni_threshold_nlog10p": bonferroni_threshold_nlog10(n_tests, alpha),
                "bh_threshold_nlog10p": bh_threshold_nlog10(values, bh, alpha),
                "n_bonferroni": int((bonferroni >= -np.log10(alpha)).sum()),
                "n_bh": int((bh >= -np.log10(alpha)).sum()),
            }
        )
    return families


def _family_rows(table: pd.DataFrame, family: str) -> list[tuple[str, NDArray[np.intp]]]:
    if family == "all":
        return [("all contrasts x all tested nIDPs x sexes", np.arange(len(table)))]
    keys = table[["contrast", "sex"]].drop_duplicates()
    return [
        (
            f"per contrast: {contrast}, {sex}",
            np.flatnonzero((table["contrast"] == contrast) & (table["sex"] == sex)),
        )
        for contrast, sex in zip(keys["contrast"], keys["sex"])
    ]


def add_dictionary(table: pd.DataFrame, dictionary: pd.DataFrame | None) -> None:
    """Add category, field and instance of each row's column, in place."""
    parsed = {column: ukb_field(column) for column in table["column"].unique()}
    table["field"] = table["column"].map(lambda column: parsed[column][0])
    table["instance"] = table["column"].map(lambda column: parsed[column][1])
    table["category"] = ""
    if dictionary is not None and "category" in dictionary.columns:
        known = dictionary.dropna(subset=["category"]).drop_duplicates("nidp")
        names = dict(zip(known["nidp"].astype(str), known["category"].astype(str)))
        table["category"] = table["column"].map(lambda column: names.get(column, ""))


def ukb_field(column: str) -> tuple[str, str]:
    """(field, instance) of a UK Biobank column name (f.31.0.0, 31-0.0, x31_0_0, p31_i0); empty texts for others."""
    match = re.fullmatch(r"(?:[fx][._]?)?(\d+)[-._](\d+)[._](\d+)", column)
    match = match or re.fullmatch(r"p(\d+)(?:_i(\d+))?(?:_a\d+)?", column)
    return (match.group(1), match.group(2) or "") if match else ("", "")


def summarise(table: pd.DataFrame, families: list[dict], alpha: float) -> dict:
    """Counts of tested and untested rows, the families, and unique nIDPs (by column of the nIDP table) by sex."""
    untested = table.loc[table["reason"] != "", "reason"]
    needed = -np.log10(alpha)
    unique: dict[str, object] = {"unit": "column of the nIDP table"}
    for name, column in (("bonferroni", "nlog10p_bonf"), ("bh", "nlog10q_bh")):
        hits = table[table[column] >= needed]
        by_sex = {
            sex: int(hits.loc[hits["sex"] == sex, "column"].nunique())
            for sex in table["sex"].unique()
        }
        unique[name] = {"union": int(hits["column"].nunique()), **by_sex}
    return {
        "n_rows": len(table),
        "n_tested": int((table["reason"] == "").sum()),
        "n_untested": len(untested),
        "untested_by_reason": {k: int(v) for k, v in untested.value_counts().sort_index().items()},
        "families": families,
        "n_bonferroni": sum(f["n_bonferroni"] for f in families),
        "n_bh": sum(f["n_bh"] for f in families),
        "unique_nidps": unique,
    }
