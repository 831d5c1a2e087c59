"""What of a table may stand in `summary/`, which leaves the platform: no small counts, no one's age."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from figures.privacy import MINIMUM_COUNT
from utils.common.tables import write_table

COUNT_COLUMNS = (
    "n", "n_cases", "n_smaller_class", "n_outliers", "n_failed", "n_missing_codes", "n_female", "n_male", "n_a", "n_b",
    "n_without",
)  # fmt: skip
_DESCRIBED = ("contrast", "sex", "split", "predictor", "flags")


def write_summary_table(
    table: pd.DataFrame, path: Path, individual_level: bool, decimals: int | None = 6
) -> None:
    """Write a table of `summary/`; counts under ten are left empty unless persons may be shown."""
    shown = table if individual_level else hide_small_counts(table)
    write_table(shown, path, decimals)


def hide_small_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Counts from 1 to 9 become missing."""
    hidden = table.copy()
    for column in COUNT_COLUMNS:
        if column in hidden:
            counts = pd.to_numeric(hidden[column]).astype("Int64")
            hidden[column] = counts.mask(((counts > 0) & (counts < MINIMUM_COUNT)).fillna(False))
    return hidden


def export_safe_metrics(metrics: pd.DataFrame) -> pd.DataFrame:
    """Rows of fewer than ten subjects lose their numbers; ranges of age are in whole years.

    The exact age of the youngest or the oldest would be one person's.
    """
    safe = metrics.copy()
    few = safe["n"] < MINIMUM_COUNT
    numbers = [column for column in safe if column not in _DESCRIBED]
    safe[numbers] = safe[numbers].astype(float)
    safe.loc[few, numbers] = np.nan
    if "flags" in safe:
        safe.loc[few, "flags"] = ""  # of a few, even that one of them is far outside is not said
    safe["age_min_years"] = np.floor(safe["age_min_years"])
    safe["age_max_years"] = np.ceil(safe["age_max_years"])
    return safe
