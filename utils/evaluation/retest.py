"""Second scans of the same subjects: read, corrected as the first were, and compared with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from utils.common.errors import UserError
from utils.evaluation.reliability import RETEST_COLUMNS, scan_agreement
from utils.evaluation.sex_deltas import COMBINED, FITTED_ON, SplitPredictions

QUANTITIES = {"delta": "delta_years", "corrected_delta": "corrected_delta_years"}


def recognise_retest(table: pd.DataFrame, source: str, contrasts: list[str]) -> pd.DataFrame:
    """subject_id, contrast, age_years, predicted_years, note of second scans, checked.

    A column `contrast` may be missing where the experiment has one; delta_years may stand for predicted_years.

    Raises
    ------
    UserError
        A column is missing, a contrast is not the experiment's, or a subject and contrast occur twice.
    """
    found = table.copy()
    if "contrast" not in found and len(contrasts) == 1:
        found["contrast"] = contrasts[0]
    missing = [name for name in ("subject_id", "contrast", "age_years") if name not in found]
    if missing:
        raise UserError(
            f"{source}: no column {', '.join(missing)}. A table of second scans has subject_id, age_years, "
            "predicted_years or delta_years, and contrast where the experiment has several."
        )
    years = [n for n in ("age_years", "predicted_years", "delta_years") if n in found]
    for name in years:
        found[name] = _numbers(found[name], f"{source}, column {name}")
    if "predicted_years" not in found:
        if "delta_years" not in found:
            raise UserError(f"{source}: neither a column predicted_years nor delta_years.")
        found["predicted_years"] = found["age_years"] + found["delta_years"]
    nameless = found[["subject_id", "contrast"]].isna().any(axis=1)
    if nameless.any():
        raise UserError(
            f"{source}: {int(nameless.sum())} rows have no subject_id or no contrast; give them or leave the rows out."
        )
    found["contrast"] = found["contrast"].astype(str)
    unknown = sorted(set(found["contrast"]) - set(contrasts))
    if unknown:
        raise UserError(
            f"{source}: contrast {', '.join(unknown)} is none of this experiment's ({', '.join(contrasts)}); leave its "
            "rows out. The combination is made from the contrasts."
        )
    twice = found.duplicated(["subject_id", "contrast"])
    if twice.any():
        raise UserError(
            f"{source}: {int(twice.sum())} rows repeat a subject and contrast; give one second scan for each."
        )
    columns = ["subject_id", "contrast", "age_years", "predicted_years"]
    return found[columns].assign(note="").reset_index(drop=True)


def _numbers(column: pd.Series, place: str) -> pd.Series:
    """A column as numbers, NaN where a cell is empty."""
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = column[numbers.isna() & column.notna()]
    if len(wrong):
        raise UserError(f"{place}: {str(wrong.iloc[0])!r} is no number; write years as 61.5.")
    return numbers.astype(float)


def second_scans(
    table: pd.DataFrame, contrasts: list[str], subject_ids: set[str]
) -> SplitPredictions:
    """The second scans of some subjects, contrasts side by side."""
    mine = table[table["subject_id"].isin(subject_ids)]
    return SplitPredictions.from_tables([mine[mine["contrast"] == name] for name in contrasts])


def retest_rows(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Agreement of first and second deltas by contrast, sex and split (of the first scan); columns RETEST_COLUMNS.

    Parameters
    ----------
    first : long deltas of all splits with a column split
    second : long deltas of the second scans

    A combination is compared where both scans have the same contrasts: of other ones it is another quantity.
    """
    key = ["subject_id", "sex", "contrast"]
    # A subject of two splits (allowed by allow_in_sample) is compared in each.
    both = first.merge(second, on=key, suffixes=("", "_second"), validate="many_to_one")
    fitted_on = set(first.loc[first["split"] == FITTED_ON, "subject_id"])
    same = (
        _patterns(first).reindex(both["subject_id"]).to_numpy()
        == _patterns(second).reindex(both["subject_id"]).to_numpy()
    )
    both = both[same | (both["contrast"] != COMBINED).to_numpy()]
    rows: list[dict[str, Any]] = []
    for (contrast, sex, split), part in both.groupby(["contrast", "sex", "split"], sort=False):
        for quantity, column in QUANTITIES.items():
            pair = part[[column, f"{column}_second"]].to_numpy(float)
            used = np.isfinite(pair).all(axis=1)
            if not used.any():
                continue
            measured = scan_agreement(pair[:, 0], pair[:, 1])
            years = (part["age_years_second"] - part["age_years"]).to_numpy(float)[used].mean()
            if len(measured) > 1:
                measured["years_between_scans"] = float(years)
            seen = bool(part.loc[used, "subject_id"].isin(fitted_on).any())
            stamped = quantity == "corrected_delta" and seen
            where = {"contrast": contrast, "sex": sex, "split": split, "quantity": quantity}
            rows.append({**where, "in_sample": stamped, **measured})
    return pd.DataFrame(rows, columns=list(RETEST_COLUMNS))


def _patterns(deltas: pd.DataFrame) -> pd.Series:
    """Subject -> the contrasts with a prediction, as text."""
    there = deltas[(deltas["contrast"] != COMBINED) & deltas["predicted_years"].notna()]
    ordered = there.drop_duplicates(["subject_id", "contrast"]).sort_values("contrast")
    return ordered.groupby("subject_id")["contrast"].agg("\x1f".join)
