"""Values that mean "no answer", and values of a UK Biobank coding that stand out of their order.

A code belongs to a coding: -1 is "do not know" in one field and a temperature in another. So codes come from the
dictionary (its own `missing_codes`, or the field's coding), and codes for the whole table reach only nIDPs with
classes.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.common.errors import UserError

CODINGS = Path(__file__).with_name("ukb_codings.tsv")
ABOVE, BELOW = "above", "below"


@dataclass(frozen=True)
class Coding:
    """One UK Biobank coding: its codes of missing answers, and (value, what it becomes) of misplaced ones."""

    missing: tuple[str, ...] = ()
    recoded: tuple[tuple[float, str], ...] = ()


@cache
def ukb_codings() -> dict[str, Coding]:
    """Coding -> what is known of it, from the table beside this file (its source stands in its head)."""
    lines = [
        line
        for line in CODINGS.read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    return {
        row["coding"]: Coding(
            tuple(filter(None, row["missing"].split(","))),
            tuple(
                (float(raw), new)
                for raw, new in zip(row["raw"].split(","), row["new"].split(","))
                if raw
            ),
        )
        for row in csv.DictReader(lines, delimiter="\t")
    }


def parse_codes(text: str) -> tuple[str, ...]:
    """ "-1, -3; 99" -> ("-1", "-3", "99"): codes are separated by commas, semicolons, bars or blanks."""
    return tuple(dict.fromkeys(filter(None, re.split(r"[,;|\s]+", str(text).strip()))))


def parse_number_codes(text: str) -> tuple[float, ...]:
    """The codes of the setting `missing_codes`, which are numbers.

    Raises
    ------
    UserError
        One of them is not a number.
    """
    codes = parse_codes(text)
    numbers = tuple(number for code in codes if (number := _number(code)) is not None)
    if len(numbers) < len(codes):
        wrong = next(code for code in codes if _number(code) is None)
        raise UserError(
            f"missing_codes holds {wrong!r}, which is not a number; write numbers with commas between them, such as "
            "-1, -3, -818. Codes that are text go into the column missing_codes of the dictionary."
        )
    return numbers


def is_code(values: NDArray[np.float64], codes: Iterable[str | float]) -> NDArray[np.bool_]:
    """Which numbers (S,) are one of the codes."""
    numbers = [number for code in codes if (number := _number(code)) is not None]
    return np.isin(values, numbers) if numbers else np.zeros(values.shape, dtype=bool)


def is_text_code(values: pd.Series, codes: Sequence[str | float]) -> NDArray[np.bool_]:
    """Which texts (S,) are one of the codes, as written or as the same number (-3 and -3.0)."""
    if not codes:
        return np.zeros(len(values), dtype=bool)
    written = values.isin([str(code) for code in codes]).to_numpy(dtype=bool, na_value=False)
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    return written | is_code(numbers, codes)


def recoded(values: NDArray[np.float64], coding: Coding) -> NDArray[np.float64]:
    """Values (S,) in the order that their meaning has: "less than once a week" (-10) becomes 0.5.

    All values change at once, so that a coding may exchange two of them; `above` and `below` look at the others alone.
    """
    if not coding.recoded:
        return values
    concerned = np.isin(values, [raw for raw, _ in coding.recoded])
    if not concerned.any():
        return values
    others = values[np.isfinite(values) & ~concerned]
    out = values.copy()
    for raw, new in coding.recoded:
        out[values == raw] = _new_value(new, others)
    return out


def _new_value(new: str, others: NDArray[np.float64]) -> float:
    if new == ABOVE:
        return float(others.max()) + 1.0 if others.size else np.nan
    if new == BELOW:
        return max(float(others.min()) - 1.0, 0.0) if others.size else np.nan
    return float(new)


def _number(code: str | float) -> float | None:
    """The finite number that a code is; None for text (among it "nan", which is no value)."""
    try:
        number = float(code)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
