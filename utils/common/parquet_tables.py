"""Tables in Parquet: pages compared with their checksums, the footer with itself and with the file's size."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from utils.common.errors import UserError
from utils.common.text import reason, refuse_no_file, shown
from utils.common.text_tables import is_one_of, refuse_repeated

# Far more than an honest table of repeated values needs; beyond it a damaged count would fill the memory.
CELLS_PER_PARQUET_BYTE = 200
CELLS_OF_ANY_PARQUET = 4_000_000


def read_parquet_table(path: Path, text_columns: tuple[str, ...]) -> pd.DataFrame:
    """The table of a Parquet file whose pages fit their checksums; `text_columns` as exact text."""
    import pyarrow.parquet

    refuse_no_file(path, "table")
    try:
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            refuse_false_counts(file.metadata, path)
            refuse_other_names(file.metadata.metadata or {}, file.schema_arrow.names, path)
            columns, n_rows = file.read(), file.metadata.num_rows
        if columns.num_rows != n_rows:
            raise ValueError(f"{columns.num_rows:,} rows, not the {n_rows:,} of its footer")
        refuse_repeated([str(name).strip() for name in columns.column_names], path)
        table = columns.to_pandas()
        texts = {
            name: exact_text(columns.column(name), name, path)
            for name in columns.column_names
            if is_one_of(name, text_columns)
        }
    except UserError:
        raise
    except Exception as error:  # a damaged file makes the decoders raise any kind
        raise UserError(
            f"{path}: cannot be read as a table ({reason(error)}); a Parquet file that was cut or damaged: "
            "copy it again."
        ) from error
    named = [name for name in table.index.names if name in columns.column_names]
    if named:  # an index with a name, often the subject's id, is a column like the others
        table = table.reset_index(level=named)
    table = table.reset_index(drop=True)
    for name, values in texts.items():
        table[name] = values
    table.columns = [str(column).strip() for column in table.columns]
    return table


def refuse_false_counts(metadata: Any, path: Path) -> None:
    """The footer has no checksum: what it says must fit the size of the file before memory is taken for it."""
    n_cells = metadata.num_rows * max(metadata.num_columns, 1)
    size = path.stat().st_size
    if n_cells > max(CELLS_OF_ANY_PARQUET, CELLS_PER_PARQUET_BYTE * size):
        raise UserError(
            f"{path}: {size:,} bytes cannot hold the {metadata.num_rows:,} rows that its footer names; a "
            "damaged Parquet file: copy it again."
        )


def refuse_other_names(notes: dict[bytes, bytes], names: list[str], path: Path) -> None:
    """Nor have the names a checksum: each must be what Arrow and pandas noted beside it, where they did.

    Looking into the row groups instead would do for files of every origin, but PyArrow ends the process there
    when a footer is damaged.
    """
    import pyarrow

    agree = True
    if b"ARROW:schema" in notes:
        schema = pyarrow.BufferReader(base64.b64decode(notes[b"ARROW:schema"]))
        agree = pyarrow.ipc.read_schema(schema).names == names
    if b"pandas" in notes:
        for column in json.loads(notes[b"pandas"])["columns"]:
            name, field_name = column["name"], column.get("field_name")
            agree = agree and (name is None or field_name not in names or str(name) == field_name)
    if not agree:
        raise UserError(
            f"{path}: is damaged (the names of its columns differ from what is noted of them); copy the Parquet "
            "file again."
        )


def exact_text(column: Any, name: str, path: Path) -> list[str | None]:
    """The values of an Arrow column as text, whole numbers exactly and without a point."""
    import pyarrow
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if types.is_nested(kind):
        raise UserError(f"{path}: column {shown(name)} holds lists; it needs one value a row.")
    if types.is_floating(kind):
        # From here on not every whole number has a floating point number of its own.
        first_inexact = 2.0 ** {16: 11, 32: 24, 64: 53}[kind.bit_width]
        return [_whole_as_text(value, first_inexact, name, path) for value in column.to_pylist()]
    if types.is_decimal(kind) or types.is_temporal(kind):
        return [None if value is None else str(value) for value in column.to_pylist()]
    return column.cast(pyarrow.string()).to_pylist()


def _whole_as_text(value: float | None, first_inexact: float, name: str, path: Path) -> str | None:
    if value is None or math.isnan(value):
        return None
    if abs(value) >= first_inexact:
        raise UserError(
            f"{path}: column {shown(name)} holds floating point numbers too large to be exact "
            f"({value:g}): the digits are lost; write the column as text."
        )
    return str(int(value)) if value.is_integer() else str(value)
