"""A large table of text, converted once into blocks of columns on disk, in pieces of bounded size.

The pieces are stored as text first. The type of a column is decided afterwards, by all of its values, so that no column
depends on where the pieces were cut. Rows, quotes and names are judged by the rules of every table of text.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.association.recognition import SUBJECT_NAMES, normalised_name
from utils.association.text_pieces import Piece, strict_pieces
from utils.common.errors import UserError
from utils.common.files import is_left_behind, why_not_written, writer_name
from utils.common.text import reason

COLUMNS_PER_FILE = 512
# What a piece takes in all, per byte of its text: the text, Arrow's copy, and the pages before they are written.
MEMORY_PER_BYTE_OF_PIECE = 16
LARGEST_PIECE, SMALLEST_PIECE = 128_000_000, 2_000_000
# Words that mean a missing value, as in pandas' reader, which reads the small tables.
MISSING_WORDS = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"}
    | {"N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)  # fmt: skip
_TRUTH = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}
# The folder of a conversion, and who makes it: `.nidps.<host>-<process id>.<random>`.
CONVERSION = re.compile(r"\.nidps\.([0-9a-f]{8})-(\d+)\..+")


class WideTextTable:
    """The columns of a large CSV, TSV or semicolon-separated file."""

    def __init__(self, path: Path, memory_bytes: int, scratch: str | Path | None = None):
        self._path = path
        if scratch is not None:
            _prepare(Path(scratch))
        self._folder = Path(tempfile.mkdtemp(prefix=f".nidps.{writer_name()}.", dir=scratch))
        size = min(max(memory_bytes // MEMORY_PER_BYTE_OF_PIECE, SMALLEST_PIECE), LARGEST_PIECE)
        try:
            self._names = self._convert(size)
            for number in range(-(-len(self._names) // COLUMNS_PER_FILE)):
                self._settle_types(number)
        except OSError as error:
            self.close()
            raise UserError(why_not_written(self._folder, error)) from error
        except BaseException:
            self.close()
            raise
        self._place = {name: place for place, name in enumerate(self._names)}

    @property
    def columns(self) -> list[str]:
        """Names in the order of the file; unnamed columns are ''."""
        return list(self._names)

    def read(self, columns: Sequence[str]) -> pd.DataFrame:
        """All rows of some columns, with the types that all of their values allow."""
        found = {name: column.to_pandas() for name, column in self._stored(columns).items()}
        return pd.DataFrame({name: found[name] for name in columns})

    def subject_ids(self, column: str) -> list[str]:
        """The ids as they are written, '' where missing."""
        values = self._stored([column])[column].to_pylist()
        return ["" if value is None else str(value).strip() for value in values]

    def close(self) -> None:
        """Remove what was converted."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _stored(self, columns: Sequence[str]) -> dict[str, Any]:
        """Some columns as they are stored."""
        by_file: dict[int, list[str]] = {}
        for name in columns:
            by_file.setdefault(self._place[name] // COLUMNS_PER_FILE, []).append(name)
        found: dict[str, Any] = {}
        for number, names in by_file.items():
            table = self._read_file(number, [str(self._place[name]) for name in names])
            found.update(zip(names, table.columns))
        return found

    def _read_file(self, number: int, places: list[str] | None = None) -> Any:
        import pyarrow.parquet

        path = self._file(number)
        try:
            table = pyarrow.parquet.read_table(
                path, columns=places, use_threads=False, page_checksum_verification=True
            )
        except Exception as error:  # a failing disk, or somebody tidied up
            raise UserError(
                f"{path}: what was converted from {self._path} cannot be read again ({reason(error)}); run again, "
                "with another folder for temporary files if it recurs."
            ) from error
        return table if places is None else table.select(places)

    def _settle_types(self, number: int) -> None:
        """Write a file anew with the type of each column; ids stay text."""
        import pyarrow
        import pyarrow.parquet

        texts = self._read_file(number)
        columns = {
            place: texts.column(place)
            if normalised_name(self._names[int(place)]) in SUBJECT_NAMES
            else pyarrow.Array.from_pandas(typed(texts.column(place)))
            for place in texts.column_names
        }
        pyarrow.parquet.write_table(
            pyarrow.table(columns),
            self._file(number),
            compression="zstd",
            write_statistics=False,
            write_page_checksum=True,
        )

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:05d}.parquet"

    def _convert(self, piece_bytes: int) -> list[str]:
        """Write the columns, 512 a file, a row group a piece; return their names."""
        import pyarrow
        import pyarrow.parquet

        names: list[str] = []
        with ExitStack() as open_files:
            writers: list[Any] = []
            for piece in strict_pieces(self._path, piece_bytes):
                if not writers:
                    names = piece.names
                    for start in range(0, len(names), COLUMNS_PER_FILE):
                        fields = [
                            (str(place), pyarrow.string())
                            for place in range(start, min(start + COLUMNS_PER_FILE, len(names)))
                        ]
                        writer = pyarrow.parquet.ParquetWriter(
                            self._file(len(writers)),
                            pyarrow.schema(fields),
                            compression="zstd",
                            write_statistics=False,
                            write_page_checksum=True,
                        )
                        writers.append(open_files.enter_context(writer))
                table = _arrow_of(piece, self._path)
                for number, writer in enumerate(writers):
                    start = number * COLUMNS_PER_FILE
                    writer.write_table(
                        table.select(range(start, min(start + COLUMNS_PER_FILE, len(names))))
                    )
        return names


def _arrow_of(piece: Piece, path: Path) -> Any:
    """A piece as columns of text that are named by their places."""
    import pyarrow
    import pyarrow.csv

    places = [str(place) for place in range(len(piece.names))]
    if not piece.n_rows:
        return pyarrow.table({place: pyarrow.array([], pyarrow.string()) for place in places})
    table = pyarrow.csv.read_csv(
        pyarrow.BufferReader(piece.text),
        read_options=pyarrow.csv.ReadOptions(
            column_names=places, use_threads=False, block_size=len(piece.text) + 1
        ),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=piece.separator, newlines_in_values=piece.has_quotes
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={place: pyarrow.string() for place in places},
            null_values=sorted(MISSING_WORDS),
            strings_can_be_null=True,
        ),
    )
    if table.num_rows != piece.n_rows:
        raise UserError(
            f"{path}: cannot be read as a table ({piece.n_rows} rows by their lines, {table.num_rows} by their "
            f"fields, after line {piece.first_line}); look at its quotes and line ends."
        )
    return table


def _prepare(scratch: Path) -> None:
    """Make the folder, and remove the conversions in it of runs that no longer live: a third of a table each."""
    try:
        scratch.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(why_not_written(scratch, error)) from error
    for folder in scratch.glob(".nidps.*"):
        match = CONVERSION.fullmatch(folder.name)
        with suppress(OSError):  # its run ended, or another one clears as well
            if match and is_left_behind(folder, *match.groups()):
                shutil.rmtree(folder, ignore_errors=True)


def typed(text: Any) -> pd.Series:
    """A column of text as pandas' reader types it: numbers, truth values, or text; empty cells and NA are missing."""
    import pyarrow
    import pyarrow.compute

    try:
        return pd.Series(text.cast(pyarrow.float64()).to_numpy())
    except pyarrow.ArrowInvalid:  # blanks around numbers, or other things than numbers
        text = pyarrow.compute.utf8_ltrim(text.combine_chunks(), " ")
    missing = pyarrow.compute.is_in(text, value_set=pyarrow.array(sorted(MISSING_WORDS)))
    text = pyarrow.compute.if_else(missing, pyarrow.scalar(None, pyarrow.string()), text)
    trimmed = pyarrow.compute.utf8_trim_whitespace(text)
    try:
        numbers = trimmed.cast(pyarrow.float64())
    except pyarrow.ArrowInvalid:
        return _typed_by_pandas(text.to_pandas())
    return pd.Series(numbers.to_numpy(zero_copy_only=False))


def _typed_by_pandas(text: pd.Series) -> pd.Series:
    """What Arrow does not read as numbers: a leading plus, truth values, or text."""
    present = text.dropna()
    numbers = pd.to_numeric(present, errors="coerce")
    if not numbers.isna().any():
        return numbers.astype(float).reindex(text.index)
    if present.isin(list(_TRUTH)).all():
        truth = present.map(_TRUTH)
        return (
            truth.astype(bool)
            if len(truth) == len(text)
            else truth.astype(object).reindex(text.index)
        )
    return text.astype(object).where(text.notna(), np.nan)
