"""New subjects, new cohorts: predictions with networks that were trained before, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

CELLS = ["T1_nonlinear_female", "T1_nonlinear_male", "swi_female", "swi_male"]


@pytest.fixture
def women(participants: pd.DataFrame) -> list[str]:
    test = participants[(participants["split"] == "test") & (participants["sex"] == "female")]
    return test["subject_id"].tolist()[:5]


@pytest.fixture
def men(participants: pd.DataFrame) -> list[str]:
    test = participants[(participants["split"] == "test") & (participants["sex"] == "male")]
    return test["subject_id"].tolist()[:4]


def test_a_table_with_sex_and_without_ages_is_enough(study, women, men):
    sexes = ["F"] * len(women) + ["M"] * len(men)
    table = pd.DataFrame({"participant_id": women + men, "sex": sexes})
    table.to_csv(study.folder / "new.tsv", sep="\t", index=False)
    ended = study.run("predict", "MAPPING.predict_subjects=new.tsv")
    assert ended.code == 0, ended.err
    assert f"T1_nonlinear_female: {len(women)} of {len(women)} subjects predicted" in ended.err
    for cell in CELLS:
        ids = women if cell.endswith("_female") else men
        new = study.predictions("predict", cell)
        assert new["subject_id"].tolist() == ids
        assert new["age_years"].isna().all() and new["delta_years"].isna().all()
        known = study.predictions("test", cell).set_index("subject_id").loc[ids]
        assert new["predicted_years"].to_numpy() == pytest.approx(
            known["predicted_years"].to_numpy(), abs=1e-3
        )


def test_ages_where_they_are_known_give_deltas(study, women):
    table = pd.DataFrame({"subject_id": women, "sex": "female", "age": [60, 61, "89+", "", 64]})
    table.to_csv(study.folder / "new.csv", index=False)
    ended = study.run("predict", "--cell", "swi_female", "MAPPING.predict_subjects=new.csv")
    assert ended.code == 0, ended.err
    new = study.predictions("predict", "swi_female")
    assert new["age_years"].isna().tolist() == [False, False, True, True, False]
    assert new["delta_years"].isna().tolist() == [False, False, True, True, False]
    assert new["predicted_years"].notna().all()
    assert new["note"].fillna("").tolist() == ["", "", "age 89+ is censored", "no age", ""]


def test_a_list_without_sexes_is_refused_where_networks_have_one(study, women):
    (study.folder / "new.txt").write_text("\n".join(women))
    ended = study.run("predict", "MAPPING.predict_subjects=new.txt")
    assert ended.code == 1
    assert "T1_nonlinear_female: 5 subject(s) have no sex" in ended.err
    assert "give predict_subjects as a table with a sex column" in ended.err


def test_subjects_of_one_sex_leave_the_other_cells_out(study, women):
    pd.DataFrame({"subject_id": women, "sex": "f"}).to_csv(study.folder / "new.csv", index=False)
    ended = study.run("predict", "MAPPING.predict_subjects=new.csv")
    assert ended.code == 0, ended.err
    assert "swi_male: none of the subjects is male." in ended.err
    assert not (study.root / "swi_male" / "predictions_predict.csv").exists()


def test_a_subject_without_a_volume_is_a_row_with_its_reason(study, women):
    table = pd.DataFrame({"subject_id": [women[0], "nobody", women[1]], "sex": "female"})
    table.to_csv(study.folder / "new.csv", index=False)
    ended = study.run("predict", "--cell", "swi_female", "MAPPING.predict_subjects=new.csv")
    assert ended.code == 3
    assert "subject nobody is left out: " in ended.err and "no such file." in ended.err
    new = study.predictions("predict", "swi_female")
    assert new["status"].tolist() == ["ok", "failed", "ok"]
    assert new["note"].tolist() == ["no age", "no such file; no age", "no age"]
    assert new["predicted_years"].isna().tolist() == [False, True, False]


@pytest.mark.parametrize(
    "content, said",
    [
        ("subject_id,sex\n1,female\n1,female\n", "1 subject id(s) occur twice, e.g. 1."),
        ("subject_id,sex\n1,lady\n", "sex 'lady' is not understood"),
        ("name,sex\n1,female\n", "no column of subject ids"),
        ("", "is empty; a table begins with a line of column names"),
        ("subject_id,sex\n../1,female\n", "subject ids cannot hold slashes"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(study, content: str, said: str):
    (study.folder / "new.csv").write_text(content)
    ended = study.run("predict", "MAPPING.predict_subjects=new.csv")
    assert ended.code == 1
    assert f"{study.folder / 'new.csv'}: " in ended.err and said in ended.err


def test_nobody_to_predict_is_a_failure(study, women):
    pd.DataFrame({"subject_id": women, "sex": "f"}).to_csv(study.folder / "new.csv", index=False)
    ended = study.run("predict", "--cell", "swi_male", "MAPPING.predict_subjects=new.csv")
    assert ended.code == 1
    assert "swi_male: none of the subjects is male." in ended.err


def test_a_cell_without_networks_does_not_end_the_predicting(study, women):
    (study.root / "swi_female").rename(study.root / "aside")
    pd.DataFrame({"subject_id": women, "sex": "f"}).to_csv(study.folder / "new.csv", index=False)
    ended = study.run("predict", "MAPPING.predict_subjects=new.csv")
    assert ended.code == 3
    assert "swi_female predicted nobody: " in ended.err and "run -m train first" in ended.err
    assert len(study.predictions("predict")) == len(women)


def test_without_subjects_or_with_none_there_it_says_what_to_set(study):
    assert "set [MAPPING] predict_subjects" in study.run("predict").err
    ended = study.run("predict", "MAPPING.predict_subjects=nowhere.csv")
    assert ended.code == 1 and "nowhere.csv: no such table." in ended.err


def test_a_subject_table_with_a_header_and_no_rows_says_so(study):
    (study.folder / "new.csv").write_text("subject_id,sex\n")
    ended = study.run("predict", "MAPPING.predict_subjects=new.csv")
    assert ended.code == 1
    assert f"{study.folder / 'new.csv'}" in ended.err and "holds no subject." in ended.err


def test_a_new_cohort_is_evaluated_with_networks_trained_elsewhere(study, participants):
    """A cohort of two thirds of the test subjects under an ini pair and a name of its own."""
    chosen = participants[participants["split"] == "test"].iloc[::3].assign(split="test")
    chosen.to_csv(study.folder / "hospital.csv", index=False)
    for ending in (".ini", "_eval.ini"):
        text = (study.folder / f"golden{ending}").read_text()
        (study.folder / f"hospital{ending}").write_text(text)
    words = (
        "DATA.subjects=hospital.csv",
        "MAPPING.experiment_name=golden",
        "MAPPING.dataset_type=test",
    )
    ended = study.run("test", *words, name="hospital")
    assert ended.code == 0, ended.err
    root = study.folder / "experiments" / "hospital"
    for cell in CELLS:
        new = pd.read_csv(root / cell / "predictions_test.csv", dtype={"subject_id": str})
        known = study.predictions("test", cell).set_index("subject_id").loc[new["subject_id"]]
        assert np.array_equal(
            new["predicted_years"].round(3).to_numpy(), known["predicted_years"].round(3).to_numpy()
        )
    assert not list(root.rglob("*.pt"))
    ended = study.run("ensemble", *words, name="hospital")
    assert ended.code == 0, ended.err
    deltas = pd.read_csv(root / "deltas_test.csv")
    assert deltas["delta_years"].notna().any()


def test_networks_that_are_not_there_say_what_to_do(study):
    ended = study.run("test", "--cell", "swi_male", "MAPPING.experiment_name=unknown")
    assert ended.code == 1
    assert "unknown/swi_male: no trained network" in ended.err and "-m train" in ended.err


def test_a_cell_without_networks_does_not_end_the_run(study):
    for path in (study.root / "swi_male").rglob("*.pt"):
        path.unlink()
    ended = study.run("test")
    assert ended.code == 3
    assert "swi_male was not tested: " in ended.err and "swi_female test: n 72" in ended.err
    assert ended.err.strip().endswith("test finished; 1 problem(s) stand above.")
