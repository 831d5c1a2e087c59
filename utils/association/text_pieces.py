"""A large file of text in pieces of whole rows, each row judged by the rules of `utils.common.text_tables`.

Only UTF-8, with or without a byte-order mark, is read in pieces; all line ends are.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from utils.common.errors import UserError
from utils.common.text import BYTE_ORDER_MARKS, OTHER_KINDS_OF_FILE, reason, refuse_no_file, shown
from utils.common.text_tables import header_of, records_of

# A line of names is shorter than this; so much is looked at to find it.
LONGEST_HEADER = 16_000_000


@dataclass(frozen=True)
class Piece:
    """Whole rows as text, each with all of its fields; `first_line` is where they begin in the file."""

    names: list[str]
    separator: str
    text: bytes
    n_rows: int
    first_line: int
    has_quotes: bool


def strict_pieces(path: Path, piece_bytes: int) -> Iterator[Piece]:
    """The rows of a table of text, about `piece_bytes` of text at a time; a table without rows is one empty piece.

    Raises
    ------
    UserError
        No such file, not text in UTF-8, no column, a column twice, a row shorter or longer than the line of names, or
        wrong quotes; the line is named.
    """
    refuse_no_file(path, "table")
    texts = _utf8(path, piece_bytes)
    start = b""
    for first in texts:
        start += first
        if len(start) >= LONGEST_HEADER:
            break
    head = header_of(start, path)
    n_needed = max((n for n, name in enumerate(head.names, start=1) if name), default=1)
    rest, line, n_pieces = start[head.end :], head.next_line, 0
    for text in _and_last(texts):
        data, at_end = rest + (text or b""), text is None
        piece, used, next_line = _piece(
            data, at_end, head.names, n_needed, head.separator, line, path
        )
        rest, line = data[used:], next_line
        if piece.n_rows or (at_end and not n_pieces):
            n_pieces += 1
            yield piece


def _and_last(texts: Iterator[bytes]) -> Iterator[bytes | None]:
    """The texts, then None for the end of the file."""
    yield from texts
    yield None


def _piece(
    data: bytes,
    at_end: bool,
    names: list[str],
    n_needed: int,
    separator: str,
    first_line: int,
    path: Path,
) -> tuple[Piece, int, int]:
    """The whole rows at the start of the data, the bytes they take, and the line after them."""
    end = len(data) if at_end else data.rfind(b"\n") + 1
    has_quotes = b'"' in data[:end]
    parts: list[bytes] = []
    used, next_line, n_rows = 0, first_line, 0
    records = records_of(data[:end], 0, first_line, separator, path)
    while True:
        try:
            record = next(records, None)
        except UserError as error:
            # A quoted value may go on behind the data; at the end of the file it never closes.
            if at_end or "never closed" not in str(error):
                raise
            break
        if record is None:
            break
        _refuse_misfit(record.n_fields, names, n_needed, record.line, path)
        row = data[used : record.end]
        used, next_line, n_rows = record.end, record.line + record.n_lines, n_rows + 1
        parts.append(_complete(row, record.fields, len(names) - record.n_fields, separator))
    text = b"".join(parts)
    return Piece(names, separator, text, n_rows, first_line, has_quotes), used, next_line


def _complete(row: bytes, fields: list[str], n_lacking: int, separator: str) -> bytes:
    """A row as it stands, or, with quotes or without its empty last fields, written anew in one way."""
    if fields:
        buffer = io.StringIO()
        writer = csv.writer(buffer, delimiter=separator, lineterminator="\n")
        writer.writerow([*fields, *[""] * n_lacking])
        return buffer.getvalue().encode("utf-8")
    row = re.sub(rb"\A(?: *\n)+" if separator == "\t" else rb"\A(?:[ \t]*\n)+", b"", row)
    ended = row if row.endswith(b"\n") else row + b"\n"
    return ended if not n_lacking else ended[:-1] + separator.encode() * n_lacking + b"\n"


def _refuse_misfit(n_fields: int, names: list[str], n_needed: int, line: int, path: Path) -> None:
    if n_fields > len(names):
        raise UserError(
            f"{path}: the row in line {line} has more fields than the {len(names)} column names ({n_fields} fields); "
            "put values that hold the separator into double quotes."
        )
    if n_fields < n_needed:
        raise UserError(
            f"{path}: the row in line {line} has fewer fields than the {len(names)} column names ({n_fields} fields); "
            "a missing value needs its separator all the same, or the file may have been cut."
        )


def _utf8(path: Path, piece_bytes: int) -> Iterator[bytes]:
    """The file without byte-order mark and with Unix line ends."""
    line, carried = 1, b""
    try:
        with path.open("rb") as handle:
            start = handle.read(64)
            _refuse_other_kinds(start, path)
            mark = next((m for m, _ in BYTE_ORDER_MARKS if start.startswith(m)), b"")
            handle.seek(len(mark))
            while data := handle.read(piece_bytes):
                data = carried + data
                carried = b""
                if data.endswith(b"\r"):  # the line feed may follow
                    data, carried = data[:-1], b"\r"
                whole = _whole_characters(data, path, line)
                data, carried = data[:whole], data[whole:] + carried
                if b"\0" in data:
                    raise UserError(
                        f"{path}: holds NUL bytes: a damaged copy, or UTF-16 without its byte-order mark; copy it "
                        "again or save it as UTF-8."
                    )
                if b"\r" in data:
                    data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
                line += data.count(b"\n")
                yield data
        if carried == b"\r":
            yield b"\n"
        elif carried:
            raise UserError(
                f"{path}: ends in the middle of a character, so the file was cut; copy it again."
            )
    except (OSError, MemoryError) as error:
        raise UserError(f"{path}: cannot be read as a table ({reason(error)}).") from error


def _refuse_other_kinds(start: bytes, path: Path) -> None:
    lowered = start.lstrip().lower()
    for mark, said in OTHER_KINDS_OF_FILE:
        if start.startswith(mark) or lowered.startswith(mark):
            raise UserError(f"{path}: {said}.")
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if start.startswith(mark)), "utf-8")
    if encoding != "utf-8":
        raise UserError(
            f"{path}: is {shown(encoding.upper())} text; a table of this size is read as UTF-8 alone: save it so, or "
            "as Parquet."
        )


def _whole_characters(data: bytes, path: Path, line: int) -> int:
    """How many bytes are whole characters; up to three at the end may belong to one that goes on."""
    if data.isascii():
        return len(data)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return error.start
        at = line + data.count(b"\n", 0, error.start)
        raise UserError(
            f"{path}: is not UTF-8 text (in line {at}), perhaps Latin-1 or Windows-1252; save it as UTF-8."
        ) from error
    return len(data)
