"""Reading tables and writing results: beside, flushed, renamed, so that a killed run never harms a finished file.

Every result of the program is written through `replacing`. A run that dies leaves the old file whole and a
temporary file beside it, which `clear_leftovers` removes at the next start.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import math
import os
import platform
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd

from utils.common.errors import UserError

_HOST = hashlib.sha256(platform.node().encode("utf-8")).hexdigest()[:8]
LEFTOVER_PATTERN = re.compile(r"^\..+\.writing-([0-9a-f]{8})-(\d+)$")
# Whether a process of another machine lives cannot be known here; after a day its file is a leftover.
FOREIGN_LEFTOVER_S = 86_400.0
# Read as text wherever they occur: a subject id that looks like a number keeps its leading zeros.
TEXT_COLUMNS = (
    "subject_id", "participant_id", "eid", "f.eid", "subject", "id", "mrid",
    "split", "family", "site", "note",
)  # fmt: skip

# What was written is read, to the last bit: pandas 3.1 does so by itself and deprecates the word.
_PANDAS = tuple(int(part) for part in pd.__version__.split(".")[:2])
_EXACT_FLOATS: dict[str, Any] = {} if _PANDAS >= (3, 1) else {"float_precision": "round_trip"}


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; at success flush it to disk and rename it to `path`.

    Raises
    ------
    UserError
        The disk is full, the quota is used up or the folder cannot be written to; `path` is as it was.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}.writing-{_HOST}-{os.getpid()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        _remove(temporary)
        raise UserError(_why_not_written(path, error)) from error
    except BaseException:
        _remove(temporary)
        raise


def _remove(temporary: Path) -> None:
    """Remove it if it is there; that this fails is not worth hiding why the write failed."""
    with suppress(OSError):
        temporary.unlink()


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable; file systems without folder handles are left as they are."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass  # some network file systems refuse to flush a folder; the file itself is flushed
    finally:
        os.close(handle)


def _why_not_written(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{path}: the disk is full or the quota used up; nothing was changed. Free space and run again."
    return f"{path}: cannot be written ({error.strerror or error}). Check the folder and its permissions."


def clear_leftovers(folder: str | Path) -> list[Path]:
    """Remove temporary files of runs that no longer live, below `folder`; return what was removed."""
    removed = []
    for path in Path(folder).rglob(".*.writing-*"):
        match = LEFTOVER_PATTERN.match(path.name)
        with suppress(FileNotFoundError):  # its writer finished, or another run clears as well
            if match and path.is_file() and _is_leftover(path, *match.groups()):
                path.unlink()
                removed.append(path)
    return removed


def _is_leftover(path: Path, host: str, process_id: str) -> bool:
    if host == _HOST:
        return not _is_alive(int(process_id))
    return time.time() - path.stat().st_mtime > FOREIGN_LEFTOVER_S


def _is_alive(process_id: int) -> bool:
    if process_id == os.getpid():
        return False
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def write_bytes(data: bytes, path: str | Path) -> None:
    """Write bytes beside `path` and rename."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(text: str, path: str | Path) -> None:
    """Write UTF-8 text with Unix line ends beside `path` and rename."""
    write_bytes(text.encode("utf-8"), path)


def write_json(content: Any, path: str | Path) -> None:
    """Write JSON (indent 2, NaN and infinity as null, NumPy values as plain ones) beside `path` and rename."""
    write_text(
        json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n", path
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a missing or damaged one is named."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}).") from error


def write_table(table: pd.DataFrame, path: str | Path, decimals: int | None = 6) -> None:
    """Write a table as .csv, .tsv or .parquet (zstd, page checksums), by the ending of `path`.

    `decimals` rounds floating point columns of text tables (None keeps every digit); Parquet always keeps all.
    """
    path = Path(path)
    if path.suffix == ".parquet":
        with replacing(path) as temporary:
            table.to_parquet(temporary, index=False, compression="zstd", write_page_checksum=True)
        return
    separator = "\t" if path.suffix == ".tsv" else ","
    rounded = table if decimals is None else table.round(decimals)
    write_text(rounded.to_csv(index=False, sep=separator, lineterminator="\n"), path)


def read_table(path: str | Path, text_columns: tuple[str, ...] = TEXT_COLUMNS) -> pd.DataFrame:
    """Read a CSV, TSV, semicolon-separated or Parquet table; ids stay text, a byte-order mark is dropped.

    Empty cells, `n/a`, `NA` and `NaN` are missing values.

    Raises
    ------
    UserError
        No such file, not UTF-8 text, no column, a column twice, or a row longer than the first line.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such table.")
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            table = _read_text_table(path)
    except UserError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8 CSV."
        ) from error
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise UserError(f"{path}: cannot be read as a table ({str(error).strip()}).") from error
    table.columns = [str(column).strip() for column in table.columns]
    for column in table.columns:
        if column.lower() in text_columns:
            table[column] = table[column].astype("string").str.strip().astype(object)
            table.loc[table[column].isna(), column] = None
    return table


def _read_text_table(path: Path) -> pd.DataFrame:
    text = path.read_text(encoding="utf-8-sig")
    header = text.split("\n", 1)[0].rstrip("\r")
    if not header.strip():
        raise UserError(f"{path}: is empty; a table begins with a line of column names.")
    separator = max("\t;,", key=header.count) if any(s in header for s in "\t;,") else ","
    names = [
        name.strip()
        for name in next(csv.reader([header], delimiter=separator, skipinitialspace=True))
    ]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"{path}: column names occur twice: {', '.join(repeated)}.")
    texts = {name: str for name in names if name.lower() in TEXT_COLUMNS}
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # it would drop what is too much
        try:
            return pd.read_csv(
                io.StringIO(text),
                sep=separator,
                names=names,
                skiprows=1,
                index_col=False,
                skipinitialspace=True,
                dtype=texts,
                low_memory=False,
                **_EXACT_FLOATS,
            )
        except pd.errors.ParserWarning as error:
            raise UserError(
                f"{path}: rows have more fields than the {len(names)} column names of the first line; "
                "put values that hold the separator into double quotes."
            ) from error
