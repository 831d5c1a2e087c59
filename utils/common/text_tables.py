"""Tables of text: their separator, quotes and rows, every row as long as the first line says."""

from __future__ import annotations

import csv
import io
import re
import sys
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from utils.common.errors import UserError
from utils.common.messages import warn
from utils.common.text import listed, read_utf8, reason

SEPARATORS = "\t;,"
# So many rows must agree before a shorter last field without line end is worth a warning.
ROWS_TO_JUDGE_THE_LAST = 20

# What was written is read, to the last bit: pandas 3.1 does so by itself and deprecates the word.
_PANDAS = tuple(int(part) for part in pd.__version__.split(".")[:2])
_EXACT_FLOATS: dict[str, Any] = {} if _PANDAS >= (3, 1) else {"float_precision": "round_trip"}


def read_text_table(
    path: Path, text_columns: tuple[str, ...]
) -> tuple[pd.DataFrame, Sequence[int]]:
    """The table of a text file, and the line of each of its rows."""
    data = read_utf8(path, "table")
    header = header_of(data, path)
    lines = _lines_of_rows(data, header, path)
    names = [name or f"\0{place}" for place, name in enumerate(header.names, start=1)]
    try:
        table = pd.read_csv(
            io.BytesIO(data[header.end :]),
            sep=header.separator,
            header=None,
            names=names,
            index_col=False,
            skipinitialspace=True,
            dtype={name: str for name in names if is_one_of(name, text_columns)},
            low_memory=False,
            **_EXACT_FLOATS,
        )
    except (ValueError, OverflowError, MemoryError) as error:
        raise UserError(f"{path}: cannot be read as a table ({reason(error)}).") from error
    if len(table) != len(lines):
        raise UserError(
            f"{path}: cannot be read as a table ({len(lines)} rows by their lines, {len(table)} by their "
            "fields); look at its quotes and line ends."
        )
    return _with_unnamed_columns(table, path), lines


def is_one_of(name: str, names: tuple[str, ...]) -> bool:
    """Whether a column bears one of the names, in any case and with any signs between its words ("Subject ID")."""
    lower = name.strip().lower()
    return lower in names or re.sub(r"[^a-z0-9]+", "_", lower).strip("_") in names


@dataclass(frozen=True)
class _Header:
    """The column names, what separates them, where they end (byte) and the number of the line after them."""

    names: list[str]
    separator: str
    end: int
    next_line: int


def header_of(data: bytes, path: Path) -> _Header:
    """The line of column names of a table in UTF-8, blank lines before it passed over."""
    position, number, separators = 0, 1, SEPARATORS
    while position < len(data):
        end = data.find(b"\n", position) + 1 or len(data)
        line = data[position:end].decode("utf-8")
        chosen = re.fullmatch(r"sep=([;,|:\t])\s*", line, re.IGNORECASE)
        if chosen and number == 1:  # a line for Excel before the names
            separators = chosen.group(1)
        elif line.strip(" \t\n"):
            return _header_at(data, position, number, separators, path)
        position, number = end, number + 1
    raise UserError(f"{path}: is empty; a table begins with a line of column names.")


def _header_at(data: bytes, position: int, number: int, separators: str, path: Path) -> _Header:
    """The header that begins at a byte, by the separator that makes most columns of it."""
    problem, best = None, None
    for separator in separators:
        try:
            record = next(records_of(data, position, number, separator, path))
        except UserError as error:
            problem = problem or error
            continue
        if best is None or record.n_fields > len(best.names):
            text = data[position : record.end].decode("utf-8").rstrip("\n")
            names = [name.strip() for name in record.fields or text.split(separator)]
            best = _Header(names, separator, record.end, record.line + record.n_lines)
    if best is None:
        raise problem or UserError(f"{path}: line {number} cannot be read as column names.")
    if not any(best.names):
        raise UserError(f"{path}: line {number} has separators and no column names.")
    if len(best.names) == 1 and separators == SEPARATORS:
        best = replace(best, separator=",")
    refuse_repeated([name for name in best.names if name], path)
    return best


class _Record(NamedTuple):
    """One row of text: its first line, how many lines it takes and where it ends (byte)."""

    line: int
    n_lines: int
    end: int
    n_fields: int
    last_length: int
    fields: list[str]  # only where quotes are in it: otherwise splitting is enough


def records_of(
    data: bytes, position: int, number: int, separator: str, path: Path
) -> Iterator[_Record]:
    """Every record that is not blank, by the rules of `csv` with right quotes."""
    # Shares the bytes; a line at a time keeps the memory at the file's size.
    handle = io.BytesIO(data)
    handle.seek(position)
    mark, blank = separator.encode("utf-8"), b" \n" if separator == "\t" else b" \t\n"
    taken: list[bytes] = []

    def lines() -> Iterator[str]:
        """The first line, and those after it that a quoted field goes on in."""
        yield _tidy_quotes(taken[0], mark)
        for line in handle:
            taken.append(line)
            yield _tidy_quotes(line, mark)

    for line in handle:
        taken[:] = [line]
        if b'"' in line:
            try:
                fields = next(
                    csv.reader(lines(), delimiter=separator, skipinitialspace=True, strict=True)
                )
            except csv.Error as error:
                raise UserError(_wrong_quotes(path, number, error)) from error
            position += sum(map(len, taken))
            yield _Record(number, len(taken), position, len(fields), len(fields[-1]), fields)
        else:
            position += len(line)
            if line.strip(blank):
                last_length = len(line.rstrip(b"\n")) - line.rfind(mark) - 1
                yield _Record(number, 1, position, line.count(mark) + 1, last_length, [])
        number += len(taken)


def _tidy_quotes(line: bytes, separator: bytes) -> str:
    """Without the blanks between a closing quote and the separator, which the strict rules do not know."""
    return re.sub(rb'" +(?=' + re.escape(separator) + rb"|\n|$)", b'"', line).decode("utf-8")


def _wrong_quotes(path: Path, number: int, error: csv.Error) -> str:
    if "unexpected end of data" in str(error):
        return (
            f"{path}: the double quote that opens a value in line {number} is never closed; the file may have "
            "been cut, or the quote be a stray one."
        )
    if "field limit" in str(error):
        return (
            f"{path}: a value in line {number} is longer than {csv.field_size_limit():,} characters; look for "
            "a double quote that is not closed."
        )
    return (
        f"{path}: line {number} has text after a closing double quote; write a quote inside a value twice, "
        "or remove the stray one."
    )


def _lines_of_rows(data: bytes, header: _Header, path: Path) -> Sequence[int]:
    """The line of every row; rows that do not fit the header are an error."""
    n_names = len(header.names)
    n_needed = max((n for n, name in enumerate(header.names, start=1) if name), default=1)
    lines, short, long = array("q"), _Misfits(), _Misfits()
    shortest, last = sys.maxsize, 0
    for record in records_of(data, header.end, header.next_line, header.separator, path):
        if record.n_fields > n_names:
            long.add(record)
        elif record.n_fields < n_needed:
            short.add(record)
        shortest = min(shortest, last) if lines else shortest
        last = record.last_length
        lines.append(record.line)
    names = f"the {n_names} column names of line {header.next_line - 1}"
    if long.n:
        raise UserError(
            f"{path}: {long.n} row(s) have more fields than {names}, the first in line {long.line} "
            f"({long.n_fields} fields); put values that hold the separator into double quotes."
        )
    if short.n == 1 and short.line == lines[-1]:
        raise UserError(
            f"{path}: the last row (line {short.line}) has {short.n_fields} of {n_names} fields; the file may "
            "have been cut: compare it with the original."
        )
    if short.n:
        raise UserError(
            f"{path}: {short.n} row(s) have fewer fields than {names}, the first in line {short.line} "
            f"({short.n_fields} fields); a missing value needs its separator all the same."
        )
    if not data.endswith(b"\n") and last < shortest and len(lines) > ROWS_TO_JUDGE_THE_LAST:
        warn(
            f"{path}: the last line has no line end and its last value is shorter than that of every other "
            "row; look whether the file was cut."
        )
    return lines


@dataclass
class _Misfits:
    """How many rows do not fit, and the first of them."""

    n: int = 0
    line: int = 0
    n_fields: int = 0

    def add(self, record: _Record) -> None:
        if not self.n:
            self.line, self.n_fields = record.line, record.n_fields
        self.n += 1


def _with_unnamed_columns(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A single unnamed column stays (an index); more of them, as spreadsheets leave them, must be empty."""
    unnamed = [name for name in table.columns if name.startswith("\0")]
    filled = [name for name in unnamed if table[name].notna().any()]
    if len(filled) > 1:
        raise UserError(
            f"{path}: columns {listed(name[1:] for name in filled)} hold values and have "
            "no name; name them or remove them."
        )
    kept = filled if len(unnamed) > 1 else unnamed
    table = table.drop(columns=[name for name in unnamed if name not in kept])
    return table.rename(columns={name: "" for name in kept})


def refuse_repeated(names: list[str], path: Path) -> None:
    """A name that two columns bear would hide one of them."""
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise UserError(f"{path}: column names occur twice: {listed(repeated)}.")
