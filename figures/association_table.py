"""The associations as the figures need them: nIDPs in one fixed order, thresholds per family, small counts hidden."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from figures.privacy import MINIMUM_COUNT
from figures.tables import StudyTables, is_present, ordered_contrasts, ordered_sexes

NUMBERS = ("n", "n_cases", "r", "ci_lo", "ci_hi", "nlog10p", "nlog10p_bonf", "nlog10q_bh", "q_bh")
REASON_FEW = f"fewer than {MINIMUM_COUNT} subjects"
NO_CATEGORY = "no category"
HIDDEN_CASES = -2  # in place of a number of cases (or of the others) under the minimum count


@dataclass(frozen=True)
class Family:
    """Tests that were corrected for multiplicity together, and the thresholds that follow."""

    name: str
    n_tests: int
    bonferroni_nlog10p: float | None
    bh_nlog10p: (
        float | None
    )  # -log10(alpha k / m) with k rejected by Benjamini-Hochberg; None: none


@dataclass(frozen=True)
class AssociationView:
    """Associations ready to be drawn.

    Parameters
    ----------
    table : DataFrame
        One row per delta and nIDP with `delta_place` and `nidp_place`, sorted by both; numeric columns are
        float64 with NaN where unknown or hidden.
    nidps : DataFrame
        nidp, name, category, description in drawing order (category, then nIDP).
    deltas : list of (contrast, sex)
        In drawing order.
    families : list of Family
    family_of_delta : list of int
        Place in `families` for each delta, -1 where a delta's tests belong to several.
    alpha : float
        The level at which both thresholds stand.
    """

    table: pd.DataFrame
    nidps: pd.DataFrame
    deltas: list[tuple[str, str]]
    families: list[Family]
    family_of_delta: list[int]
    alpha: float

    @property
    def n_nidps(self) -> int:
        """Number of nIDPs."""
        return len(self.nidps)

    def of_delta(self, contrast: str, sex: str) -> pd.DataFrame:
        """The rows of one delta."""
        return self.table[self.table["delta_place"] == self.deltas.index((contrast, sex))]

    def thresholds(self, contrast: str, sex: str) -> Family | None:
        """The family of one delta; None where its tests belong to several."""
        place = self.family_of_delta[self.deltas.index((contrast, sex))]
        return self.families[place] if place >= 0 else None

    def passes_bonferroni(self) -> pd.Series:
        """Rows whose Bonferroni-adjusted p is at most alpha."""
        return self.table["nlog10p_bonf"] >= -np.log10(self.alpha) - 1e-9

    def passes_bh(self) -> pd.Series:
        """Rows whose Benjamini-Hochberg q is at most alpha."""
        return self.table["nlog10q_bh"] >= -np.log10(self.alpha) - 1e-9


def association_view(tables: StudyTables) -> AssociationView | None:
    """Arrange the associations of a study; None where there are none."""
    if tables.associations is None or not is_present(tables.associations):
        return None
    summary = tables.association_summary or {}
    alpha = float(summary.get("alpha") or 0.05)
    table = _numeric(tables.associations)
    with np.errstate(divide="ignore"):
        table["nlog10q_bh"] = table["nlog10q_bh"].fillna(-np.log10(table["q_bh"]))
    nidps = _ordered_nidps(table, tables.dictionary)
    found = set(zip(table["contrast"], table["sex"]))
    sexes = ordered_sexes(table["sex"])
    deltas = [
        (contrast, sex)
        for contrast in ordered_contrasts(table["contrast"])
        for sex in sexes
        if (contrast, sex) in found
    ]
    place_of_delta = {delta: place for place, delta in enumerate(deltas)}
    place_of_nidp = {nidp: place for place, nidp in enumerate(nidps["nidp"])}
    table["delta_place"] = [place_of_delta[d] for d in zip(table["contrast"], table["sex"])]
    table["nidp_place"] = table["nidp"].map(place_of_nidp).astype("int64")
    table = table.drop_duplicates(["delta_place", "nidp_place"], keep="first")
    table = table.sort_values(["delta_place", "nidp_place"], ignore_index=True, kind="stable")
    families, family_of_row = _families(table, summary, alpha)
    if table["nlog10p_bonf"].isna().all():
        step = np.array([np.log10(max(family.n_tests, 1)) for family in families])[family_of_row]
        table["nlog10p_bonf"] = (table["nlog10p"] - step).clip(lower=0)
    table["family_place"] = family_of_row
    table = _hide_small_counts(table)
    return AssociationView(
        table, nidps, deltas, families, _family_of_delta(table, len(deltas)), alpha
    )


def _numeric(associations: pd.DataFrame) -> pd.DataFrame:
    """A copy with the columns this package reads: texts as str, numbers as float64."""
    table = pd.DataFrame(index=range(len(associations)))
    for name in ("contrast", "sex", "nidp"):
        table[name] = associations[name].astype(str).to_numpy()
    for name in ("category", "kind", "family_id", "reason", "column"):
        values = associations[name] if name in associations.columns else None
        table[name] = (
            ""
            if values is None
            else values.astype(object).where(values.notna(), "").astype(str).to_numpy()
        )
    for name in NUMBERS:
        values = associations[name] if name in associations.columns else np.nan
        numbers = pd.to_numeric(pd.Series(values, index=associations.index), errors="coerce")
        table[name] = numbers.to_numpy(dtype="float64", na_value=np.nan)
    return table


def _ordered_nidps(table: pd.DataFrame, dictionary: pd.DataFrame | None) -> pd.DataFrame:
    """nIDPs with name, category and description, by category (in order of appearance) and nIDP."""
    nidps = table.groupby("nidp", sort=False)[["category", "column"]].first().reset_index()
    nidps["name"], nidps["description"] = nidps["nidp"], ""
    nidps["column"] = nidps["column"].where(nidps["column"] != "", nidps["nidp"])
    if dictionary is not None and "nidp" in dictionary.columns:
        known = dictionary.drop_duplicates("nidp")
        known = known.set_index(known["nidp"].astype(str))
        for name in ("name", "category", "description"):
            if name in known.columns:
                found = nidps["column"].map(known[name])
                if (
                    name == "name"
                ):  # an indicator "column=level" keeps its level behind the column's name
                    found = found.astype(object).where(
                        found.isna(), found.astype(str) + _levels(nidps)
                    )
                nidps[name] = found.where(found.notna() & (found.astype(str) != ""), nidps[name])
    for name in ("name", "category", "description"):
        nidps[name] = nidps[name].astype(object).where(nidps[name].notna(), "").astype(str)
    nidps.loc[nidps["category"].str.strip() == "", "category"] = NO_CATEGORY
    order = list(dict.fromkeys(sorted(nidps["category"], key=str.casefold)))
    rank = nidps["category"].map({name: place for place, name in enumerate(order)})
    return nidps.assign(rank=rank).sort_values(["rank", "nidp"], ignore_index=True, kind="stable")[
        ["nidp", "name", "category", "description"]
    ]


def _levels(nidps: pd.DataFrame) -> list[str]:
    """What follows the column's name in a nIDP made from it, e.g. "=3"."""
    return [
        nidp[len(column) :] if nidp.startswith(column) else ""
        for nidp, column in zip(nidps["nidp"], nidps["column"])
    ]


def _families(table: pd.DataFrame, summary: dict, alpha: float) -> tuple[list[Family], np.ndarray]:
    """Families in order of appearance with their thresholds; each row's family."""
    codes, names = pd.factorize(table["family_id"], sort=False)
    phrase = str(summary.get("family") or "")
    families = []
    for code, name in enumerate(names):
        rows = table[codes == code]
        tested = rows["nlog10p"].notna()
        n_tests = _number_of_tests(rows[tested])
        n_rejected = int((tested & (rows["nlog10q_bh"] >= -np.log10(alpha) - 1e-9)).sum())
        own_name = re.sub(r" \(N = \d+\)$", "", str(name))  # the number of tests is said apart
        label = phrase if phrase and len(names) == 1 else (own_name or phrase or "all tests")
        families.append(
            Family(
                label,
                n_tests,
                float(np.log10(n_tests / alpha)) if n_tests else None,
                float(np.log10(n_tests / (alpha * n_rejected))) if n_tests and n_rejected else None,
            )
        )
    return families, codes


def _number_of_tests(tested: pd.DataFrame) -> int:
    """Size of a family: from the Bonferroni column, which knows tests not shown here, else counted."""
    step = (tested["nlog10p"] - tested["nlog10p_bonf"])[tested["nlog10p_bonf"] > 0]
    if len(step):
        return round(10 ** float(step.median()))
    return len(tested)


def _hide_small_counts(table: pd.DataFrame) -> pd.DataFrame:
    """No statistic of fewer than ten subjects; no number of cases, or of others, under ten."""
    few = table["n"] < MINIMUM_COUNT
    statistics = [name for name in NUMBERS if name != "n"]
    table.loc[few, statistics] = np.nan
    table.loc[few, "n"] = np.nan
    table.loc[few, "reason"] = REASON_FEW
    others = table["n"] - table["n_cases"]
    rare = (table["n_cases"] < MINIMUM_COUNT) | (others < MINIMUM_COUNT)
    table.loc[rare & (table["n_cases"] >= 0), "n_cases"] = HIDDEN_CASES
    return table


def _family_of_delta(table: pd.DataFrame, n_deltas: int) -> list[int]:
    """The one family of each delta's tests, -1 for several."""
    found = [-1] * n_deltas
    for delta, rows in table[table["nlog10p"].notna()].groupby("delta_place"):
        places = rows["family_place"].unique()
        if len(places) == 1:
            found[int(delta)] = int(places[0])
    return found
