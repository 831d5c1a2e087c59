"""Deltas from any table: this program's deltas and predictions, or the output of another brain-age tool."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from utils.association.recognition import SUBJECT_NAMES, as_subject_ids, find_column, read_sex
from utils.common.errors import UserError
from utils.common.tables import read_table

AGE_NAMES = (
    "age_years", "age", "age_at_scan", "chronological_age", "true_age", "target_age", "real_age", "age_at_imaging",
    "f_21003_2_0", "21003_2_0", "x21003_2_0", "p21003_i2",
)  # fmt: skip
PREDICTED_NAMES = (
    "predicted_years", "predicted_age", "predicted_brain_age", "brain_predicted_age", "brain_age", "brainage",
    "prediction", "pred_age", "age_pred", "output_age", "predicted", "pred",
)  # fmt: skip
CORRECTED_NAMES = (
    "corrected_delta_years", "corrected_delta", "delta_corrected", "corrected_pad", "corrected_brain_pad",
    "brain_pad_corrected", "corrected_bag", "bag_corrected", "corrected_brain_age_gap",
)  # fmt: skip
DELTA_NAMES = (
    "delta_years", "delta", "pad", "brain_pad", "brainpad", "brain_age_delta", "age_delta", "brain_age_gap", "bag",
    "age_gap", "predicted_age_difference",
)  # fmt: skip
SEX_COLUMNS = ("sex", "gender", "f_31_0_0", "31_0_0", "x31_0_0", "p31")
SCALED_NAME = "delta_z"  # this program's: the corrected delta over the residual SD of its fit
# A share by which SDs differ that are not the same but for rounding, and the size from which deltas tell their SD.
DIFFERENT_SCALE, SMALLEST_SCALED = 0.01, 0.1
CONTRAST_NAMES = ("contrast", "modality", "model")

COLUMNS = ("subject_id", "sex", "contrast", "age_years", "delta_years")


@dataclass(frozen=True)
class DeltasTable:
    """Deltas in one form, and how they were found.

    table: subject_id, sex ('female', 'male', 'both'), contrast, age_years, delta_years; a row a delta.
    recognised: what each quantity was read from. notes: what was done beyond reading.
    """

    table: pd.DataFrame
    recognised: dict[str, str]
    notes: tuple[str, ...] = field(default=())


def read_deltas(path: str | Path) -> DeltasTable:
    """Read deltas from a CSV, TSV or Parquet table of this or another tool; see `recognise_deltas`."""
    return recognise_deltas(read_table(path), str(path))


def recognise_deltas(table: pd.DataFrame, source: str = "the table of deltas") -> DeltasTable:
    """Find subject, age, delta, sex and contrast in a table by the names of its columns.

    A corrected delta is preferred to a raw one, a raw one to prediction - age. Which of them is read does not
    change a partial correlation given age as long as the correction is linear in age; where the corrected delta of
    a sex and contrast is missing throughout (a refused correction) its raw delta is therefore read instead.

    Parameters
    ----------
    table : DataFrame
        One row a subject, or a subject and contrast.
    source : str
        What to call the table in messages.

    Returns
    -------
    DeltasTable
        Rows with an age and a delta.

    Raises
    ------
    UserError
        Something needed was not found (all columns found and names accepted are listed), a value cannot be read,
        or a subject and contrast occur twice.
    """
    found = {
        "subject_id": find_column(table.columns, SUBJECT_NAMES),
        "age_years": find_column(table.columns, AGE_NAMES),
        "corrected delta": find_column(table.columns, CORRECTED_NAMES),
        "delta": find_column(table.columns, DELTA_NAMES),
        "prediction": find_column(table.columns, PREDICTED_NAMES),
        "sex": find_column(table.columns, SEX_COLUMNS),
        "contrast": find_column(table.columns, CONTRAST_NAMES),
    }
    _require(found, table, source)
    notes: list[str] = []
    out = pd.DataFrame({"subject_id": as_subject_ids(table[str(found["subject_id"])])})
    out["sex"] = "both"
    if found["sex"]:
        sex, said = read_sex(table[found["sex"]])
        out["sex"] = sex.to_numpy()
        notes.extend([said] if said else [])
    out["contrast"] = "delta"
    if found["contrast"]:
        out["contrast"] = table[found["contrast"]].astype(str).str.strip().to_numpy()
    out["age_years"] = read_ages(table[str(found["age_years"])], source, notes)
    out["delta_years"], read_from = _deltas(table, found, out, notes, source)
    recognised = {
        "subject_id": str(found["subject_id"]), "age_years": str(found["age_years"]), "delta": read_from,
        "sex": found["sex"] or "not in the table", "contrast": found["contrast"] or "not in the table",
    }  # fmt: skip
    return DeltasTable(complete_rows(out, notes, source), recognised, tuple(notes))


def _require(found: dict[str, str | None], table: pd.DataFrame, source: str) -> None:
    """Stop where subject, age, or every kind of delta is missing, with all names that would do."""
    wanted = []
    if not found["subject_id"]:
        wanted.append(f"the subject ({', '.join(SUBJECT_NAMES)})")
    if not found["age_years"]:
        wanted.append(f"the age in years ({', '.join(AGE_NAMES)})")
    if not (found["corrected delta"] or found["delta"] or found["prediction"]):
        names = (*CORRECTED_NAMES, *DELTA_NAMES, *PREDICTED_NAMES)
        wanted.append(f"the delta or the predicted age ({', '.join(names)})")
    if wanted:
        columns = ", ".join(map(str, list(table.columns)[:40]))
        raise UserError(
            f"{source}: no column was recognised as {'; nor as '.join(wanted)}. "
            f"Columns found: {columns}. Rename the column to one of the names in brackets."
        )


def _deltas(
    table: pd.DataFrame,
    found: dict[str, str | None],
    out: pd.DataFrame,
    notes: list[str],
    source: str,
) -> tuple[np.ndarray, str]:
    """The delta of each row, and what it was read from."""
    raw, raw_from = None, ""
    if found["delta"]:
        raw, raw_from = as_numbers(table[found["delta"]], source), found["delta"]
    elif found["prediction"]:
        predicted = as_numbers(table[found["prediction"]], source)
        raw = predicted - out["age_years"].to_numpy()
        raw_from = f"{found['prediction']} - {found['age_years']}"
    if not found["corrected delta"]:
        return np.asarray(raw), raw_from
    corrected = as_numbers(table[found["corrected delta"]], source)
    if SCALED_NAME in table.columns:
        scaled = as_numbers(table[SCALED_NAME], source)
        corrected = _one_scale(corrected, scaled, out, notes)
    if raw is not None:
        refused = (
            pd.Series(corrected)
            .isna()
            .groupby([out["sex"].fillna(""), out["contrast"]])
            .transform("all")
        )
        usable = refused.to_numpy() & np.isfinite(raw)
        corrected = np.where(usable, raw, corrected)
        for sex, contrast in sorted(set(zip(out["sex"][usable], out["contrast"][usable]))):
            notes.append(f"{contrast}, {sex}: no corrected delta, the raw delta was read instead")
    return corrected, found["corrected delta"]


def _one_scale(
    corrected: np.ndarray, scaled: np.ndarray, out: pd.DataFrame, notes: list[str]
) -> np.ndarray:
    """Corrected deltas of one spread: those of subjects who lack contrasts are noisier, on the scale of their pattern.

    `scaled` is the delta over the residual SD of its pattern. Where a sex and contrast has several such SDs, it is
    multiplied by their median: years again, comparable between subjects. Numbers that were rounded give no SD near 0;
    an SD that is not positive shows that another program's column bears the name: it is not used.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        sd = np.where(np.abs(scaled) >= SMALLEST_SCALED, corrected / scaled, np.nan)
    groups = pd.Series(sd).groupby([out["sex"].fillna(""), out["contrast"]])
    middle, low, high = (groups.transform(f).to_numpy() for f in ("median", "min", "max"))
    with np.errstate(invalid="ignore"):
        several = (low > 0) & (high - low > DIFFERENT_SCALE * middle)
    for sex, contrast in sorted(set(zip(out["sex"][several], out["contrast"][several]))):
        notes.append(
            f"{contrast}, {sex}: subjects have different contrasts; their deltas were brought to one spread"
        )
    return np.where(several & np.isfinite(scaled), scaled * middle, corrected)


def as_numbers(column: pd.Series, source: str) -> np.ndarray:
    """The column as floats; a decimal comma is read, other text is an error."""
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(dtype=float, na_value=np.nan)
    text = column.astype("string").str.strip().str.replace(",", ".", regex=False)
    numbers = pd.to_numeric(text, errors="coerce")
    bad = numbers.isna() & text.notna() & ~text.str.lower().isin(["", "n/a", "na", "nan"])
    if bad.any():
        raise UserError(
            f"{source}: column '{column.name}' holds {int(bad.sum())} values that are not numbers, "
            f"the first in row {int(np.flatnonzero(bad.to_numpy())[0]) + 1} below the header."
        )
    return numbers.to_numpy(dtype=float, na_value=np.nan)


def read_ages(column: pd.Series, source: str, notes: list[str]) -> np.ndarray:
    """Ages in years; '89+' is censored, not 89: missing, and counted."""
    if not pd.api.types.is_numeric_dtype(column):
        text = column.astype("string").str.strip()
        open_ended = text.str.endswith("+").fillna(False)
        if open_ended.any():
            notes.append(f"{int(open_ended.sum())} censored ages such as '89+' are not used")
        column = text.mask(open_ended).rename(column.name)
    return as_numbers(column, source)


def complete_rows(out: pd.DataFrame, notes: list[str], source: str) -> pd.DataFrame:
    """Rows with id, age and delta, each subject and contrast once, each subject with one age and one sex."""
    usable = (
        (out["subject_id"] != "") & np.isfinite(out["age_years"]) & np.isfinite(out["delta_years"])
    )
    if not usable.all():
        notes.append(f"{int((~usable).sum())} rows without id, age or delta were left out")
    out = out[usable].reset_index(drop=True)
    if out.empty:
        raise UserError(f"{source}: no row has a subject, an age and a delta.")
    unknown = out["sex"].isna()
    if unknown.all():
        notes.append("no row has a known sex: analysed as one group")
        out["sex"] = "both"
    elif unknown.any():
        notes.append(f"{int(unknown.sum())} rows without a known sex were left out")
        out = out[~unknown].reset_index(drop=True)
    n_repeated = int(out.duplicated(["subject_id", "contrast"]).sum())
    if n_repeated:
        raise UserError(
            f"{source}: {n_repeated} rows repeat a subject and contrast; one row for each is needed "
            f"(several scans of a subject: keep one)."
        )
    ages = out.groupby("subject_id")["age_years"]
    n_ages = int(((ages.max() - ages.min()) > 0.01).sum())
    known = out[out["sex"] != "both"]
    n_sexes = int((known.groupby("subject_id")["sex"].nunique() > 1).sum())
    if n_ages or n_sexes:
        raise UserError(
            f"{source}: {n_ages} subjects have different ages and {n_sexes} different sexes in different rows."
        )
    return out[list(COLUMNS)]
