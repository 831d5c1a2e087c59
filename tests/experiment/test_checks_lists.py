"""Every fault of lists and tables in one check: ids, ages, sexes, splits, relatives, sets without anybody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from utils.experiment.checks.lists import CheckedLists, check_lists


def found_in(checked_study, *settings: str) -> tuple[list[str], list[str], CheckedLists]:
    """(sentences that stop, those about subjects, all)."""
    lists = check_lists(checked_study.experiment(*settings))
    stopping = [finding.reason for finding in lists.findings if finding.stops]
    subjects = [f"{f.subject_id} {f.level} {f.reason}" for f in lists.findings if f.subject_id]
    return stopping, subjects, lists


def test_nothing_is_said_of_a_table_that_is_right(checked_study):
    stopping, subjects, lists = found_in(checked_study)
    assert (stopping, subjects) == ([], [])
    assert len(lists.subjects) == 12
    assert [f.reason for f in lists.findings] == [
        "3 female validation subject(s) cannot carry an age-bias correction: deltas stay raw"
    ]


def test_all_faults_of_a_table_are_found_at_once(checked_study):
    rows = checked_study.rows
    rows[0] = "001,50,x,train"
    rows[1] = "002,52,f,training set"
    rows += ["003,60,f,train", ",61,f,train", "a/b,62,f,train", "004,58,f,test"]
    checked_study.write_table()
    stopping, subjects, lists = found_in(checked_study)
    for said in (
        "sex 'x' is not understood in 1 row(s)",
        "split 'training set' is not understood in 1 row(s)",
        "2 subject id(s) occur more than once, e.g. 003, 004",
        "1 row(s) have no subject id",
        "cannot hold slashes",
        "1 subject(s) stand in more than one list or split",
    ):
        assert any(said in reason for reason in stopping), said
    assert subjects == ["004 error stands in female test and female train"]
    assert lists.subjects["subject_id"].is_unique  # the volumes can still be looked at
    assert len(lists.subjects) == 13


@pytest.mark.parametrize(
    ("age", "level", "said"),
    [
        ("", "warning", "no age"),
        ("89+", "warning", "is censored"),
        ("150", "error", "lies outside"),
        ("old", "error", "is not a number"),
        ("1962-01-01", "error", "is a date"),
    ],
)
def test_an_age_that_cannot_be_used_is_named(checked_study, age, level, said):
    checked_study.rows[2] = f"003,{age},f,train"
    checked_study.write_table()
    stopping, subjects, _ = found_in(checked_study)
    assert stopping == []
    assert len(subjects) == 1 and subjects[0].startswith(f"003 {level} ") and said in subjects[0]


def test_relatives_on_both_sides_of_a_split_are_named(checked_study):
    families = ["A"] * 2 + ["B", "B"] + [""] * 6 + ["B", ""]
    checked_study.rows = [f"{row},{f}" for row, f in zip(checked_study.rows, families)]
    checked_study.write_table("subject_id,age,sex,split,family")
    stopping, subjects, _ = found_in(checked_study)
    assert stopping == []
    assert subjects == [
        "003 warning family B has members in different splits: 003 (train), 004 (train), 011 (test)"
    ]


def test_a_set_without_anybody(checked_study):
    checked_study.rows = [row for row in checked_study.rows if "validation" not in row]
    checked_study.write_table()
    assert found_in(checked_study)[0] == ["no female subject of the validation split"]
    checked_study.rows = [row for row in checked_study.rows if "test" not in row]
    checked_study.write_table()
    _, _, lists = found_in(checked_study)
    assert any(f.level == "warning" and "of the test split" in f.reason for f in lists.findings)


def test_subjects_without_sex_and_ages_that_are_all_the_same(checked_study):
    checked_study.rows[0] = "001,50,,train"
    checked_study.rows[1:7] = [f"{i:03d},60,f,train" for i in range(2, 8)]
    checked_study.write_table()
    stopping, _, lists = found_in(checked_study)
    assert stopping == ["all female training subjects have the same age"]
    assert any(f.reason == "1 subject(s) have no sex and are in no cell" for f in lists.findings)


def test_no_column_of_ages_and_no_table(checked_study):
    checked_study.rows = [",".join(row.split(",")[::2]) for row in checked_study.rows]
    checked_study.write_table("subject_id,sex")
    stopping, _, _ = found_in(checked_study)
    assert any("has no column of ages" in reason for reason in stopping)
    (checked_study.folder / "people.csv").unlink()
    stopping, _, lists = found_in(checked_study)
    assert len(stopping) == 1 and "no such table" in stopping[0] and lists.subjects.empty


def test_a_table_without_split_asks_for_one_and_its_volumes_are_still_found(checked_study):
    checked_study.rows = [row.rpartition(",")[0] for row in checked_study.rows]
    checked_study.write_table("subject_id,age,sex")
    stopping, _, lists = found_in(checked_study)
    assert len(stopping) == 1 and "-m split" in stopping[0]
    assert len(lists.subjects) == 12
    checked = checked_study.check()
    assert checked.n_headers == 12 and len(checked.contents["tiny"].seen) == 12


LISTS = ('DATA.subjects=""', 'DATA.data_folder_name="lists"', 'DATA.dataset_size="small"')


def write_lists(folder: Path) -> None:
    folder.mkdir()
    for split, ids in (("train", "001 002 003"), ("validation", "004 005"), ("test", "006 007")):
        (folder / f"female_{split}_small.txt").write_text(ids.replace(" ", "\n"))
        ages = np.linspace(50, 70, len(ids.split()))
        np.save(folder / f"female_{split}_age_small.npy", ages)


def test_published_lists_that_are_right(checked_study):
    write_lists(checked_study.folder / "lists")
    stopping, subjects, lists = found_in(checked_study, *LISTS)
    assert (stopping, subjects, len(lists.subjects)) == ([], [], 7)


def test_all_faults_of_published_lists_are_found_at_once(checked_study):
    folder = checked_study.folder / "lists"
    write_lists(folder)
    np.save(folder / "female_train_age_small.npy", np.array([50.0, 60.0]))
    (folder / "female_validation_small.txt").write_text("001\n005\n005\n")
    np.save(folder / "female_test_age_small.npy", np.array([50.0, 500.0]))
    stopping, subjects, lists = found_in(checked_study, *LISTS)
    for said in (
        "female_train_small.txt has 3 subjects",
        "1 subject id(s) occur more than once, e.g. 005",
        "1 subject(s) stand in more than one list or split",
    ):
        assert any(said in reason for reason in stopping), said
    assert any(said.startswith("007 error age 500") for said in subjects)
    assert "001 error stands in female train and female validation" in subjects
    assert sorted(lists.subjects["subject_id"]) == ["001", "002", "003", "005", "006", "007"]


def test_lists_and_ages_that_cannot_be_read(checked_study):
    folder = checked_study.folder / "lists"
    write_lists(folder)
    (folder / "female_train_age_small.npy").write_bytes(b"nothing")
    (folder / "female_validation_small.txt").unlink()
    (folder / "female_test_small.txt").unlink()
    stopping, _, lists = found_in(checked_study, *LISTS)
    assert any("female_train_age_small.npy" in reason for reason in stopping)
    assert any("there is no list of female validation subjects" in reason for reason in stopping)
    assert any(f.level == "warning" and "female test subjects" in f.reason for f in lists.findings)


def test_excluded_subjects_are_not_spoken_of(checked_study):
    checked_study.rows[2] = "003,500,f,train"
    checked_study.write_table()
    (checked_study.folder / "gone.txt").write_text("003\n999\n")
    stopping, subjects, lists = found_in(checked_study, 'DATA.exclude="gone.txt"')
    assert (stopping, subjects, len(lists.subjects)) == ([], [], 11)
    assert any("1 of 2 ids of gone.txt are in no list" in f.reason for f in lists.findings)


def test_subjects_that_are_only_to_be_predicted(checked_study):
    (checked_study.folder / "patients.txt").write_text("001\n002\n")
    settings = ('DATA.subjects=""', 'DATA.data_folder_name="nowhere"', 'DATA.dataset_sex="both"')
    (checked_study.folder / "x_eval.ini").write_text(
        '[MAPPING]\npredict_subjects = "patients.txt"\n'
    )
    checked = checked_study.check(*settings)
    assert list(checked.subjects["split"]) == ["predict"] * 2
    assert checked.n_headers == 2 and not any(f.level == "error" for f in checked.findings)
    (checked_study.folder / "patients.txt").write_text("")
    assert any("holds no subject" in f.reason for f in checked_study.check(*settings).findings)
