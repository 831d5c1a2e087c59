"""Networks used on volumes they were not trained for: refused, with what differs."""

from __future__ import annotations

import pandas as pd
import pytest

CELL = ("--cell", "T1_nonlinear_female")


def change_table(own_cohort, column: str, value: str) -> None:
    """Change a value of T1_nonlinear in the cohort's contrast table."""
    path = own_cohort / "contrasts.csv"
    table = pd.read_csv(path, dtype=str)
    assert column in table
    table.loc[table["name"] == "T1_nonlinear", column] = value
    table.to_csv(path, index=False)


@pytest.mark.parametrize("mode", ["test", "predict"])
@pytest.mark.parametrize(
    "column, value, said",
    [
        ("scale_factor", "100", "scale_factor is auto on one side only"),
        ("resolution", "4mm", "voxel_mm was 8.0 in training and is 4.0"),
        ("shape", "24 28 24", "shape was "),
        ("crop", "0:16 0:24 0:16", "crop was "),
    ],
)
def test_another_grid_or_scaling_is_refused(study, own_cohort, mode, column, value, said):
    change_table(own_cohort, column, value)
    (study.folder / "new.csv").write_text("subject_id,sex\n1,female\n")
    ended = study.run(mode, *CELL, "MAPPING.predict_subjects=new.csv")
    assert ended.code == 1
    assert f"{study.network() / 'best.pt'}: does not fit T1_nonlinear_female: " in ended.err
    assert said in ended.err
    assert "Use the contrast table and sexes of the trained experiment." in ended.err


def test_another_sex_is_refused(study):
    study.network().parent.rename(study.root / "women")
    (study.root / "T1_nonlinear_male").rename(study.root / "T1_nonlinear_female")
    ended = study.run("test", *CELL)
    assert ended.code == 1
    assert "does not fit T1_nonlinear_female: trained on male, used for female." in ended.err


def test_another_contrast_is_refused(study):
    study.network().parent.rename(study.root / "aside")
    (study.root / "swi_female").rename(study.root / "T1_nonlinear_female")
    ended = study.run("test", *CELL)
    assert ended.code == 1
    assert "name was swi in training and is T1_nonlinear" in ended.err


def test_where_the_file_lies_is_the_new_cohorts_own(study, own_cohort):
    change_table(own_cohort, "data_file", "T1.nii.gz")
    for subject in (own_cohort / "subjects").iterdir():
        (subject / "T1.nii.gz").symlink_to(next(subject.rglob("T1*nii.gz")).resolve())
    before = study.predictions("test")
    ended = study.run("test", *CELL)
    assert ended.code == 0, ended.err
    assert study.predictions("test").equals(before)


def test_training_subjects_that_became_test_subjects_are_noticed(study, own_cohort):
    said = (
        "T1_nonlinear_female: its networks were trained on other subjects than the lists now name"
    )
    assert said not in study.run("test", *CELL).err
    path = own_cohort / "participants.csv"
    table = pd.read_csv(path, dtype=str)
    chosen = table[(table["split"] == "train") & (table["sex"] == "female")].index[0]
    table.loc[chosen, "split"] = "test"
    table.to_csv(path, index=False)
    assert said in study.run("test", *CELL).err
