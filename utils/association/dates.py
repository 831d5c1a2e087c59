"""Dates as numbers: the year and the part of it that has gone by."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# 2014-05-01, with or without a time of day
ISO_DATE = r"\d{4}-\d{2}-\d{2}(?:[ T]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?)?(?:Z|[+-]\d{2}:?\d{2})?"
_SECONDS_PER_DAY = 86_400


def dates_of_column(
    column: pd.Series, missing_codes: Sequence[str]
) -> tuple[pd.DatetimeIndex | None, int]:
    """The dates (S,) of a column and how many codes became missing; None where it does not hold ISO dates throughout.

    Codes of missing dates (1900-01-01, "date not known") are days.
    """
    if pd.api.types.is_datetime64_any_dtype(column):
        dates = pd.DatetimeIndex(column)
    elif pd.api.types.is_numeric_dtype(column) or not _looks_like_dates(column):
        return None, 0
    else:
        text = column.astype("string").str.strip()
        text = text.mask(text == "")
        present = text.dropna()
        if not present.str.fullmatch(ISO_DATE).all():
            return None, 0
        parsed = pd.to_datetime(present, errors="coerce", format="ISO8601", utc=True)
        if parsed.isna().any():
            return None, 0
        dates = pd.DatetimeIndex(parsed.reindex(column.index))
    dates = dates.tz_localize(None) if dates.tz is not None else dates
    coded = dates.strftime("%Y-%m-%d").isin(list(missing_codes)) if missing_codes else None
    if coded is None or not coded.any():
        return dates, 0
    return dates.where(~coded), int(coded.sum())


def year_fractions(dates: pd.DatetimeIndex) -> NDArray[np.float64]:
    """2014-01-01 is 2014.0, noon of 2014-07-02 is 2014.5; a leap year has 366 days. NaN where there is no date.

    Source: `normalisedDate` of fmrib-unpack 4.0.1 (code read): year + day of the year from 0 / days of the year. The
    time of day counts here as part of the day; FUNPACK cuts it off, or counts from 7 to 20 o'clock (imaging visits).
    """
    year = dates.year.to_numpy(dtype=float)
    day = dates.day_of_year.to_numpy(dtype=float) - 1.0
    seconds = (dates - dates.normalize()).total_seconds().to_numpy(dtype=float)
    days_of_year = np.where(dates.is_leap_year, 366.0, 365.0)
    return year + (day + seconds / _SECONDS_PER_DAY) / days_of_year


def _looks_like_dates(column: pd.Series) -> bool:
    """The first value alone tells most columns of text from dates."""
    first = column.first_valid_index()
    return first is not None and bool(re.fullmatch(ISO_DATE, str(column.loc[first]).strip()))
