"""Names that users give to columns, ids and sexes; what is recognised is named, what is not is listed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pandas as pd

from utils.common.errors import UserError
from utils.common.text import listed

SUBJECT_NAMES = (
    "subject_id", "participant_id", "eid", "f_eid", "subject", "participant", "subjectid", "iid", "id",
)  # fmt: skip


def normalised_name(name: str) -> str:
    """Lower case, with every run of other characters than letters and digits as one underscore."""
    return re.sub(r"[^a-z0-9]+", "_", str(name).strip().lower()).strip("_")


def find_column(columns: Iterable[str], names: tuple[str, ...]) -> str | None:
    """The column that bears the first of `names` that occurs (names are in order of preference)."""
    by_name: dict[str, str] = {}
    for column in columns:
        by_name.setdefault(normalised_name(column), str(column))
    return next((by_name[name] for name in names if name in by_name), None)


def subject_column(columns: Iterable[str], what: str) -> str:
    """The column that holds the subjects.

    Raises
    ------
    UserError
        There is none.
    """
    columns = list(columns)
    column = find_column(columns, SUBJECT_NAMES)
    if column is None:
        raise UserError(
            f"the table of {what} has no subject column. Columns found: {listed(columns)}. "
            f"Names accepted: {', '.join(SUBJECT_NAMES)}."
        )
    return column


def refuse_repeated_subjects(ids: Iterable[str], what: str) -> None:
    """One row a subject is needed; rows without an id do not count."""
    n_repeated = sum(count - 1 for identifier, count in Counter(ids).items() if identifier)
    if n_repeated:
        raise UserError(
            f"the table of {what} has {n_repeated} rows whose subject already has a row; one row a subject is needed."
        )


def by_subject(table: pd.DataFrame, what: str) -> pd.DataFrame:
    """The table with subject ids (text) as index and the subject column gone.

    Raises
    ------
    UserError
        No subject column, or a subject on several rows.
    """
    column = subject_column(table.columns, what)
    ids = as_subject_ids(table[column])
    refuse_repeated_subjects(ids, what)
    out = table.drop(columns=[column]).set_index(pd.Index(ids, name="subject_id", dtype=object))
    return out[out.index != ""]


def as_subject_ids(column: pd.Series) -> list[str]:
    """Subject ids as text; 1000001.0 (a number column with gaps) is read as 1000001, missing as ''."""
    if pd.api.types.is_float_dtype(column):
        return ["" if not np.isfinite(v) else f"{v:.0f}" for v in column.to_numpy(dtype=float)]
    codes, distinct = pd.factorize(column)
    whole = (re.sub(r"^(\d+)\.0+$", r"\1", str(value).strip()) for value in distinct)
    texts = np.array([*whole, ""], dtype=object)
    return texts[codes].tolist()


def describe_id_form(ids: Iterable[str]) -> str:
    """The commonest form of ids in words ("7 digits", "'sub-' and 4 digits"), never an id itself."""
    forms: Counter[str] = Counter()
    n_ids = 0
    for identifier in ids:
        n_ids += 1
        forms[_form(identifier)] += 1
    if n_ids == 0:
        return "no ids"
    form, count = forms.most_common(1)[0]
    if count * 2 < n_ids:
        return "ids of several forms"
    return form if count == n_ids else f"mostly {form}"


def _form(identifier: str) -> str:
    match = re.fullmatch(r"([A-Za-z]{0,12}[-_]?)(\d+)", identifier)
    if match is None:
        return f"text of {len(identifier)} characters"
    prefix, digits = match.groups()
    zeros = " with leading zeros" if digits.startswith("0") else ""
    return (
        f"{prefix!r} and {len(digits)} digits{zeros}" if prefix else f"{len(digits)} digits{zeros}"
    )


def read_sex(column: pd.Series) -> tuple[pd.Series, str]:
    """'female', 'male', 'both' or missing for each row, and how numbers were read.

    1 is male; 2 is female; 0 is female (UK Biobank) unless the column also holds 2, where 0 means unknown (PLINK).

    Raises
    ------
    UserError
        A value that is none of these.
    """
    words = {
        "f": "female", "female": "female", "w": "female", "woman": "female", "2": "female",
        "m": "male", "male": "male", "man": "male", "1": "male", "both": "both", "all": "both",
    }  # fmt: skip
    codes, distinct = pd.factorize(column)  # a million rows, a handful of values
    texts = [re.sub(r"\.0$", "", str(value).strip(" ,;").lower()) for value in distinct]
    values = set(texts) - {""}
    words["0"] = "" if "2" in values else "female"
    unknown = sorted(values - set(words) - {"n/a", "na", "nan", "unknown"})
    if unknown:
        raise UserError(
            f"the sex column holds {', '.join(map(repr, unknown[:5]))}; female/male, f/m or 0/1 or 1/2 are read."
        )
    note = ""
    if values & {"0", "1", "2"}:
        zero = "0 = unknown" if "2" in values else "0 = female"
        note = f"sex coded as numbers: 1 = male, 2 = female, {zero}"
    sexes = np.array([*(words.get(text) or None for text in texts), None], dtype=object)
    return pd.Series(
        sexes[codes], index=column.index, dtype=object
    ), note  # -1, missing, is the last
