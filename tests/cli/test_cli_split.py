"""-m split: made once, frozen, remade only when asked for; ages that cannot be used."""

from __future__ import annotations

import io

import pandas as pd
import pytest

SPLIT = ("DATA.subjects=people.csv",)
TRAIN = ("--cell", "swi_female", "-e", "1", "--network", "1", "MISC.experiments_directory=new")


@pytest.fixture
def people(study, participants) -> pd.DataFrame:
    """The cohort's subjects without a split, in people.csv."""
    table = participants.drop(columns="split")
    table.to_csv(study.folder / "people.csv", index=False)
    return table


def test_a_split_is_made_and_used(study, people):
    ended = study.run("split", *SPLIT)
    assert ended.code == 0, ended.err
    split = pd.read_csv(study.root / "splits.csv", dtype={"subject_id": str})
    assert list(split) == ["subject_id", "split"]
    assert sorted(split["subject_id"]) == sorted(people["subject_id"])
    shares = split["split"].value_counts(normalize=True)
    assert shares["train"] == pytest.approx(0.6, abs=0.01)
    assert shares["test"] == pytest.approx(0.32, abs=0.01)
    families = split.merge(people, on="subject_id").groupby("family")["split"].nunique()
    assert families.max() == 1
    shown = pd.read_csv(io.StringIO(ended.out))
    assert shown["n"].sum() == len(people)
    assert list(shown)[:3] == ["split", "sex", "n"]


def test_a_split_stays_frozen_without_yes(study, people):
    study.run("split", *SPLIT)
    before = (study.root / "splits.csv").read_bytes()
    ended = study.run("split", *SPLIT, "SPLIT.split_seed=5")
    assert ended.code == 1
    assert "a split was made already and stays frozen. --yes makes another one" in ended.err
    assert (study.root / "splits.csv").read_bytes() == before


def test_with_yes_another_split_is_made_and_the_old_one_kept(study, people):
    study.run("split", *SPLIT)
    before = (study.root / "splits.csv").read_bytes()
    ended = study.run("split", *SPLIT, "SPLIT.split_seed=5", "--yes")
    assert ended.code == 0, ended.err
    assert (study.root / "splits.csv").read_bytes() != before
    assert (study.root / "previous" / "splits.csv.1").read_bytes() == before
    again = study.run("split", *SPLIT, "--yes")
    assert again.code == 0 and (study.root / "splits.csv").read_bytes() == before


def test_without_a_split_training_says_what_to_run(study, people):
    ended = study.run("train", *SPLIT, *TRAIN)
    assert ended.code == 1
    assert (
        "people.csv: has no split column and no split was made; run python run.py -m split"
        in ended.err
    )


def test_a_split_that_was_edited_is_refused(study, people):
    study.run("split", *SPLIT)
    path = study.root / "splits.csv"
    path.write_text(path.read_text().replace(",train", ",test", 1))
    ended = study.run("train", *SPLIT, *TRAIN[:-1])
    assert ended.code == 1
    assert f"{path}: was changed after it was made (its hash differs)" in ended.err


def test_a_subject_that_came_later_is_refused(study, people):
    study.run("split", *SPLIT)
    later = pd.concat([people, people.iloc[:1].assign(subject_id="later")])
    later.to_csv(study.folder / "people.csv", index=False)
    ended = study.run("train", *SPLIT, *TRAIN[:-1])
    assert ended.code == 1
    assert "1 of 329 subjects have no split there; the subject table changed since." in ended.err


def test_a_censored_age_is_no_age(study, people):
    """`89+` is neither 89 nor an error: the subject is left out, with the reason."""
    people["age_years"] = people["age_years"].astype(str)
    people.loc[[0, 5, 9], "age_years"] = "89+"
    people.to_csv(study.folder / "people.csv", index=False)
    ended = study.run("split", *SPLIT)
    assert ended.code == 0, ended.err
    assert len(pd.read_csv(study.root / "splits.csv")) == len(people) - 3
    ended = study.run("train", *SPLIT, *TRAIN[:-1], "-c", "0", "--yes")
    assert ended.code == 0, ended.err


def test_a_censored_age_in_a_given_split_is_counted(study, participants):
    chosen = participants[
        (participants["sex"] == "female") & (participants["split"] == "train")
    ].index
    test = participants[(participants["sex"] == "female") & (participants["split"] == "test")].index
    table = participants.assign(age_years=participants["age_years"].astype(str))
    table.loc[[chosen[0], chosen[1], test[0]], "age_years"] = "89+"
    table.to_csv(study.folder / "people.csv", index=False)
    ended = study.run("train", *SPLIT, *TRAIN)
    assert ended.code == 0, ended.err
    assert "swi_female train: 2 subject(s) left out: age 89+ is censored." in ended.err
    ended = study.run("test", "--cell", "swi_female", *SPLIT)
    assert ended.code == 0, ended.err
    row = study.predictions("test", "swi_female").iloc[0]
    assert row["note"] == "age 89+ is censored" and pd.isna(row["age_years"])
    assert pd.notna(row["predicted_years"]) and pd.isna(row["delta_years"])


def test_a_subject_in_two_splits_is_refused(study, participants):
    twice = participants[participants["split"] == "train"].iloc[:1].assign(split="test")
    pd.concat([participants, twice]).to_csv(study.folder / "people.csv", index=False)
    ended = study.run("train", *SPLIT, *TRAIN)
    assert ended.code == 1
    assert f"1 subject id(s) occur twice, e.g. {twice['subject_id'].iloc[0]}." in ended.err
