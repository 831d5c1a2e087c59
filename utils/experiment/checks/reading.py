"""Lists and tables of subjects read as far as they go: where others stop at the first fault, these go on."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

from datasets.ages import MISSING, parse_ages, read_age_array
from datasets.subjects import (
    AGE_NAMES,
    BAD_IDS,
    COLUMNS,
    ID_NAMES,
    SEXES,
    SPLIT_NAMES,
    SPLITS,
    PublishedLists,
    read_id_list,
)
from utils.common.errors import UserError
from utils.common.tables import cell_text, read_table
from utils.common.text import listed, shown
from utils.experiment.checks.findings import Finding, Level

# Ages that are missing for a reason; any other unusable age is a mistake in the table.
HONESTLY_MISSING = re.compile(r"no age|.* is censored|.* is a range")


def lenient_table(path: Path, findings: list[Finding]) -> pd.DataFrame:
    """The table of subjects; cells that are not understood are findings and empty."""
    empty = pd.DataFrame(columns=COLUMNS)
    try:
        raw = read_table(path).dropna(how="all")
    except UserError as error:
        findings.append(list_error(str(error).rstrip(".")))
        return empty
    raw.columns = [column.lower() for column in raw.columns]
    id_name = next((name for name in ID_NAMES if name in raw), None)
    if id_name is None or not raw.columns.is_unique:
        return empty  # experiment.subjects says it
    columns = {name: _texts(raw, name) for name in ("sex", "split", "family", "site")}
    table = pd.DataFrame({"subject_id": _texts(raw, id_name), **columns})
    _find_bad_ids(table["subject_id"].tolist(), path, findings)
    age_name = next((name for name in AGE_NAMES if name in raw), None)
    if age_name is None:
        findings.append(
            list_error(
                f"{path}: has no column of ages ({', '.join(AGE_NAMES)})", "Add one, in years"
            )
        )
    ages = parse_ages(raw[age_name] if age_name else [None] * len(raw))
    table["age_years"], table["note"] = zip(*ages) if ages else ([], [])
    sexes = table["sex"].str.lower().str.rstrip(",; ").str.replace(r"\.0+$", "", regex=True)
    splits = table["split"].str.lower().replace(SPLIT_NAMES)
    for name, values, known in (
        ("sex", sexes, {**SEXES, **dict.fromkeys(MISSING, "")}),
        ("split", splits, {**{split: split for split in SPLITS}, "": ""}),
    ):
        unknown = sorted(set(values) - set(known))
        if unknown:
            words = listed([repr(shown(value, 20)) for value in unknown])
            findings.append(
                list_error(
                    f"{path}: {name} {words} is not understood in {int(values.isin(unknown).sum())} "
                    "row(s)",
                    "Use female and male" if name == "sex" else f"Use {', '.join(SPLITS)}",
                )
            )
        table[name] = values.map(known).fillna("")
    if age_name:
        _find_ages(table, findings)
    return table[table["subject_id"] != ""][COLUMNS]


def lenient_lists(
    lists: dict[str, PublishedLists], sexes: tuple[str, ...], findings: list[Finding]
) -> pd.DataFrame:
    """The published lists that can be read, ages where their number fits."""
    parts = [pd.DataFrame(columns=COLUMNS)]
    for split, names in lists.items():
        for sex in sexes:
            ids_path, ages_path = names.paths(sex)
            level: Level = "warning" if split == "test" else "error"
            if not ids_path.is_file():
                findings.append(
                    Finding(
                        level, "lists", f"{ids_path}: there is no list of {sex} {split} subjects",
                        "Set [DATA] data_folder_name and dataset_size, or [DATA] subjects",
                    )
                )  # fmt: skip
                continue
            ids = read_or_find(partial(_lines, ids_path, findings), findings)
            ages = read_or_find(partial(read_age_array, ages_path), findings)
            if ids and ages and len(ids) != len(ages):
                findings.append(
                    list_error(
                        f"{ids_path} has {len(ids)} subjects, {ages_path} {len(ages)} ages",
                        "Each age belongs to the subject of the same place: make both anew together",
                    )
                )
                ages = []
            part = pd.DataFrame({"subject_id": ids, "sex": sex, "split": split})
            read = parse_ages(ages) if ages else [(float("nan"), "")] * len(ids)
            part["age_years"], part["note"] = zip(*read) if read else ([], [])
            _find_ages(part, findings)
            if ids:
                parts.append(part.assign(family="", site="")[COLUMNS])
    return pd.concat(parts[1:] or parts, ignore_index=True)


def _lines(path: Path, findings: list[Finding]) -> list[str]:
    """The ids of a list; where the list is refused, its lines as they are, with all that is wrong."""
    try:
        return read_id_list(path)
    except UserError as error:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        ids = [line.strip() for line in text.splitlines() if line.strip()]
        n_before = len(findings)
        _find_bad_ids(ids, path, findings)
        if len(findings) == n_before:
            raise error
        return list(dict.fromkeys(ids))


def read_or_find(read: Callable[[], list], findings: list[Finding]) -> list:
    """What `read` gives, or nothing and a finding."""
    try:
        return read()
    except UserError as error:
        findings.append(list_error(str(error).rstrip(".")))
        return []


def _find_bad_ids(ids: list[str], path: Path, findings: list[Finding]) -> None:
    n_empty = ids.count("")
    if n_empty:
        findings.append(list_error(f"{path}: {n_empty} row(s) have no subject id"))
    for pattern, said in BAD_IDS:
        bad = [subject for subject in ids if re.search(pattern, subject)]
        if bad:
            findings.append(list_error(f"{path}: {said}, {_examples(bad)}"))
    series = pd.Series([subject for subject in ids if subject], dtype=object)
    twice = sorted(set(series[series.duplicated()]))
    if twice:
        findings.append(
            list_error(
                f"{path}: {len(twice)} subject id(s) occur more than once, {_examples(twice)}",
                "Keep one row or line of each",
            )
        )


def _find_ages(table: pd.DataFrame, findings: list[Finding]) -> None:
    """Each subject without a usable age: an honest gap is a warning, a mistake an error."""
    for subject, note in zip(table["subject_id"], table["note"]):
        if note:
            gap = HONESTLY_MISSING.fullmatch(note)
            findings.append(
                Finding(
                    "warning" if gap else "error", "lists", note,
                    "Left out of training and metrics" if gap else "Correct it in the table",
                    subject_id=subject,
                )
            )  # fmt: skip


def _texts(raw: pd.DataFrame, name: str) -> list[str]:
    return [cell_text(value) for value in raw[name]] if name in raw else [""] * len(raw)


def _examples(ids: list[str]) -> str:
    more = ", ..." if len(ids) > 3 else ""
    return f"e.g. {', '.join(shown(subject, 30) for subject in ids[:3])}{more}"


def list_error(reason: str, remedy: str = "") -> Finding:
    """Something that the lists cannot be used with."""
    return Finding("error", "lists", reason, remedy)
