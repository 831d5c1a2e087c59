"""From columns as they were read to numbers and a kind: continuous, ordinal, binary or nominal.

The kind of a column is decided once, on all matched subjects, so that it is the same for women and men.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.association.choices import choice_indicators
from utils.association.dates import dates_of_column, year_fractions
from utils.association.dictionary import NOTHING_KNOWN, NidpDictionary, NidpFacts, column_groups
from utils.association.missing_codes import is_code, is_text_code, recoded
from utils.association.ukb_names import parse_ukb_name
from utils.association.wide_text_tables import MISSING_WORDS

# A column with this many distinct values or fewer is ordinal unless the dictionary says otherwise.
ORDINAL_LEVELS = 10
# A text column with more distinct values holds names or notes, not classes.
NOMINAL_LEVELS = 50
# So many values at the start show of most continuous columns that they are.
_VALUES_LOOKED_AT_FIRST = 512

AS_INDICATORS = "tested_as_indicators"
# Numbers with a comma, or pairs of codes: only who made the table knows.
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


@dataclass(frozen=True)
class DecodedColumn:
    """One column of the nIDP table as numbers; `levels` names the codes 0, 1, ... of a nominal one.

    reason: why it cannot be tested, empty where it may be. column: what of the table it comes from (`name` itself, or
    the field that an indicator of a code was made of). n_missing_codes: values that were codes of missing answers.
    with_missingness: whether 'is it missing' may be tested with it (of columns that miss the same subjects, one).
    """

    name: str
    kind: str
    values: NDArray[np.float64]
    levels: tuple[str, ...] = ()
    reason: str = ""
    column: str = ""
    n_missing_codes: int = 0
    with_missingness: bool = True

    @property
    def source(self) -> str:
        """The column or field of the table that it comes from."""
        return self.column or self.name


@dataclass(frozen=True)
class DecodingRules:
    """What is done to values before anything is computed from them.

    missing_codes: numbers that mean 'no answer' in every nIDP with classes; continuous ones keep them, because -1 may
    be a value there (the dictionary's own codes apply to every kind). recode: put UK Biobank codings in order; for
    tables as downloaded, not for those that FUNPACK has recoded already. minimum_cases: a code of a multiple-choice
    field that fewer subjects have gets no indicator.
    """

    missing_codes: tuple[float, ...] = ()
    recode: bool = False
    minimum_cases: int = 10


def decode_columns(
    nidps: pd.DataFrame,
    dictionary: NidpDictionary | None = None,
    rules: DecodingRules | None = None,
) -> list[DecodedColumn]:
    """Numbers and kind of every column, and the indicators of multiple-choice fields.

    Parameters
    ----------
    nidps : DataFrame
        One row a matched subject, nIDPs only; a multiple-choice field with all of its columns.
    dictionary : NidpDictionary, optional
        Kinds and codes of missing answers; kinds that it does not give are detected.
    rules : DecodingRules, optional
        Codes for the whole table, recoding.

    Returns
    -------
    list of DecodedColumn
        In the order of the table; what cannot be read as numbers or classes carries the reason.
    """
    dictionary, rules = dictionary or NidpDictionary(), rules or DecodingRules()
    out: list[DecodedColumn] = []
    for group in column_groups([str(name) for name in nidps.columns], dictionary):
        facts = dictionary.facts(group[0])
        if dictionary.is_multiple_choice(group[0]):
            out += _decode_choices(nidps[list(group)], facts, rules)
        else:
            out.append(decode_column(group[0], nidps[group[0]], facts, rules))
    return out


def decode_column(
    name: str,
    column: pd.Series,
    facts: NidpFacts = NOTHING_KNOWN,
    rules: DecodingRules | None = None,
) -> DecodedColumn:
    """Numbers and kind of one column; see `decode_columns`."""
    rules = rules or DecodingRules()
    numbers, n_codes = _as_numbers(column, facts)
    if numbers is None:
        return _decode_text(name, column, facts, rules)
    if _is_date_of_diagnosis(name):
        present = np.isfinite(numbers)
        return DecodedColumn(name, "binary", np.where(present, numbers > 0, np.nan))
    if rules.recode:
        numbers = recoded(numbers, facts.known_coding)
    table_codes = is_code(numbers, rules.missing_codes)
    answered = np.where(table_codes, np.nan, numbers) if table_codes.any() else numbers
    distinct = _first_distinct(answered)
    kind = _kind(facts.kind, distinct)
    if kind != "continuous":
        numbers, n_codes = answered, n_codes + int(table_codes.sum())
        distinct = _distinct(numbers)
    if kind == "binary":
        if distinct.size > 2:
            return DecodedColumn(name, kind, numbers, reason="more_than_two_values")
        return DecodedColumn(name, kind, _as_codes(numbers, distinct), n_missing_codes=n_codes)
    if kind == "nominal":
        levels = tuple(number_text(value) for value in distinct)
        codes = _as_codes(numbers, distinct)
        return DecodedColumn(name, kind, codes, levels, n_missing_codes=n_codes)
    return DecodedColumn(name, kind, numbers, n_missing_codes=n_codes)


def number_text(value: float) -> str:
    """A number in a name: whole ones with all their digits (a medication's 1140861958)."""
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


def _is_date_of_diagnosis(name: str) -> bool:
    """FUNPACK writes into the indicators of 41270 and 41271 the date of the diagnosis, and 0 for none."""
    parsed = parse_ukb_name(name)
    return parsed is not None and parsed.code != "" and parsed.field in ("41270", "41271")


def _kind(told: str, distinct: NDArray[np.float64]) -> str:
    """The dictionary's kind, or the one that the values show; its 'categorical' leaves them the choice of classes."""
    if told not in ("", "categorical"):
        return told
    if distinct.size <= 2:
        return "binary"
    if distinct.size <= ORDINAL_LEVELS:
        return "ordinal"
    return "nominal" if told else "continuous"


def _distinct(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.unique(numbers[np.isfinite(numbers)])


def _first_distinct(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """All distinct values of a column with few; of one with many, enough of them to see that."""
    first = _distinct(numbers[:_VALUES_LOOKED_AT_FIRST])
    return first if first.size > ORDINAL_LEVELS else _distinct(numbers)


def _as_numbers(column: pd.Series, facts: NidpFacts) -> tuple[NDArray[np.float64] | None, int]:
    """The column as finite floats and how many codes became missing; None for text that is not numbers throughout.

    Dates become the year and its fraction.
    """
    dates, n_codes = dates_of_column(column, facts.missing_codes)
    if dates is not None:
        return year_fractions(dates), n_codes
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        numbers = column.to_numpy(dtype=float, na_value=np.nan)
    else:
        present = _text(column).dropna()
        n_present = len(present)
        if n_present and pd.api.types.infer_dtype(column, skipna=True) == "boolean":
            return column.astype("boolean").to_numpy(dtype=float, na_value=np.nan), 0
        present = present[~is_text_code(present, facts.missing_codes)]
        parsed = pd.to_numeric(present, errors="coerce")
        if parsed.isna().any():
            return None, 0
        numbers = parsed.reindex(column.index).to_numpy(dtype=float, na_value=np.nan)
        n_codes = n_present - len(present)
    codes = is_code(numbers, facts.missing_codes)
    return np.where(np.isfinite(numbers) & ~codes, numbers, np.nan), n_codes + int(codes.sum())


def _text(column: pd.Series) -> pd.Series:
    """Text without blanks around it; missing are the words that are so in a table of text, and NaN however written."""
    text = column.astype("string").str.strip()
    return text.mask(text.isin(MISSING_WORDS) | text.str.fullmatch("[+-]?nan", case=False))


def _decode_text(
    name: str, column: pd.Series, facts: NidpFacts, rules: DecodingRules
) -> DecodedColumn:
    """Classes of a text column in alphabetical order; two are binary, more are nominal."""
    kind = "" if facts.kind == "categorical" else facts.kind
    text = _text(column)
    codes = is_text_code(text, (*facts.missing_codes, *rules.missing_codes))
    text = text.mask(codes)
    n_codes = int(codes.sum())
    levels = sorted(text.dropna().unique())
    nothing = np.full(len(column), np.nan)
    if levels and all(DECIMAL_COMMA.fullmatch(level) for level in levels):
        return DecodedColumn(name, kind or "continuous", nothing, reason="decimal_commas_not_read")
    if kind in ("continuous", "ordinal"):
        return DecodedColumn(name, kind, nothing, reason="text_not_numbers")
    if len(levels) > NOMINAL_LEVELS:
        return DecodedColumn(name, kind or "nominal", nothing, reason="text_not_classes")
    numbers = text.map({level: float(code) for code, level in enumerate(levels)})
    values = numbers.to_numpy(dtype=float, na_value=np.nan)
    if len(levels) <= 2 and kind != "nominal":
        return DecodedColumn(name, "binary", values, tuple(levels), n_missing_codes=n_codes)
    if kind == "binary":
        return DecodedColumn(name, kind, nothing, reason="more_than_two_values")
    return DecodedColumn(name, "nominal", values, tuple(levels), n_missing_codes=n_codes)


def _decode_choices(
    columns: pd.DataFrame, facts: NidpFacts, rules: DecodingRules
) -> list[DecodedColumn]:
    """A multiple-choice field: itself, not tested, and an indicator of each code that enough subjects have."""
    parsed = parse_ukb_name(str(columns.columns[0]))
    assert parsed is not None
    field = f"p{parsed.field}"
    codes: list[str | float] = [*facts.missing_codes, *rules.missing_codes]
    found = choice_indicators(columns, codes, rules.minimum_cases)
    answers = np.where(found.n_answers > 0, found.n_answers, np.nan)
    return [
        DecodedColumn(
            field, "multiple", answers, reason=AS_INDICATORS, n_missing_codes=found.n_missing_codes
        ),
        *(
            DecodedColumn(f"{field}={code}", "binary", values, column=field, with_missingness=False)
            for code, values in found.indicators
        ),
    ]


def _as_codes(numbers: NDArray[np.float64], distinct: NDArray[np.float64]) -> NDArray[np.float64]:
    """0, 1, ... in the order of the distinct values."""
    codes = np.searchsorted(distinct, numbers).astype(float)
    return np.where(np.isfinite(numbers), codes, np.nan)
