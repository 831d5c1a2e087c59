"""Tables of nIDPs of any width, read a block of columns at a time.

The same table as CSV, TSV or Parquet gives the same values. A small table of text is read at once; a Parquet table is
read where it lies; a large table of text is converted first, once, below a folder that goes when the table is closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.association.recognition import as_subject_ids, refuse_repeated_subjects, subject_column
from utils.association.wide_parquet_tables import WideParquetTable
from utils.association.wide_text_tables import WideTextTable
from utils.common.errors import UserError
from utils.common.tables import TEXT_COLUMNS, read_table
from utils.common.text import listed

# Text takes about four times its size in memory as a table.
MEMORY_PER_BYTE_OF_TEXT = 4
# Beyond this a table of text is converted even where memory is plentiful: reading it at once is no faster.
LARGEST_TEXT_READ_AT_ONCE = 200_000_000


class Source(Protocol):
    """Where the columns come from: names in the order of the table, and the values of some of them."""

    @property
    def columns(self) -> list[str]: ...

    def read(self, columns: Sequence[str]) -> pd.DataFrame: ...

    def subject_ids(self, column: str) -> list[str]: ...

    def close(self) -> None: ...


class PhenotypeTable(AbstractContextManager["PhenotypeTable"]):
    """A table of nIDPs with a row a subject.

    columns: names in the order of the table, without the subject's. subject_ids: texts, each once, in the order of the
    table; rows without an id are passed over, and so are unnamed columns (the index that a program wrote).
    """

    def __init__(self, source: Source, what: str = "nIDPs"):
        self._source = source
        subjects = subject_column(source.columns, what)
        ids = source.subject_ids(subjects)
        refuse_repeated_subjects(ids, what)
        self.columns = [name for name in source.columns if name and name != subjects]
        self._rows = np.flatnonzero(np.array([identifier != "" for identifier in ids], dtype=bool))
        self.subject_ids = [ids[row] for row in self._rows]
        self._known = frozenset(self.columns)

    def read(self, columns: Sequence[str], rows: NDArray[np.intp] | None = None) -> pd.DataFrame:
        """Some columns of the subjects at `rows` (positions in `subject_ids`; None: all), in that order.

        The type of a column is decided by all of its values, whichever rows are wanted.

        Raises
        ------
        UserError
            A column that the table does not have, or a damaged file.
        """
        unknown = [name for name in columns if name not in self._known]
        if unknown:
            raise UserError(f"the table of nIDPs has no column {listed(unknown)}.")
        table = self._source.read(columns)
        chosen = self._rows if rows is None else self._rows[rows]
        return table.iloc[chosen].reset_index(drop=True)

    def close(self) -> None:
        """Close the file and remove what was converted."""
        self._source.close()

    def __exit__(self, *exception: object) -> None:
        self.close()


class _InMemory:
    """A table that was read at once."""

    def __init__(self, table: pd.DataFrame):
        self._table = table.set_axis([str(name) for name in table.columns], axis=1)

    @property
    def columns(self) -> list[str]:
        return list(self._table.columns)

    def read(self, columns: Sequence[str]) -> pd.DataFrame:
        return self._table[list(columns)]

    def subject_ids(self, column: str) -> list[str]:
        return as_subject_ids(self._table[column])

    def close(self) -> None:
        return None


def table_in_memory(table: pd.DataFrame, what: str = "nIDPs") -> PhenotypeTable:
    """A table that is in memory already.

    Raises
    ------
    UserError
        No subject column, a subject on several rows, or a name that two columns bear.
    """
    names = pd.Index([str(name) for name in table.columns])
    if not names.is_unique:
        raise UserError(f"column names occur twice: {listed(names[names.duplicated()].unique())}.")
    return PhenotypeTable(_InMemory(table), what)


def open_phenotypes(
    path: str | Path,
    memory_gb: float = 4.0,
    scratch: str | Path | None = None,
    what: str = "nIDPs",
    largest_text_at_once: int = LARGEST_TEXT_READ_AT_ONCE,
) -> PhenotypeTable:
    """Open a CSV, TSV, semicolon-separated or Parquet table of any width; use it in a `with` statement.

    Parameters
    ----------
    path : path
        The table; Parquet by its ending, else text.
    memory_gb : float
        What converting and reading may take, in 10^9 bytes. A read takes the columns asked for besides.
    scratch : path, optional
        Folder for the conversion of a large table of text (about a third of its size); None: the folder of temporary
        files of the system.
    what : str
        What the table holds, for messages.
    largest_text_at_once : int
        Bytes of text up to which a table is read at once, where memory allows.

    Raises
    ------
    UserError
        No such file, damaged, not a table (see `utils.common.tables.read_table`), no subject column, or a subject on
        several rows.
    """
    path = Path(path)
    memory_bytes = int(memory_gb * 1e9)
    source: Source
    if path.suffix.lower() == ".parquet":
        source = WideParquetTable(path)
    elif not path.is_file() or path.stat().st_size <= min(
        largest_text_at_once, memory_bytes // MEMORY_PER_BYTE_OF_TEXT
    ):
        source = _InMemory(read_table(path, _subject_columns_as_text()))
    else:
        source = WideTextTable(path, memory_bytes, scratch)
    try:
        return PhenotypeTable(source, what)
    except BaseException:
        source.close()
        raise


def _subject_columns_as_text() -> tuple[str, ...]:
    """Ids keep their leading zeros; nIDPs named like other text columns (site) are read as what they hold."""
    return tuple(name for name in TEXT_COLUMNS if name not in ("split", "family", "site", "note"))
