"""Tables in and out: CSV, TSV and Parquet as programs and people write them; a damaged or cut one is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from utils.common.files import replacing, write_text
from utils.common.parquet_tables import read_parquet_table
from utils.common.text_tables import is_one_of, read_text_table

# Read as text wherever they occur: a subject id that looks like a number keeps its leading zeros.
TEXT_COLUMNS = (
    "subject_id", "participant_id", "eid", "f.eid", "f_eid", "subject", "participant", "subjectid", "iid", "id", "mrid",
    "split", "family", "site", "note",
)  # fmt: skip


@dataclass(frozen=True)
class LocatedTable:
    """A table and where each of its rows stands in the file (`unit`: a line of text, or a row of Parquet)."""

    table: pd.DataFrame
    numbers: Sequence[int]
    unit: str

    def place(self, row: int) -> str:
        """ "line 7" for the row with this position."""
        return f"{self.unit} {self.numbers[row]}"


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

    Empty cells, `n/a`, `NA` and `NaN` are missing values; blank lines are passed over.

    Raises
    ------
    UserError
        No such file, not text (see `utils.common.text`), no column, a column twice, a row shorter or longer than
        the first line, wrong quotes, or a Parquet file that is damaged.
    """
    return read_located_table(path, text_columns).table


def read_located_table(
    path: str | Path, text_columns: tuple[str, ...] = TEXT_COLUMNS
) -> LocatedTable:
    """The same, with the line of every row."""
    path = Path(path)
    if path.suffix.lower() == ".parquet":
        table = read_parquet_table(path, text_columns)
        located = LocatedTable(table, range(1, len(table) + 1), "row")
    else:
        table, lines = read_text_table(path, text_columns)
        located = LocatedTable(table, lines, "line")
    for column in table.columns:
        if is_one_of(column, text_columns):
            table[column] = table[column].astype("string").str.strip().astype(object)
            table.loc[table[column].isna(), column] = None
    return located


def cell_text(value: Any) -> str:
    """The text of a cell: '' where it is missing, a whole number without its point, no blanks around it."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="backslashreplace")
    if value is None or (
        not isinstance(value, str) and pd.api.types.is_scalar(value) and pd.isna(value)
    ):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
