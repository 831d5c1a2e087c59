"""Who is in the study: subject ids, ages, sex and split, from one table or from the published lists.

The result is one table (`subject_id`, `age_years`, `sex`, `split`, `family`, `site`) in which a
subject occurs once. Ages that cannot be used (missing, or censored such as `89+`) keep their row with
the reason in `note`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.common.errors import UserError
from utils.common.files import read_table

SPLITS = ("train", "validation", "test")
COLUMNS = ["subject_id", "age_years", "sex", "split", "family", "site", "note"]
# Names are compared without regard to capitals.
ID_NAMES = ("subject_id", "participant_id", "eid", "f.eid", "subject", "id", "mrid")
AGE_NAMES = ("age_years", "age")
SEXES = {
    "female": "female", "f": "female", "woman": "female", "0": "female", "2": "female",
    "male": "male", "m": "male", "man": "male", "1": "male",
}  # fmt: skip
SPLIT_NAMES = {"training": "train", "val": "validation", "valid": "validation", "dev": "validation"}
MISSING = ("", "n/a", "na", "nan", "none", "null", "-9999", "-999", "-99")
AGE_RANGE_YEARS = (0.0, 120.0)


@dataclass(frozen=True)
class PublishedLists:
    """Names of the published lists of one sex and split; `fe` makes the women's out of the men's."""

    folder: Path
    ids: str
    ages: str
    suffix: str  # "" for the full lists, "_small" and so on otherwise

    def paths(self, sex: str) -> tuple[Path, Path]:
        """(list of ids, array of ages) of a sex."""
        prefix = "fe" if sex == "female" else ""
        return (
            self.folder / f"{prefix}{self.ids}{self.suffix}.txt",
            self.folder / f"{prefix}{self.ages}{self.suffix}.npy",
        )


def read_subject_table(path: str | Path) -> pd.DataFrame:
    """Read a table of subjects: CSV or TSV, BIDS `participants.tsv` names accepted.

    Raises
    ------
    UserError
        No id column, an id twice or empty, a sex or split that is not understood.
    """
    raw = read_table(path)
    raw.columns = [column.lower() for column in raw.columns]
    if not raw.columns.is_unique:
        twice = ", ".join(sorted(set(raw.columns[raw.columns.duplicated()])))
        raise UserError(f"{path}: column names occur twice but for capitals: {twice}.")
    id_name = next((name for name in ID_NAMES if name in raw), None)
    if id_name is None:
        raise UserError(
            f"{path}: no column of subject ids ({', '.join(ID_NAMES)}). Found: {', '.join(raw)}."
        )
    table = pd.DataFrame({"subject_id": [_text(value) for value in raw[id_name]]})
    _refuse_bad_ids(table["subject_id"], path)
    age_name = next((name for name in AGE_NAMES if name in raw), None)
    ages = raw[age_name] if age_name else [None] * len(raw)
    table["age_years"], table["note"] = zip(*map(parse_age, ages)) if len(raw) else ([], [])
    table["sex"] = [_sex(value, path) for value in _column(raw, "sex")]
    table["split"] = [_split(value, path) for value in _column(raw, "split")]
    for name in ("family", "site"):
        table[name] = [_text(value) for value in _column(raw, name)]
    return table[COLUMNS]


def read_published_lists(lists: dict[str, PublishedLists], sexes: tuple[str, ...]) -> pd.DataFrame:
    """Read the published lists of the given splits and sexes (`both` reads women and men).

    Raises
    ------
    UserError
        A list or its ages are missing, of different length, or a subject stands in two of them.
    """
    parts = []
    for sex in ("female", "male") if "both" in sexes else sexes:
        for split, names in lists.items():
            ids_path, ages_path = names.paths(sex)
            ids = read_id_list(ids_path)
            ages = _read_ages(ages_path)
            if len(ids) != len(ages):
                raise UserError(
                    f"{ids_path} has {len(ids)} subjects, {ages_path} {len(ages)} ages."
                )
            part = pd.DataFrame({"subject_id": ids, "sex": sex, "split": split})
            part["age_years"], part["note"] = zip(*map(parse_age, ages)) if ids else ([], [])
            parts.append(part.assign(family="", site=""))
    table = pd.concat(parts, ignore_index=True)
    refuse_subjects_in_two_splits(table)
    return table[COLUMNS]


def refuse_subjects_in_two_splits(table: pd.DataFrame) -> None:
    """A subject in two splits would be trained on and tested on: refuse, with counts."""
    repeated = table[table["subject_id"].duplicated(keep=False)]
    if repeated.empty:
        return
    splits = repeated.groupby("subject_id")["split"].agg(lambda s: " and ".join(sorted(set(s))))
    counts = ", ".join(f"{count} in {name}" for name, count in splits.value_counts().items())
    raise UserError(
        f"{len(splits)} subject(s) occur more than once in the lists ({counts}), e.g. "
        f"{splits.index[0]}. Every subject belongs to one split."
    )


def families_in_two_splits(table: pd.DataFrame) -> int:
    """How many families have members in more than one split: who is tested resembles who was trained on."""
    known = table[(table["family"] != "") & (table["split"] != "")]
    return int((known.groupby("family")["split"].nunique() > 1).sum())


def read_id_list(path: str | Path) -> list[str]:
    """A subject id a line; blank lines, Windows line ends and a byte-order mark are passed over."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such list of subjects.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list of subjects ({error}).") from error
    ids = [line.strip() for line in lines if line.strip()]
    _refuse_bad_ids(pd.Series(ids, dtype=object), path)
    return ids


def _read_ages(path: Path) -> list[Any]:
    try:
        return np.load(path, allow_pickle=False).ravel().tolist()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file of ages.") from error
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: cannot be read as an array of ages ({error}).") from error


def parse_age(value: Any) -> tuple[float, str]:
    """An age in years, or NaN with the reason: `89+` is censored, not 89; `26,9` is 26.9."""
    text = _text(value).lower()
    if text in MISSING:
        return np.nan, "no age"
    if re.fullmatch(r"([<>≥≤]=? ?\d+([.,]\d+)?|\d+([.,]\d+)? ?\+)", text):
        return np.nan, f"age {text} is censored"
    try:
        age = float(text.replace(",", "."))
    except ValueError:
        return np.nan, f"age {text[:20]!r} is not a number"
    if not AGE_RANGE_YEARS[0] <= age <= AGE_RANGE_YEARS[1]:
        return np.nan, f"age {age:g} lies outside {AGE_RANGE_YEARS[0]:g}-{AGE_RANGE_YEARS[1]:g}"
    return age, ""


def apply_split(table: pd.DataFrame, split_of: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """Give each subject its split from a frozen split table; who is not in it is refused."""
    splits = dict(zip(split_of["subject_id"], split_of["split"]))
    unknown = [subject for subject in table["subject_id"] if subject not in splits]
    if unknown:
        raise UserError(
            f"{path}: {len(unknown)} of {len(table)} subjects have no split there; the subject table "
            "changed since. Restore it, or split anew with -m split --yes."
        )
    return table.assign(split=[splits[subject] for subject in table["subject_id"]])


def subjects_hash(subject_ids: Any) -> str:
    """sha256 over the sorted ids: tells whether two sets of subjects are the same, not who they are."""
    return hashlib.sha256("\n".join(sorted(map(str, subject_ids))).encode("utf-8")).hexdigest()


def _column(table: pd.DataFrame, name: str) -> Any:
    return table[name] if name in table else [None] * len(table)


def _text(value: Any) -> str:
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _refuse_bad_ids(ids: pd.Series, path: str | Path) -> None:
    if (ids == "").any():
        raise UserError(f"{path}: {int((ids == '').sum())} row(s) have no subject id.")
    if ids.duplicated().any():
        raise UserError(
            f"{path}: {int(ids.duplicated().sum())} subject id(s) occur twice, e.g. "
            f"{ids[ids.duplicated()].iloc[0]}."
        )
    bad = [
        subject for subject in ids if "/" in subject or "\\" in subject or subject in (".", "..")
    ]
    if bad:
        raise UserError(f"{path}: subject ids cannot hold slashes, e.g. {bad[0]!r}.")


def _sex(value: Any, path: str | Path) -> str:
    text = _text(value).lower().rstrip(",; ")
    if text in MISSING:
        return ""
    if text not in SEXES:
        raise UserError(
            f"{path}: sex {text[:20]!r} is not understood; use female and male (f, m; 1 is male, "
            "0 and 2 are female)."
        )
    return SEXES[text]


def _split(value: Any, path: str | Path) -> str:
    text = _text(value).lower()
    text = SPLIT_NAMES.get(text, text)
    if text and text not in SPLITS:
        raise UserError(f"{path}: split {text[:20]!r} is not one of {', '.join(SPLITS)}.")
    return text
