"""The confound matrix Z: age and age squared always, sex terms when sexes are pooled, and the user's table.

What is done to a column (filled, coded, dropped) is said in the notes, by column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.association.recognition import normalised_name
from utils.common.errors import UserError

Array = NDArray[np.float64]

SEX_NAMES = ("sex", "gender", "sex_x_age", "sex_x_age_squared", "sex_age", "age_sex", "age_x_sex")


@dataclass(frozen=True)
class ConfoundRules:
    """How the user's confounds are read.

    indicator_above: share missing from which an indicator of missingness is added beside the filled column.
    maximum_missing: share missing from which the run stops: most of such a column would be invented.
    maximum_levels: a text column with more levels stops the run: it holds names or numbers written as text.
    categorical: columns whose numbers are codes.
    """

    indicator_above: float = 0.01
    maximum_missing: float = 0.20
    maximum_levels: int = 100
    categorical: tuple[str, ...] = ("site", "centre", "center", "scanner", "batch", "protocol")


@dataclass(frozen=True)
class ConfoundMatrix:
    """Z of one analysis: values (S, K) complete, without the constant; names of its columns; notes."""

    values: Array
    names: tuple[str, ...]
    notes: tuple[str, ...]


def build_confounds(
    age_years: Array,
    sex: NDArray | None,
    table: pd.DataFrame | None,
    rules: ConfoundRules,
    one_sex: bool = False,
) -> ConfoundMatrix:
    """Z for one analysis.

    Age and age squared are always in Z: a linear age-bias correction of the delta then cannot change an association.
    They are built from age with mean 0 and SD 1 (the same space as raw age and its square, without the
    collinearity). With `sex`, sex, sex x age and sex x age squared are added. A confound is filled with its median
    (text: its most frequent level).

    Parameters
    ----------
    age_years : (S,) float
        Complete.
    sex : (S,) "female"/"male" or None
        Given when sexes are analysed together; None in a sex-specific analysis or where sex is not known.
    table : DataFrame or None
        The user's confounds, rows as in `age_years`.
    rules : ConfoundRules
        Limits.
    one_sex : bool
        A sex-specific analysis: sex terms of the table are dropped.

    Returns
    -------
    ConfoundMatrix
        Complete columns, with notes.

    Raises
    ------
    UserError
        A confound is missing in too many subjects or is text with too many levels; all such columns are named.
    """
    age = _standardised(age_years)
    columns: dict[str, Array] = {"age": age, "age_squared": age**2}
    notes: list[str] = []
    if sex is not None:
        male = _standardised((np.asarray(sex) == "male").astype(float))
        columns |= {"sex": male, "sex_x_age": male * age, "sex_x_age_squared": male * age**2}
    if table is not None:
        _refuse_unusable(table, rules)
        for name in table.columns:
            if one_sex and normalised_name(str(name)) in SEX_NAMES:
                notes.append(f"confound '{name}': a sex term, dropped in a sex-specific analysis")
                continue
            built, said = _build_column(str(name), table[name], rules)
            columns |= {f"confound:{key}": value for key, value in built.items()}
            notes.extend(said)
    values = np.column_stack(list(columns.values()))
    varying = np.ptp(values, axis=0) > 0 if len(values) else np.zeros(values.shape[1], dtype=bool)
    names = np.array(list(columns))
    notes.extend(f"{name}: constant in this analysis, dropped" for name in names[~varying])
    return ConfoundMatrix(values[:, varying], tuple(names[varying].tolist()), tuple(notes))


def _refuse_unusable(table: pd.DataFrame, rules: ConfoundRules) -> None:
    """Stop with every unusable column named."""
    problems = []
    for name in table.columns:
        column = table[name]
        missing = float(column.isna().mean()) if len(column) else 0.0
        if missing > rules.maximum_missing:
            problems.append(
                f"confound '{name}' is missing in {missing:.0%} of the analysed subjects "
                f"(limit {rules.maximum_missing:.0%}); fill it or leave it out"
            )
        elif _is_categorical(str(name), column, rules):
            n_levels = column.nunique()
            if n_levels > rules.maximum_levels:
                problems.append(
                    f"confound '{name}' is text with {n_levels} different values "
                    f"(limit {rules.maximum_levels}); numbers need a decimal point, names have no place here"
                )
    if problems:
        raise UserError("\n".join(problems))


def _is_categorical(name: str, column: pd.Series, rules: ConfoundRules) -> bool:
    if normalised_name(name) in rules.categorical:
        return True
    return not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column))


def _build_column(
    name: str, column: pd.Series, rules: ConfoundRules
) -> tuple[dict[str, Array], list[str]]:
    """Matrix columns and notes of one confound."""
    built: dict[str, Array] = {}
    notes = []
    if _is_categorical(name, column, rules):
        text = column.astype("string").str.strip()
        missing = text.isna().to_numpy(dtype=bool)
        counts = text.value_counts()
        levels = sorted(counts.index, key=lambda level: (-counts[level], level))
        # The most frequent level is the reference, and stands for missing values.
        for level in levels[1:]:
            built[f"{name}={level}"] = (text == level).fillna(False).to_numpy(dtype=float)
        if not built:
            notes.append(f"confound '{name}': constant in this analysis, dropped")
    else:
        numbers = column.to_numpy(dtype=float, na_value=np.nan)
        missing = ~np.isfinite(numbers)
        present = numbers[~missing]
        median = float(np.median(present)) if present.size else 0.0
        built[name] = np.where(missing, median, numbers)
    share = float(missing.mean()) if len(missing) else 0.0
    if share > 0:
        notes.append(f"confound '{name}': {int(missing.sum())} missing values filled")
    if share > rules.indicator_above:
        built[f"{name} is missing"] = missing.astype(float)
    return built, notes


def _standardised(values: Array) -> Array:
    centred = np.asarray(values, dtype=float) - np.mean(values)
    sd = float(np.std(centred))
    return centred / sd if sd > 0 else centred
