"""-m check through the command line: the table, the record, the page, exit codes 0, 2 and 3; train's quick part."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.cli.test_cli_bad_volumes import DAMAGES, rewritten, volume_of

CELL = "T1_nonlinear_female"
FEW = "CHECK.volumes=6"


def record_of(study) -> dict:
    return json.loads((study.root / "check" / "check.json").read_text(encoding="utf-8"))


def test_a_study_that_is_right(study):
    ended = study.run("check", FEW)
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert lines[0].split() == ["level", "part", "contrast", "subject_id", "reason", "remedy"]
    assert all(line.startswith("note ") for line in lines[1:])
    record = record_of(study)
    assert record["n_headers_looked_at"] == 4 * 164 and record["counts"]["error"] == {}
    assert record["contents"]["swi"]["n_looked_at"] == 12
    first = [(study.root / "check" / f"check.{kind}").read_bytes() for kind in ("json", "html")]
    assert "simulated cohort" in first[1].decode()
    assert study.run("check", FEW).code == 0
    assert first == [
        (study.root / "check" / f"check.{kind}").read_bytes() for kind in ("json", "html")
    ]
    assert not (study.root / "summary" / "check").exists()


def test_clearing_the_results_clears_what_the_check_left(study):
    study.run("check", FEW)
    assert study.run("clear-experiment", "--yes").code == 0
    assert not (study.root / "check").exists()


def test_subjects_that_would_be_left_out_give_3(study, own_cohort):
    ids = study.predictions("test", CELL)["subject_id"].tolist()
    chosen = dict(zip(DAMAGES, ids[3:]))
    for name, subject_id in chosen.items():
        DAMAGES[name][0](volume_of(own_cohort, subject_id))
    rewritten(volume_of(own_cohort, ids[0]), lambda values: values[:, :, ::-1])
    ended = study.run("check", "CHECK.volumes=0", "--cell", CELL)
    assert ended.code == 3
    assert f"check finished; {len(DAMAGES)} problem(s) stand above." in ended.err
    record = record_of(study)
    found = {row["subject_id"]: row for row in record["findings"] if row["level"] == "error"}
    assert set(found) == set(chosen.values())
    for name, subject_id in chosen.items():
        reason = DAMAGES[name][1]
        assert reason in found[subject_id]["reason"].replace("NIfTI image", "image") or (
            name == "text" and "not a NIfTI image" in found[subject_id]["reason"]
        )
        assert found[subject_id]["remedy"] and subject_id in ended.out
    odd = [row for row in record["findings"] if row["level"] == "warning"]
    assert [row["subject_id"] for row in odd] == [ids[0]] and "turned, flipped" in odd[0]["reason"]
    page = (study.root / "check" / "check.html").read_text(encoding="utf-8")
    assert page.index(f'data-subject="{ids[0]}"') == page.index("data-subject=")


def test_a_run_that_is_impossible_gives_2_with_every_reason_and_its_outputs(study, own_cohort):
    table = own_cohort / "participants.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines, lines[1]]) + "\n")
    for path in (own_cohort / "subjects").rglob("T1*.nii.gz"):
        path.unlink()
    ended = study.run("check", FEW, "NETWORK.widths=(4,4,4,4,4,4)")
    assert ended.code == 2 and "Traceback" not in ended.err
    for said in (
        "occur more than once",
        "is too small for 6 poolings",
        f"{CELL}: none of the 40 train",
    ):
        assert said in ended.err
        assert said in ended.out
    assert record_of(study)["counts"]["error"]["files"] > 300
    assert (study.root / "check" / "check.html").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cell", "T9_male"), "no such cell"),
        (("DATA.data_directory=nowhere",), "is no folder"),
        (("DATA.modality_flag=T9",), "no contrast T9"),
        (("--device", "cuda:99"), "torch sees"),
        (("DATA.subjects=nobody.csv",), "no such table"),
    ],
)
def test_wrong_settings_give_2(study, words, said):
    ended = study.run("check", FEW, *words)
    assert ended.code == 2 and said in ended.err and "Traceback" not in ended.err
    assert said in ended.out


def test_training_does_the_quick_part_by_itself(study, own_cohort, participants):
    rows = participants[(participants["sex"] == "female") & (participants["split"] == "train")]
    volume_of(own_cohort, rows["subject_id"].iloc[0]).unlink()
    ended = study.run("train", "--cell", CELL, "-e", "1", "MISC.experiments_directory=new")
    assert ended.code == 3
    assert "1 of the volumes looked at cannot be used; -m check names them all." in ended.err
    assert ended.err.index("volumes looked at") < ended.err.index("training T1_nonlinear_female")
    assert not (study.folder / "new" / "golden" / "check").exists()


def test_ids_are_text_and_stand_in_the_table_of_findings(study, own_cohort):
    ids = study.predictions("test", CELL)["subject_id"].tolist()
    rewritten(volume_of(own_cohort, ids[0]), lambda values: (values * 0.001).astype(np.float32))
    study.run("check", "CHECK.volumes=0", "--cell", CELL)
    row = next(row for row in record_of(study)["findings"] if row["subject_id"] == ids[0])
    assert row["part"] == "contents" and "times the cohort's median" in row["reason"]
