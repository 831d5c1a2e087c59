"""Who is in the study: subject ids, ages, sex and split, from one table or from the published lists.

The result is one table (`subject_id`, `age_years`, `sex`, `split`, `family`, `site`) in which a
subject occurs once. Ages that cannot be used (missing, or censored such as `89+`) keep their row with
the reason in `note`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from datasets.ages import MISSING, parse_ages, read_age_array
from utils.common.errors import UserError
from utils.common.messages import warn
from utils.common.tables import cell_text, read_located_table
from utils.common.text import listed, read_utf8, shown
from utils.common.text_tables import ROWS_TO_JUDGE_THE_LAST

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
# A subject's folder bears its id, and 255 bytes are the most that a name may have.
LONGEST_ID = 200
# What cannot be an id, and what is wrong with it; the first that fits is said.
BAD_IDS = (
    (r"[/\\]|^\.\.?$", "subject ids cannot hold slashes"),
    (
        r"^[0-9]+([.,][0-9]+)?[eE]\+[0-9]+$",
        "subject ids were turned into numbers with an exponent, by Excel or R, and their digits are lost; export "
        "the column as text",
    ),
    (r"\ufffd", "subject ids hold a character that an earlier program could not read"),
    (r"[,;\t\"]", "subject ids cannot hold a separator or a double quote"),
    (r"^#", "subject ids cannot begin with '#', as comments and the errors of a spreadsheet do"),
)


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
    """Read a table of subjects: CSV, TSV or Parquet, BIDS `participants.tsv` names accepted.

    Rows of nothing but separators, as spreadsheets leave them, are passed over.

    Raises
    ------
    UserError
        No id column, an id that is missing, twice there or not usable, a sex or split that is not understood.
    """
    located = read_located_table(path)
    raw = located.table
    raw.columns = [column.lower() for column in raw.columns]
    if not raw.columns.is_unique:
        twice = sorted(set(raw.columns[raw.columns.duplicated()]))
        raise UserError(f"{path}: column names occur twice but for capitals: {listed(twice)}.")
    id_name = next((name for name in ID_NAMES if name in raw), None)
    if id_name is None:
        raise UserError(
            f"{path}: no column of subject ids ({', '.join(ID_NAMES)}). Found: {listed(raw)}."
        )
    raw = raw.dropna(how="all") if raw.shape[1] > 1 else raw
    places = [located.place(row) for row in raw.index]
    table = pd.DataFrame({"subject_id": [cell_text(value) for value in raw[id_name]]})
    _refuse_bad_ids(table["subject_id"].tolist(), places.__getitem__, path)
    age_name = next((name for name in AGE_NAMES if name in raw), None)
    ages = parse_ages(raw[age_name]) if age_name else parse_ages([None] * len(raw))
    table["age_years"], table["note"] = zip(*ages) if ages else ([], [])
    table["sex"] = _sexes(_column(raw, "sex"), places, path)
    table["split"] = [
        _split(value, place, path) for value, place in zip(_column(raw, "split"), places)
    ]
    for name in ("family", "site"):
        table[name] = [cell_text(value) for value in _column(raw, name)]
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
            ages = read_age_array(ages_path)
            if len(ids) != len(ages):
                raise UserError(
                    f"{ids_path} has {len(ids)} subjects, {ages_path} {len(ages)} ages."
                )
            part = pd.DataFrame({"subject_id": ids, "sex": sex, "split": split})
            part["age_years"], part["note"] = zip(*parse_ages(ages)) if ids else ([], [])
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
    """A subject id a line; a header, quotes around an id, blank lines and every kind of line end are passed over.

    Raises
    ------
    UserError
        No such file, not text (see `utils.common.text`), a table of several columns, or an id that is twice there
        or not usable.
    """
    text = read_utf8(Path(path), "list of subjects").decode("utf-8")
    numbered = [(n, line.strip()) for n, line in enumerate(text.split("\n"), start=1)]
    numbered = [(n, _unquoted(line)) for n, line in numbered if line]
    _refuse_columns(numbered, path)
    if numbered and numbered[0][1].lower() in ID_NAMES:
        del numbered[0]
    ids = [line for _, line in numbered]
    _refuse_bad_ids(ids, lambda row: f"line {numbered[row][0]}", path)
    if not ids:
        warn(f"{path}: holds no subject id.")
    many = len(ids) > ROWS_TO_JUDGE_THE_LAST
    if many and not text.endswith("\n") and len(ids[-1]) < min(map(len, ids[:-1])):
        warn(
            f"{path}: the last line has no line end and its id is shorter than every other; look whether the "
            "file was cut."
        )
    return ids


def _unquoted(line: str) -> str:
    quoted = len(line) > 2 and line[0] == line[-1] and line[0] in "\"'"
    return line[1:-1].strip() if quoted else line


def _refuse_columns(numbered: list[tuple[int, str]], path: str | Path) -> None:
    """A table given for a list: separators, a header of several words, or every id twice as PLINK has them."""
    for number, line in numbered:
        words = line.lower().split()
        if (
            any(mark in line for mark in ",;\t")
            or (len(words) > 1 and words[0] in (*ID_NAMES, "fid"))
            or (len(words) == 2 and words[0] == words[1])
        ):
            raise UserError(
                f"{path}: line {number} has several columns ({shown(line)!r}); a list has one subject id a line."
            )


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


def _refuse_bad_ids(ids: Sequence[str], place: Callable[[int], str], path: str | Path) -> None:
    """`place` says where an id stands."""
    empty = [row for row, subject in enumerate(ids) if not subject]
    if empty:
        raise UserError(
            f"{path}: {len(empty)} row(s) have no subject id, the first in {place(empty[0])}."
        )
    for pattern, said in BAD_IDS:
        bad = [row for row, subject in enumerate(ids) if re.search(pattern, subject)]
        if bad:
            raise UserError(f"{path}: {said}, e.g. {shown(ids[bad[0]])!r} ({place(bad[0])}).")
    for row, subject in enumerate(ids):
        if not subject.isprintable():
            character = next(c for c in subject if not c.isprintable())
            raise UserError(
                f"{path}: the subject id in {place(row)} holds a character that is not seen "
                f"(U+{ord(character):04X}); remove it."
            )
        if len(subject.encode("utf-8")) > LONGEST_ID:
            raise UserError(
                f"{path}: the subject id in {place(row)} is longer than {LONGEST_ID} bytes "
                f"({shown(subject, 20)!r}); no folder can be named so."
            )
    row_of: dict[str, int] = {}
    repeated = [row for row, subject in enumerate(ids) if row_of.setdefault(subject, row) != row]
    if repeated:
        again = repeated[0]
        raise UserError(
            f"{path}: {len(repeated)} subject id(s) occur twice, e.g. {ids[again]}. See "
            f"{place(row_of[ids[again]])} and {place(again)}."
        )


def _sexes(values: Sequence[Any], places: Sequence[str], path: str | Path) -> list[str]:
    texts = [re.sub(r"^([0-9])\.0+$", r"\1", _word(value).rstrip(",; ")) for value in values]
    for text, place in zip(texts, places):
        if text not in MISSING and text not in SEXES:
            raise UserError(
                f"{path}: sex {shown(text, 20)!r} is not understood ({place}); use female and male (f, m; 1 is "
                "male, 0 and 2 are female)."
            )
    if "0" in texts and "2" in texts:
        raise UserError(
            f"{path}: sexes are coded with both 0 ({places[texts.index('0')]}) and 2 "
            f"({places[texts.index('2')]}), so 0 may be female or unknown; write female and male."
        )
    return [SEXES.get(text, "") for text in texts]


def _split(value: Any, place: str, path: str | Path) -> str:
    text = SPLIT_NAMES.get(_word(value), _word(value))
    if text and text not in SPLITS:
        raise UserError(
            f"{path}: split {shown(text, 20)!r} is not one of {', '.join(SPLITS)} ({place})."
        )
    return text


def _word(value: Any) -> str:
    return cell_text(value).lower()
