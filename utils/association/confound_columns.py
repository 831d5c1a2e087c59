"""One column of the user's confounds: numbers or categories, gaps filled, outliers replaced, all of it noted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.association.confound_rules import ConfoundRules
from utils.association.recognition import normalised_name
from utils.association.transforms import outliers
from utils.common.errors import UserError

Array = NDArray[np.float64]

SEX_NAMES = ("sex", "gender", "sex_x_age", "sex_x_age_squared", "sex_age", "age_sex", "age_x_sex")
# With fewer different values a number is a code or a count: its rare values are rare, not wrong.
FEWEST_VALUES_FOR_OUTLIERS = 11
DAYS_PER_YEAR = 365.25
_ISO_DATE = r"\d{4}-\d{2}-\d{2}(?:[ T]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?)?"


@dataclass(frozen=True)
class ConfoundColumn:
    """A column of the table as the formula uses it, without gaps.

    levels: of a categorical column, (label, (S,) 0/1) by falling frequency, so that the first is the reference; empty
    for numbers. values: (S,) numbers; of no meaning for a categorical column. missing: (S,) where values are filled.
    """

    name: str
    values: Array
    levels: tuple[tuple[str, Array], ...]
    missing: NDArray[np.bool_]
    notes: tuple[str, ...] = ()

    @property
    def is_categorical(self) -> bool:
        return bool(self.levels)

    @property
    def is_empty(self) -> bool:
        """Whether no analysed subject has a value."""
        return bool(self.missing.all())


def is_categorical(name: str, column: pd.Series, rules: ConfoundRules) -> bool:
    """Whether a column holds categories: text that is no date, or numbers that the rules declare codes."""
    if name in rules.continuous:
        return False
    if normalised_name(name) in map(normalised_name, rules.categorical):
        return True
    return not _is_numeric(column) and not _is_date(column)


def refuse_unusable(table: pd.DataFrame, rules: ConfoundRules, one_sex: bool) -> None:
    """Stop with every unusable column named.

    A column without any value is unusable, but in the analysis of one sex it is left out instead: a confound of the
    other sex (see `refuse_empty` for a column that is empty in both).
    """
    problems = []
    for name in map(str, table.columns):
        column = table[name]
        share = float(_missing(column).mean()) if len(column) else 0.0
        if share == 1.0 and one_sex:
            continue
        if share > rules.maximum_missing:
            problems.append(
                f"confound '{name}' is missing in {share:.0%} of the analysed subjects "
                f"(limit {rules.maximum_missing:.0%}); fill it or leave it out"
            )
        elif is_categorical(name, column, rules):
            n_levels = column.nunique()
            if n_levels > rules.maximum_levels:
                problems.append(
                    f"confound '{name}' is text with {n_levels} different values "
                    f"(limit {rules.maximum_levels}); numbers need a decimal point, names have no place here"
                )
        elif not _is_numeric(column) and not _is_date(column):
            n_words = int((_numbers(column).isna() & ~_missing(column)).sum())
            if n_words:
                problems.append(
                    f"confound '{name}' is declared continuous, but {n_words} of its values are no numbers"
                )
    if problems:
        raise UserError("\n".join(problems))


def refuse_empty(table: pd.DataFrame) -> None:
    """Stop when a column has no value in either sex: both analyses would leave it out, each as the other's."""
    empty = (
        [str(name) for name in table.columns if _missing(table[name]).all()] if len(table) else []
    )
    if empty:
        raise UserError(
            f"the table of confounds has columns without any value in the analysed subjects: {', '.join(empty)}; "
            "fill them or leave them out."
        )


def read_column(
    name: str, column: pd.Series, rules: ConfoundRules, sites: NDArray[np.intp] | None = None
) -> ConfoundColumn:
    """A column of the table without gaps, and what was done to it.

    Numbers are filled with the median (of the site, where `sites` are given and the site has values), categories with
    the most frequent level. Dates become years.

    Parameters
    ----------
    name : str
        For notes and labels.
    column : Series of length S
        As read from the table.
    rules : ConfoundRules
        Which numbers are codes, and from where on a value is an outlier.
    sites : (S,) int or None
        Number of the site of each subject.
    """
    if is_categorical(name, column, rules):
        return _read_categories(name, column)
    return _read_numbers(name, column, rules, sites)


def _read_categories(name: str, column: pd.Series) -> ConfoundColumn:
    text = label_text(column)
    missing = text.isna().to_numpy(dtype=bool)
    counts = text.value_counts()
    ordered = sorted(counts.index, key=lambda level: (-counts[level], level))
    # The most frequent level is the reference, and stands for missing values.
    filled = text.fillna(ordered[0]) if ordered else text
    codes = pd.Categorical(filled, categories=ordered).codes
    levels = tuple(
        (f"{name}={level}", (codes == k).astype(float)) for k, level in enumerate(ordered)
    )
    notes = _filled_note(name, missing)
    if len(levels) == 1:
        notes = (*notes, f"confound '{name}': constant in this analysis, dropped")
    return ConfoundColumn(name, np.zeros(len(column)), levels, missing, notes)


def _read_numbers(
    name: str, column: pd.Series, rules: ConfoundRules, sites: NDArray[np.intp] | None
) -> ConfoundColumn:
    numbers = _numbers(column).to_numpy(dtype=float, na_value=np.nan)
    missing = ~np.isfinite(numbers)
    notes = _filled_note(name, missing)
    replaced = missing
    if rules.outlier_sd > 0.0 and np.unique(numbers[~missing]).size >= FEWEST_VALUES_FOR_OUTLIERS:
        far = outliers(numbers, rules.outlier_sd)
        replaced = missing | far
        if far.any():
            notes = (
                *notes,
                f"confound '{name}': {int(far.sum())} values beyond {rules.outlier_sd:g} robust SDs replaced by "
                f"the median{' of the site' if sites is not None else ''}",
            )
    if replaced.any():
        numbers = np.where(replaced, _medians(numbers, missing, sites), numbers)
    return ConfoundColumn(name, numbers, (), missing, notes)


def _medians(numbers: Array, missing: NDArray[np.bool_], sites: NDArray[np.intp] | None) -> Array:
    """The median of the present values at each subject's site; of all subjects for a site without values."""
    present = numbers[~missing]
    medians = np.full(len(numbers), np.median(present) if present.size else 0.0)
    if sites is not None:
        for site in np.unique(sites):
            there = sites == site
            of_site = numbers[there & ~missing]
            if of_site.size:
                medians[there] = np.median(of_site)
    return medians


def label_text(column: pd.Series) -> pd.Series:
    """Labels as text without blanks around them; whole numbers without ".0", nothing as missing."""
    if pd.api.types.is_float_dtype(column):
        numbers = column.to_numpy(dtype=float, na_value=np.nan)
        present = numbers[np.isfinite(numbers)]
        if np.array_equal(present, np.round(present)):
            column = pd.Series(
                [f"{v:.0f}" if np.isfinite(v) else None for v in numbers], index=column.index
            )
    text = column.astype("string").str.strip()
    return text.mask(text == "", pd.NA)


def _missing(column: pd.Series) -> NDArray[np.bool_]:
    """Where a column has no value; an infinite number is none."""
    if pd.api.types.is_float_dtype(column):
        return ~np.isfinite(column.to_numpy(dtype=float, na_value=np.nan))
    present = column if _is_numeric(column) or _is_date(column) else label_text(column)
    return present.isna().to_numpy(dtype=bool)


def _is_numeric(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)


def _is_date(column: pd.Series) -> bool:
    """Whether all values are dates, as 2016-05-31, with or without a time."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return True
    if _is_numeric(column):
        return False
    text = column.dropna().astype("string").str.strip()
    if text.empty or not bool(text.str.fullmatch(_ISO_DATE).all()):
        return False
    return bool(pd.to_datetime(text, format="ISO8601", errors="coerce").notna().all())


def _numbers(column: pd.Series) -> pd.Series:
    """Numbers of a column: as they are, dates as years, text that was declared continuous as it reads."""
    if _is_numeric(column):
        return column
    if _is_date(column):
        when = pd.to_datetime(column, format="ISO8601", utc=True)
        days = (when - pd.Timestamp("1970-01-01", tz="UTC")) / pd.Timedelta(days=1)
        return 1970.0 + days / DAYS_PER_YEAR
    return pd.to_numeric(column.astype("string").str.strip(), errors="coerce").astype(float)


def _filled_note(name: str, missing: NDArray[np.bool_]) -> tuple[str, ...]:
    n_missing = int(missing.sum())
    return (f"confound '{name}': {n_missing} missing values filled",) if n_missing else ()
