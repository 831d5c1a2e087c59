"""From columns as they were read to numbers and a kind: continuous, ordinal, binary or nominal.

The kind of a column is decided once, on all matched subjects, so that it is the same for women and men.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.common.errors import UserError

KINDS = ("continuous", "ordinal", "binary", "nominal")
# A column with this many distinct values or fewer is ordinal unless the dictionary says otherwise.
ORDINAL_LEVELS = 10
# A text column with more distinct values holds names or notes, not classes.
NOMINAL_LEVELS = 50


@dataclass(frozen=True)
class DecodedColumn:
    """One column of the nIDP table as numbers; `levels` names the codes 0, 1, ... of a nominal one."""

    name: str
    kind: str
    values: NDArray[np.float64]
    levels: tuple[str, ...] = ()
    reason: str = ""


def decode_columns(nidps: pd.DataFrame, kinds: dict[str, str]) -> list[DecodedColumn]:
    """Numbers and kind of every column.

    Parameters
    ----------
    nidps : DataFrame
        One row a subject, nIDPs only.
    kinds : dict
        nIDP -> kind, from the dictionary; columns that it does not name are detected.

    Returns
    -------
    list of DecodedColumn
        In the order of the table; a column that cannot be read as numbers or classes carries the reason.
    """
    return [decode_column(str(name), nidps[name], kinds.get(str(name))) for name in nidps.columns]


def decode_column(name: str, column: pd.Series, kind: str | None) -> DecodedColumn:
    """Numbers and kind of one column; see `decode_columns`."""
    numbers = _as_numbers(column)
    if numbers is None:
        return _decode_text(name, column, kind)
    numbers = np.where(np.isfinite(numbers), numbers, np.nan)
    distinct = np.unique(numbers[np.isfinite(numbers)])
    kind = kind or _detected_kind(distinct)
    if kind == "binary":
        if distinct.size > 2:
            return DecodedColumn(name, kind, numbers, reason="more_than_two_values")
        return DecodedColumn(name, kind, _as_codes(numbers, distinct))
    if kind == "nominal":
        levels = tuple(f"{value:g}" for value in distinct)
        return DecodedColumn(name, kind, _as_codes(numbers, distinct), levels)
    return DecodedColumn(name, kind, numbers)


def kinds_of_dictionary(dictionary: pd.DataFrame | None) -> dict[str, str]:
    """nIDP -> kind for the rows of the dictionary that give one.

    Raises
    ------
    UserError
        The dictionary has no column `nidp`, or a kind that does not exist.
    """
    if dictionary is None:
        return {}
    if "nidp" not in dictionary.columns:
        found = ", ".join(map(str, dictionary.columns))
        raise UserError(f"the nIDP dictionary has no column 'nidp'; columns found: {found}.")
    if "kind" not in dictionary.columns:
        return {}
    named = dictionary.dropna(subset=["kind"])
    kinds = {str(n): str(k).strip().lower() for n, k in zip(named["nidp"], named["kind"])}
    unknown = sorted({kind for kind in kinds.values() if kind and kind not in KINDS})
    if unknown:
        raise UserError(
            f"the nIDP dictionary gives the kind {', '.join(map(repr, unknown))}; "
            f"a kind is one of {', '.join(KINDS)}, or empty to have it detected."
        )
    return {name: kind for name, kind in kinds.items() if kind}


def _detected_kind(distinct: NDArray[np.float64]) -> str:
    if distinct.size <= 2:
        return "binary"
    return "ordinal" if distinct.size <= ORDINAL_LEVELS else "continuous"


def _as_numbers(column: pd.Series) -> NDArray[np.float64] | None:
    """The column as floats; None when it is text (or dates) that is not numbers throughout."""
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return column.to_numpy(dtype=float, na_value=np.nan)
    if pd.api.types.is_datetime64_any_dtype(column):
        return None
    present = column.dropna()
    try:
        numbers = pd.to_numeric(present.astype(str).str.strip(), errors="coerce")
    except (TypeError, ValueError):
        return None
    if numbers.isna().any():
        return None
    return numbers.reindex(column.index).to_numpy(dtype=float)


def _decode_text(name: str, column: pd.Series, kind: str | None) -> DecodedColumn:
    """Classes of a text column in alphabetical order; two are binary, more are nominal."""
    nothing = np.full(len(column), np.nan)
    if pd.api.types.is_datetime64_any_dtype(column):
        return DecodedColumn(name, kind or "continuous", nothing, reason="dates_not_numbers")
    text = column.astype("string").str.strip()
    levels = sorted(text.dropna().unique())
    if kind in ("continuous", "ordinal"):
        return DecodedColumn(name, kind, nothing, reason="text_not_numbers")
    if len(levels) > NOMINAL_LEVELS:
        return DecodedColumn(name, kind or "nominal", nothing, reason="text_not_classes")
    codes = text.map({level: float(code) for code, level in enumerate(levels)})
    values = codes.to_numpy(dtype=float, na_value=np.nan)
    if len(levels) <= 2 and kind != "nominal":
        return DecodedColumn(name, "binary", values, tuple(levels))
    if kind == "binary":
        return DecodedColumn(name, kind, nothing, reason="more_than_two_values")
    return DecodedColumn(name, "nominal", values, tuple(levels))


def _as_codes(numbers: NDArray[np.float64], distinct: NDArray[np.float64]) -> NDArray[np.float64]:
    """0, 1, ... in the order of the distinct values."""
    codes = np.searchsorted(distinct, numbers).astype(float)
    return np.where(np.isfinite(numbers), codes, np.nan)
