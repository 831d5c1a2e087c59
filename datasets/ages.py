"""Ages as they come: what one value means in years, or why it cannot be used; arrays of ages (.npy)."""

from __future__ import annotations

import io
import math
import re
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from utils.common.errors import UserError
from utils.common.tables import cell_text
from utils.common.text import reason, refuse_no_file, shown

MISSING = ("", "n/a", "n.a.", "#n/a", "na", "nan", "none", "null", ".", "-", "-9999", "-999", "-99")
MISSING_CODES = (-9999.0, -999.0, -99.0)
AGE_RANGE_YEARS = (0.0, 120.0)

_NUMBER = r"[0-9]+(?:[.,][0-9]+)?"
_YEARS = r"(?:y|yr|yrs|years?|yo|y\.o\.|years? old)"
_CENSORED = re.compile(
    rf"(?:[<>≥≤]=? ?{_NUMBER}|{_NUMBER} ?\+|{_NUMBER} ?(?:and|or|&) ?(?:over|older|above|more|under|younger|below))"
    rf"(?: ?{_YEARS})?"
)
_RANGE = re.compile(rf"{_NUMBER} ?(?:-|–|to) ?{_NUMBER}(?: ?{_YEARS})?")
_DATE = re.compile(
    r"[0-9]{1,4}([-/.])[0-9]{1,2}\1[0-9]{1,4}(?:[ t][0-9:.]+)?"
    r"|[0-9]{1,2}[-. ]{1,2}[a-zäéû]{3,9}[-. ]{1,2}[0-9]{2,4}"
)
_OTHER_UNIT = re.compile(rf"{_NUMBER} ?(?:m|mo|mos|months?|w|wk|wks|weeks?|d|days?)")
_PLAIN = re.compile(
    rf"([+-]?(?:inf|infinity|(?:[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+)(?:e[+-]?[0-9]+)?))(?: ?{_YEARS})?"
)
# A comma before exactly three digits also groups thousands (days, say); any other says that it is decimal.
_EITHER_COMMA = re.compile(rf"[+-]?[1-9][0-9]{{0,2}},[0-9]{{3}}(?: ?{_YEARS})?")
_DECIMAL_COMMA = re.compile(
    rf"[+-]?(?:[0-9]+,(?:[0-9]{{1,2}}|[0-9]{{4,}})|0[0-9]*,[0-9]+)(?: ?{_YEARS})?"
)


def parse_ages(values: Iterable[Any]) -> list[tuple[float, str]]:
    """Every age in years with the reason where there is none; one clear decimal comma explains the others."""
    values = list(values)
    decimal_comma = any(
        isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value.strip().lower())
        for value in values
    )
    return [parse_age(value, decimal_comma) for value in values]


def parse_age(value: Any, decimal_comma: bool = False) -> tuple[float, str]:
    """An age in years, or NaN with the reason: `89+` is censored, not 89; `26,9` is 26.9.

    `26,925` may be 26.925 years or 26925 days: it is read only where other ages show that a comma is decimal.
    """
    text = cell_text(value).lower().replace("\N{MINUS SIGN}", "-")
    if text in MISSING:
        return math.nan, "no age"
    short = shown(text, 20)
    if _CENSORED.fullmatch(text):
        return math.nan, f"age {short} is censored"
    if _RANGE.fullmatch(text):
        return math.nan, f"age {short} is a range"
    if _DATE.fullmatch(text):
        return math.nan, f"age {short} is a date"
    if _OTHER_UNIT.fullmatch(text):
        return math.nan, f"age {short} is not in years"
    if _EITHER_COMMA.fullmatch(text) and not decimal_comma:
        return math.nan, f"age {short} has a comma that may be decimal or group thousands"
    number = _PLAIN.fullmatch(text)
    if not number:
        return math.nan, f"age {short!r} is not a number"
    age = float(number.group(1).replace(",", "."))
    if age in MISSING_CODES:
        return math.nan, "no age"
    if not AGE_RANGE_YEARS[0] <= age <= AGE_RANGE_YEARS[1]:
        return math.nan, f"age {age:g} lies outside {AGE_RANGE_YEARS[0]:g}-{AGE_RANGE_YEARS[1]:g}"
    return age, ""


def read_age_array(path: str | Path) -> list[Any]:
    """The values of an .npy array of ages, one an age.

    The header is compared with the size of the file before anything is allocated; nothing is unpickled.

    Raises
    ------
    UserError
        No such file, not an .npy array, of objects or anything but numbers and text, of two dimensions, or not
        as long as its header says.
    """
    path = Path(path)
    refuse_no_file(path, "file of ages")
    try:
        data = path.read_bytes()
    except (OSError, MemoryError) as error:
        raise UserError(f"{path}: cannot be read as an array of ages ({reason(error)}).") from error
    if data.startswith(b"PK\x03\x04"):
        raise UserError(
            f"{path}: is an archive of arrays (.npz); save the array of ages alone, with numpy.save."
        )
    shape, dtype, start = _array_header(data, path)
    if dtype.hasobject:
        raise UserError(
            f"{path}: holds pickled Python objects, which are not loaded; save the ages as numbers."
        )
    if dtype.kind not in "fiuUS" or not dtype.itemsize:
        raise UserError(
            f"{path}: is an array of {shown(dtype)}, not of ages in years; save the ages as numbers."
        )
    if sum(size != 1 for size in shape) > 1:
        raise UserError(
            f"{path}: is an array of {' x '.join(map(str, shape))} values; one age a subject is needed."
        )
    n_ages, n_bytes = math.prod(shape), len(data) - start
    if n_ages * dtype.itemsize > n_bytes:
        raise UserError(
            f"{path}: holds {n_bytes // dtype.itemsize:,} of the {shown(n_ages)} ages that its header names, "
            "so the file was cut or damaged; copy it again."
        )
    if n_ages * dtype.itemsize < n_bytes:
        raise UserError(
            f"{path}: holds more than the {n_ages:,} ages that its header names; a damaged header, or two "
            "arrays in one file: save the ages again."
        )
    values = np.frombuffer(data, dtype=dtype, offset=start)
    if (
        dtype.kind == "U" and values.size
    ):  # NumPy would make strings of them that Python cannot handle
        characters = values.view(np.dtype(np.uint32).newbyteorder(dtype.byteorder))
        if characters.max() > sys.maxunicode:
            raise UserError(
                f"{path}: holds text with impossible characters, so the file was damaged; copy it again."
            )
    return values.tolist()


def _array_header(data: bytes, path: Path) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, dtype and the byte at which the values begin."""
    handle = io.BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a header that Python 2 wrote is read as well
            version = np.lib.format.read_magic(handle)
            if version == (1, 0):
                shape, _, dtype = np.lib.format.read_array_header_1_0(handle)
            elif version == (2, 0):
                shape, _, dtype = np.lib.format.read_array_header_2_0(handle)
            else:
                raise ValueError(f"format version {version[0]}.{version[1]}")
        if any(isinstance(size, bool) or size < 0 for size in shape):
            raise ValueError(f"shape {shape}")
    except Exception as error:  # the header is a Python expression: damage makes any kind of error
        raise UserError(f"{path}: cannot be read as an array of ages ({reason(error)}).") from error
    return shape, dtype, handle.tell()
