"""What of a table may stand in `summary/`, which leaves the platform: no small counts, no one's age."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from figures.privacy import MINIMUM_COUNT, record_for_export, text_for_export
from utils.common.files import write_json
from utils.common.tables import write_table

COUNT_COLUMNS = (
    "n", "n_cases", "n_smaller_class", "n_outliers", "n_failed", "n_missing_codes", "n_female", "n_male", "n_a", "n_b",
    "n_without", "n_shared",
)  # fmt: skip
_CASES = ("n_cases", "n_smaller_class")
UNTESTED = "untested"  # the reason in tables that combine or compare rows
# Subjects of the tables that were matched, the narrowest first.
_MATCHED = ("analysed", "with_delta_and_nidps", "with_confounds", "with_nidps", "with_delta")
_DESCRIBED = ("contrast", "sex", "split", "predictor", "flags")


def write_summary_table(
    table: pd.DataFrame, path: Path, individual_level: bool, decimals: int | None = 6
) -> None:
    """Write a table of `summary/`; counts under ten are left empty unless persons may be shown."""
    shown = table if individual_level else hide_small_counts(table)
    write_table(shown, path, decimals)


def write_summary_record(record: dict[str, Any], path: Path, individual_level: bool) -> None:
    """Write a record of `summary/`; small counts are hidden unless persons may be shown."""
    write_json(record if individual_level else export_safe_record(record), path)


def hide_small_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Counts from 1 to 9 become missing, and so do those that would tell them; rare levels lose their names."""
    hidden = _without_rare_levels(table)
    for column in COUNT_COLUMNS:
        if column in hidden:
            counts = pd.to_numeric(hidden[column]).astype("Int64")
            hidden[column] = counts.mask(((counts > 0) & (counts < MINIMUM_COUNT)).fillna(False))
    if "note" in hidden:
        notes = hidden["note"].astype(object)
        hidden["note"] = notes.map(text_for_export, na_action="ignore")
    for column in _CASES:
        if column in hidden and "n" in hidden:
            _hide_what_subtraction_gives(hidden, table, column)
    return hidden


def export_safe_record(record: dict[str, Any]) -> dict[str, Any]:
    """A record of associations without small counts of persons, also as the difference of two numbers of subjects."""
    safe = record_for_export(record)
    counts = record.get("subjects", {})
    shown: list[int] = []
    for name in _MATCHED:
        if name not in counts:
            continue
        if any(0 < abs(counts[name] - other) < MINIMUM_COUNT for other in shown):
            safe["subjects"][name] = None
        else:
            shown.append(counts[name])
    return safe


def _rows_of_levels(table: pd.DataFrame) -> NDArray[np.intp]:
    """Positions of the rows about one level of a column with several ('column=level')."""
    if not {"nidp", "column"} <= set(table.columns):
        return np.empty(0, dtype=np.intp)
    nidps = pd.Categorical(table["nidp"])
    with_sign = np.array([*("=" in str(name) for name in nidps.categories), False], dtype=bool)
    rows = np.flatnonzero(with_sign[nidps.codes])
    pairs = zip(*(table[name].iloc[rows].astype(str) for name in ("nidp", "column")))
    return rows[np.array([nidp.startswith(f"{column}=") for nidp, column in pairs], dtype=bool)]


def _without_rare_levels(table: pd.DataFrame) -> pd.DataFrame:
    """A copy in which levels that fewer than ten subjects have are called 'column=level 3'.

    A level is a text of the table of nIDPs: of an answer in one's own words the text alone would tell who it is. Where
    a table does not count the cases, levels that were not tested count as rare.
    """
    copy = table.copy()
    rows = _rows_of_levels(table)
    if not len(rows):
        return copy
    part = table.iloc[rows]
    counted = [name for name in _CASES if name in part]
    if counted:
        named = (pd.to_numeric(part[counted[0]]) >= MINIMUM_COUNT).fillna(False).to_numpy(bool)
    elif "reason" in part:
        named = (part["reason"] != UNTESTED).to_numpy(bool)
    else:
        return copy
    levels = part[["nidp", "column"]].astype(str).drop_duplicates()
    numbers = (levels.groupby("column", sort=False).cumcount() + 1).astype(str)
    nameless = dict(zip(levels["nidp"], levels["column"] + "=level " + numbers))
    names = copy["nidp"].astype(object).to_numpy(copy=True)
    names[rows[~named]] = part["nidp"][~named].astype(str).map(nameless)
    is_categorical = isinstance(table["nidp"].dtype, pd.CategoricalDtype)
    copy["nidp"] = pd.Categorical(names) if is_categorical else names
    return copy


def _hide_what_subtraction_gives(hidden: pd.DataFrame, table: pd.DataFrame, name: str) -> None:
    """Hide the smallest shown counts of a column's levels where few subjects have the other levels, in place.

    The levels of a column add up to its subjects, so a single hidden one would follow from the others. Of a level that
    most subjects have the count is of those who do not have it; both readings are looked at.
    """
    rows, keys = _rows_of_levels(table), [key for key in ("contrast", "sex") if key in table]
    if not len(rows) or not keys:
        return
    part = table.iloc[rows][[*keys, "column"]]
    part = part.assign(row=rows, n=pd.to_numeric(table["n"].iloc[rows]).to_numpy(float))
    part["shown"] = hidden[name].iloc[rows].to_numpy(dtype=float, na_value=np.nan)
    part["group"] = part.groupby([*keys, "column"], sort=False, observed=True).ngroup()
    groups = part.groupby("group")["shown"]
    incomplete = groups.transform("count") < groups.transform("size")
    few = _tells_few(part["n"], groups.transform("sum"), groups.transform("max"))
    place = hidden.columns.get_loc(name)
    for _, levels in part[incomplete & few].groupby("group"):
        left = levels[levels["shown"].notna()].sort_values("shown", kind="stable")
        while len(left) and _tells_few(left["n"], left["shown"].sum(), left["shown"].max()).any():
            hidden.iloc[int(left["row"].iloc[0]), place] = pd.NA
            left = left.iloc[1:]


def _tells_few(n: pd.Series, total: Any, largest: Any) -> pd.Series:
    """Whether n less the shown counts is a small count; the largest may be of the subjects without its level."""
    rest, of_largest = n - total, n * 0 + (2 * largest - total)
    return rest.between(1, MINIMUM_COUNT - 1) | of_largest.between(1, MINIMUM_COUNT - 1)


def export_safe_metrics(metrics: pd.DataFrame) -> pd.DataFrame:
    """Rows of fewer than ten subjects lose their numbers; ranges of age are in whole years.

    The exact age of the youngest or the oldest would be one person's.
    """
    safe = metrics.copy()
    few = safe["n"] < MINIMUM_COUNT
    numbers = [column for column in safe if column not in _DESCRIBED]
    safe[numbers] = safe[numbers].astype(float)
    safe.loc[few, numbers] = np.nan
    if "flags" in safe:
        safe.loc[few, "flags"] = ""  # of a few, even that one of them is far outside is not said
    safe["age_min_years"] = np.floor(safe["age_min_years"])
    safe["age_max_years"] = np.ceil(safe["age_max_years"])
    return safe
