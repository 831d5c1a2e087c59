"""Multiple-choice fields (diagnoses, medications): from columns of codes to an indicator of each code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.association.missing_codes import is_text_code


@dataclass(frozen=True)
class Choices:
    """(code, 0/1 values (S,)) in the order of the codes; how many different codes each subject has; codes dropped."""

    indicators: list[tuple[str, NDArray[np.float64]]]
    n_answers: NDArray[np.int64]
    n_missing_codes: int


def choice_indicators(
    columns: pd.DataFrame, missing_codes: Sequence[str | float], minimum_cases: int
) -> Choices:
    """An indicator of each code that at least `minimum_cases` subjects have in any of the columns.

    The columns are those of one field, across visits and array indices. A subject without any entry has no code, as
    with diagnoses, and so gets 0. A cell may hold one code, or several joined by bars or in brackets.

    Source: `binariseCategorical(acrossVisits=True, acrossInstances=True)` of fmrib-unpack 4.0.1 and its
    removeIfSparse(mincat=10) (code read).
    """
    rows, codes, n_missing = [], [], 0
    for name in columns.columns:
        text = _codes_as_text(columns[name])
        dropped = is_text_code(text, missing_codes)
        n_missing += int(dropped.sum())
        rows.append(text.index.to_numpy()[~dropped])
        codes.append(text.to_numpy(dtype=object)[~dropped])
    code_of, known = pd.factorize(np.concatenate(codes))
    pairs = np.unique(np.concatenate(rows) * max(len(known), 1) + code_of)
    row_of, code_of = np.divmod(pairs, max(len(known), 1))
    n_cases = np.bincount(code_of, minlength=len(known))
    ends = np.cumsum(n_cases)
    rows_by_code = row_of[np.argsort(code_of, kind="stable")]
    indicators = []
    for k in sorted(range(len(known)), key=lambda k: _order(str(known[k]))):
        if n_cases[k] >= minimum_cases:
            values = np.zeros(len(columns))
            values[rows_by_code[ends[k] - n_cases[k] : ends[k]]] = 1.0
            indicators.append((str(known[k]), values))
    return Choices(indicators, np.bincount(row_of, minlength=len(columns)), n_missing)


def _codes_as_text(column: pd.Series) -> pd.Series:
    """Every code in a column as text, indexed by the position of its subject; without the empty cells."""
    present = column.reset_index(drop=True).dropna()
    if pd.api.types.is_numeric_dtype(present):
        numbers = present.to_numpy(dtype=float)
        whole = numbers == np.round(numbers)
        text = [str(int(v)) if w else f"{v:g}" for v, w in zip(numbers, whole)]
        return pd.Series(text, index=present.index, dtype=object)
    text = present.astype("string").str.strip()
    if text.str.contains(r"^\[|\|", regex=True).any():
        text = text.str.strip("[]").str.split(r"[|,]", regex=True).explode()
        text = text.str.strip(" '\"")
    text = text.str.replace(r"^(-?\d+)\.0+$", r"\1", regex=True)
    return text[text != ""].astype(object)


def _order(code: str) -> tuple[float, str]:
    """Numbers in their order, before texts in theirs."""
    try:
        return float(code), ""
    except ValueError:
        return np.inf, code
