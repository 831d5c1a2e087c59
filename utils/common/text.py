"""Text files as editors, spreadsheets and copies leave them: one encoding and one line end, or the reason why not.

UTF-8 with or without a byte-order mark, and UTF-16 and UTF-32 with one (Excel's "Unicode text"); Unix, Windows and
old Mac line ends. What else a file may be, from a workbook to a damaged copy, is named.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from utils.common.errors import UserError

# Longest first: the mark of UTF-16 begins that of UTF-32.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# How files begin that are given for text by mistake, and what to do about each.
OTHER_KINDS_OF_FILE = (
    (b"PK\x03\x04", "is a workbook (.xlsx, .ods) or a zip archive, not text; export it as CSV"),
    (b"\xd0\xcf\x11\xe0", "is an old Excel workbook (.xls), not text; export it as CSV"),
    (b"\x1f\x8b", "is compressed (gzip); unpack it first"),
    (b"BZh", "is compressed (bzip2); unpack it first"),
    (b"\xfd7zXZ", "is compressed (xz); unpack it first"),
    (b"(\xb5/\xfd", "is compressed (zstd); unpack it first"),
    (b"PAR1", "is a Parquet table, not text; name it .parquet"),
    (b"\x93NUMPY", "is a NumPy array, not text; write it as CSV"),
    (b"{\\rtf", "is a rich text document; save it as plain text"),
    (b"%PDF", "is a PDF document; export the table it shows as CSV"),
    (b"<!doctype", "is a web page, perhaps that of a login; download the file itself"),
    (b"<html", "is a web page, perhaps that of a login; download the file itself"),
    (b"version https://git-lfs", "is a Git LFS pointer, not the file; fetch it with git lfs pull"),
)
_LONGEST_DETAIL = 200
_NAMES_SHOWN = 20


def read_utf8(path: Path, what: str) -> bytes:
    """The text of a file as UTF-8 without byte-order mark and with Unix line ends.

    `what` is what the file should be, for messages: "table", "list of subjects".

    Raises
    ------
    UserError
        No such file, a folder, not text, bytes that are not of its encoding, or NUL bytes; the line is named.
    """
    refuse_no_file(path, what)
    try:
        data = path.read_bytes()
    except (OSError, MemoryError) as error:
        raise UserError(f"{path}: cannot be read as a {what} ({reason(error)}).") from error
    lowered = data[:64].lstrip().lower()
    for start, said in OTHER_KINDS_OF_FILE:
        if data.startswith(start) or lowered.startswith(start):
            raise UserError(f"{path}: {said}.")
    mark, encoding = next(
        ((m, e) for m, e in BYTE_ORDER_MARKS if data.startswith(m)), (b"", "utf-8")
    )
    if encoding == "utf-8":
        data = data[len(mark) :]
        _refuse_other_bytes(data, path, len(mark))
    else:
        data = _from_wide(data, encoding, path)
    if b"\0" in data:
        line = _line_at(data, data.index(b"\0"))
        raise UserError(
            f"{path}: holds NUL bytes, the first in line {line}: a damaged copy, or UTF-16 without its "
            "byte-order mark; copy it again or save it as UTF-8."
        )
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data


def refuse_no_file(path: Path, what: str) -> None:
    """That a file is missing, a folder, or out of reach is named."""
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a folder, not a {what}.")
        if not path.is_file():
            raise UserError(f"{path}: no such {what}.")
    except OSError as error:
        raise UserError(f"{path}: cannot be read as a {what} ({reason(error)}).") from error


def reason(error: BaseException) -> str:
    """What a library says about its error, on one line and not at any length."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return shown(text, _LONGEST_DETAIL)


def shown(value: Any, longest: int = 40) -> str:
    """Something from a file for a message: on one line, printable, not at any length."""
    text = " ".join(str(value)[: 2 * longest].split())
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= longest else text[: longest - 3] + "..."


def listed(names: Iterable[Any]) -> str:
    """Column names for a message: the first of them, each not at any length."""
    names = list(names)
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(shown(name) for name in names[:_NAMES_SHOWN]) + more


def _refuse_other_bytes(data: bytes, path: Path, offset: int) -> None:
    if data.isascii():
        return
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.end == len(data) and error.reason == "unexpected end of data":
            raise UserError(
                f"{path}: ends in the middle of a character, so the file was cut; copy it again."
            ) from error
        raise UserError(
            f"{path}: is not UTF-8 text (byte {error.start + offset}, in line "
            f"{_line_at(data, error.start)}), perhaps Latin-1 or Windows-1252; save it as UTF-8."
        ) from error


def _from_wide(data: bytes, encoding: str, path: Path) -> bytes:
    try:
        return data.decode(encoding).encode("utf-8")
    except UnicodeError as error:
        raise UserError(
            f"{path}: begins as {encoding.upper()} text and is not ({reason(error)}): a file that was cut "
            "or damaged; copy it again or save it as UTF-8."
        ) from error


def _line_at(data: bytes, place: int) -> int:
    """The number of the line that holds a byte, whatever the line ends."""
    before = data[:place]
    return before.count(b"\n") + before.count(b"\r") - before.count(b"\r\n") + 1
