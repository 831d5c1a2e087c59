"""A Parquet table read where it lies, some columns at a time, with the checks of every Parquet table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from utils.common.errors import UserError
from utils.common.parquet_tables import exact_text, refuse_false_counts, refuse_other_names
from utils.common.text import reason, refuse_no_file, shown
from utils.common.text_tables import refuse_repeated

_INDEX_OF_PANDAS = re.compile(r"__index_level_\d+__")


class WideParquetTable:
    """The columns of a Parquet file; pages are compared with their checksums when they are read."""

    def __init__(self, path: Path):
        import pyarrow.parquet

        refuse_no_file(path, "table")
        self._path = path
        try:
            self._file = pyarrow.parquet.ParquetFile(path, page_checksum_verification=True)
        except Exception as error:  # a damaged file makes the decoders raise any kind
            raise self._unreadable(error) from error
        try:
            refuse_false_counts(self._file.metadata, path)
            names = self._file.schema_arrow.names
            refuse_other_names(self._file.metadata.metadata or {}, names, path)
            refuse_repeated([name.strip() for name in names], path)
        except UserError:
            self._file.close()
            raise
        except Exception as error:
            self._file.close()
            raise self._unreadable(error) from error
        self._stored = {
            name.strip(): name for name in names if not _INDEX_OF_PANDAS.fullmatch(name)
        }

    @property
    def columns(self) -> list[str]:
        """Names without blanks around them, in the order of the file."""
        return list(self._stored)

    def read(self, columns: Sequence[str]) -> pd.DataFrame:
        """All rows of some columns."""
        table = self._arrow(columns).to_pandas()
        table.columns = list(columns)
        return table

    def subject_ids(self, column: str) -> list[str]:
        """The ids as exact text, '' where missing."""
        stored = self._arrow([column]).column(0)
        try:
            values = exact_text(stored, column, self._path)
        except UserError:
            raise
        except Exception as error:  # bytes that are no text
            raise UserError(
                f"{self._path}: column {shown(column)} cannot be read as ids ({reason(error)}); write it as text."
            ) from error
        return ["" if value is None else value.strip() for value in values]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _arrow(self, columns: Sequence[str]) -> Any:
        stored = [self._stored[name] for name in columns]
        try:
            # A name with points (f.31.0.0) also selects what looks nested below it, so choose once more.
            table = self._file.read(columns=stored, use_threads=False).select(stored)
        except Exception as error:
            raise self._unreadable(error) from error
        if table.num_rows != self._file.metadata.num_rows:
            raise self._unreadable(
                ValueError(
                    f"{table.num_rows:,} rows, not the {self._file.metadata.num_rows:,} of its footer"
                )
            )
        return table.replace_schema_metadata(None)

    def _unreadable(self, error: Exception) -> UserError:
        return UserError(
            f"{self._path}: cannot be read as a table ({reason(error)}); a Parquet file that was cut or damaged: "
            "copy it again."
        )
