"""Which rows of two tables of associations are about the same thing, by numbers instead of texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

PAIR = ("contrast", "sex", "nidp")


def row_codes(tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> list[NDArray[np.int64]]:
    """A number for each row of each table: equal where the columns are, across the tables.

    Texts are looked at once a category, never once a row, so that two million rows take a second.

    Raises
    ------
    ValueError
        A row has no value in one of the columns.
    """
    codes = [np.zeros(len(table), dtype=np.int64) for table in tables]
    for column in columns:
        parts = [_categorical(table[column]) for table in tables]
        if any((part.codes < 0).any() for part in parts):
            raise ValueError(f"every row needs a value in column {column!r}")
        names = [part.categories.astype(object) for part in parts]
        every = names[0].append(names[1:]).unique()
        for place, (part, own) in enumerate(zip(parts, names)):
            codes[place] = codes[place] * len(every) + every.get_indexer(own)[part.codes]
    return codes


def matched_rows(
    first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places in two lists of codes that have the same code, in the order of the first list.

    Raises
    ------
    ValueError
        A code stands twice in one list.
    """
    for codes in (first, second):
        n_twice = len(codes) - len(pd.unique(codes))
        if n_twice:
            raise ValueError(
                f"{n_twice} rows occur twice: a table of associations has one row for each contrast, sex and nIDP"
            )
    found = pd.Index(second).get_indexer(first)
    return np.flatnonzero(found >= 0), found[found >= 0]


def _categorical(values: pd.Series) -> pd.Categorical:
    if isinstance(values.dtype, pd.CategoricalDtype):
        return values.array
    codes, categories = pd.factorize(values.to_numpy(dtype=object))
    return pd.Categorical.from_codes(codes, categories)
