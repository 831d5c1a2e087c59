"""Who is in the study: everything that is wrong with the lists or the table, not only the first of it."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from datasets.subjects import (
    COLUMNS,
    SPLITS,
    families_in_two_splits,
    read_id_list,
    read_subject_table,
)
from utils.common.errors import UserError
from utils.common.text import listed
from utils.experiment.checks.findings import Finding, Level
from utils.experiment.checks.reading import lenient_lists, lenient_table, list_error, read_or_find
from utils.experiment.experiment import Experiment

# Fewer validation subjects than this cannot carry the age-bias correction.
FEWEST_FOR_CORRECTION = 50
PREDICT = "predict"


@dataclass(frozen=True)
class CheckedLists:
    """What was found in the lists, and the subjects as far as they could be read."""

    findings: list[Finding]
    subjects: (
        pd.DataFrame
    )  # columns of datasets.subjects, each subject once; split may be "predict"


def check_lists(experiment: Experiment) -> CheckedLists:
    """Read every list or the table as far as it goes, and say all that is wrong."""
    if is_for_prediction(experiment):
        return _subjects_to_predict(experiment)
    findings: list[Finding] = []
    if experiment.settings.data.subjects:
        table = lenient_table(experiment.settings.path(experiment.settings.data.subjects), findings)
    else:
        table = lenient_lists(experiment.published_lists, experiment.list_sexes, findings)
    table = _without_excluded(experiment, table, findings)
    _find_repeated(table, findings)
    try:
        table = experiment.subjects
    except UserError as error:
        if not any(finding.stops for finding in findings):
            findings.append(list_error(str(error).rstrip(".")))
        table = table.drop_duplicates("subject_id").reset_index(drop=True)
    else:
        findings += _who_is_missing(experiment)
    findings += _families(table)
    return CheckedLists(findings, table)


def is_for_prediction(experiment: Experiment) -> bool:
    """Whether the only subjects are those that trained networks are to predict."""
    if not experiment.settings.mapping.predict_subjects or experiment.settings.data.subjects:
        return False
    lists = experiment.published_lists.values()
    paths = [names.paths(sex)[0] for names in lists for sex in experiment.list_sexes]
    return not any(path.is_file() for path in paths)


def _subjects_to_predict(experiment: Experiment) -> CheckedLists:
    path = experiment.settings.path(experiment.settings.mapping.predict_subjects)
    findings: list[Finding] = []
    try:
        if path.suffix.lower() != ".txt":
            table = read_subject_table(path)
        else:
            empty = {name: "" for name in COLUMNS if name not in ("subject_id", "age_years")}
            ids = read_id_list(path)
            table = pd.DataFrame({"subject_id": ids, "age_years": float("nan")}).assign(**empty)
    except UserError as error:
        findings.append(list_error(str(error).rstrip(".")))
        table = pd.DataFrame(columns=COLUMNS)
    else:
        if table.empty:
            findings.append(list_error(f"{path}: holds no subject"))
    return CheckedLists(findings, table.assign(split=PREDICT))


def _without_excluded(
    experiment: Experiment, table: pd.DataFrame, findings: list[Finding]
) -> pd.DataFrame:
    name = experiment.settings.data.exclude
    if not name:
        return table
    excluded = read_or_find(lambda: read_id_list(experiment.settings.path(name)), findings)
    n_unknown = len(set(excluded) - set(table["subject_id"]))
    if n_unknown:
        findings.append(
            Finding("note", "lists", f"{n_unknown} of {len(excluded)} ids of {name} are in no list")
        )
    findings[:] = [f for f in findings if f.subject_id == "" or f.subject_id not in set(excluded)]
    return table[~table["subject_id"].isin(excluded)]


def _find_repeated(table: pd.DataFrame, findings: list[Finding]) -> None:
    """Subjects in two splits, or twice with two sexes: trained on and tested on."""
    where = table["sex"].where(table["sex"] != "", "?") + " " + table["split"]
    places = where.groupby(table["subject_id"]).agg(lambda s: sorted(set(s)))
    for subject, found in places[places.map(len) > 1].items():
        findings.append(
            Finding(
                "error", "lists", f"stands in {' and '.join(found)}",
                "Keep it in one split", subject_id=str(subject),
            )
        )  # fmt: skip
    n_repeated = int((places.map(len) > 1).sum())
    if n_repeated:
        findings.append(
            list_error(
                f"{n_repeated} subject(s) stand in more than one list or split",
                "Who is trained on cannot be tested: keep each in one, or name them in [DATA] exclude",
            )
        )


def _who_is_missing(experiment: Experiment) -> list[Finding]:
    """Cells without subjects, subjects without cell, sets too small for what is planned."""
    findings = []
    table = experiment.subjects
    for sex in experiment.settings.sexes:
        for split in SPLITS:
            here = table[(table["split"] == split) & ((sex == "both") | (table["sex"] == sex))]
            n = int(here["age_years"].notna().sum())
            if n == 0:
                level: Level = "warning" if split == "test" else "error"
                what = f"no {_word(sex)}subject of the {split} split" + (
                    " has an age" if len(here) else ""
                )
                findings.append(
                    Finding(level, "lists", what, "See dataset_sex and the splits of the lists")
                )
            elif split == "validation" and n < FEWEST_FOR_CORRECTION:
                findings.append(
                    Finding(
                        "note", "lists",
                        f"{n} {_word(sex)}validation subject(s) cannot carry an age-bias correction: deltas stay raw",
                        f"{FEWEST_FOR_CORRECTION} are needed",
                    )
                )  # fmt: skip
            if split == "train" and n and here["age_years"].nunique() == 1:
                findings.append(list_error(f"all {_word(sex)}training subjects have the same age"))
    if "both" not in experiment.settings.sexes:
        n_without = int((table["sex"] == "").sum())
        if n_without:
            reason = f"{n_without} subject(s) have no sex and are in no cell"
            findings.append(Finding("warning", "lists", reason, "Give their sex in the table"))
    return findings


def _families(table: pd.DataFrame) -> list[Finding]:
    """Relatives on both sides of a split, family by family."""
    if not families_in_two_splits(table):
        return []
    findings = []
    known = table[(table["family"] != "") & (table["split"] != "")]
    for family, members in known.groupby("family"):
        if members["split"].nunique() > 1:
            named = [f"{i} ({s})" for i, s in zip(members["subject_id"], members["split"])]
            findings.append(
                Finding(
                    "warning", "lists", f"family {family} has members in different splits: {listed(named)}",
                    "Who is tested resembles who was trained on: -m split keeps families together",
                    subject_id=str(members["subject_id"].iloc[0]),
                )
            )  # fmt: skip
    return findings


def _word(sex: str) -> str:
    return "" if sex == "both" else f"{sex} "
