"""Networks that leave: exported here, used by somebody who has neither ages nor this study's files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from BrainAgeNetworks.checkpoints import load_checkpoint, save_checkpoint
from tests.cli.conftest import Study

CELLS = ["T1_nonlinear_female", "T1_nonlinear_male", "swi_female", "swi_male"]


@pytest.fixture(scope="module")
def exported(golden: Path, tmp_path_factory, program) -> Path:
    """The study with networks that count as better than the mean age, tested and exported."""
    folder = tmp_path_factory.mktemp("exported")
    for ini in golden.glob("*.ini"):
        shutil.copy(ini, folder)
    (folder / "cohort").symlink_to(golden / "cohort")
    leave = shutil.ignore_patterns("tensorboard", "figures")
    shutil.copytree(golden / "experiments", folder / "experiments", ignore=leave)
    for path in folder.glob("experiments/golden/*/network_*/best.pt"):
        content = load_checkpoint(path)
        content["validation_mae_years"] = 0.5 * content["validation_null_mae_years"]
        content.pop("format_version")
        save_checkpoint(content, path)
    for mode in ("test", "ensemble", "export"):
        ended = program("-m", mode, "-n", "golden", folder=folder)
        assert ended.returncode in (0, 3), ended.stderr  # the gate sees that they learned little
    return folder


@pytest.fixture
def good(exported: Path, tmp_path: Path, capsys) -> Study:
    """A copy of it that a test may change."""
    shutil.copytree(exported, tmp_path, symlinks=True, dirs_exist_ok=True)
    return Study(tmp_path, capsys.readouterr)


def card(study, cell: str = CELLS[0]) -> dict:
    return json.loads((study.root / "export" / cell / "model_card.json").read_text())


@pytest.fixture
def elsewhere(good, golden, participants) -> Path:
    """A folder with an export, volumes and a list of people without ages, and nothing else."""
    place = good.folder / "elsewhere"
    shutil.copytree(good.root / "export", place / "networks")
    (place / "images").symlink_to(golden / "cohort" / "subjects")
    test = participants[participants["split"] == "test"]
    test[["subject_id", "sex"]].to_csv(place / "people.csv", index=False)
    (place / "new.ini").write_text(
        '[DATA]\ndataset_sex = ("female", "male")\nmodality_flag = "all"\ndata_directory = "images"\n'
        '[MISC]\ndevice = "cpu"\n'
    )
    (place / "new_eval.ini").write_text(
        '[MAPPING]\nexported = "networks"\npredict_subjects = "people.csv"\n'
    )
    for path in good.root.glob("*/network_*"):
        shutil.rmtree(path)  # whatever is used is the export
    return place


def predictions(folder: Path, cell: str, split: str) -> pd.DataFrame:
    path = folder / cell / f"predictions_{split}.csv"
    return pd.read_csv(path, dtype={"subject_id": str}).set_index("subject_id")


def test_elsewhere_they_predict_the_same_ages(good, elsewhere):
    ended = good.run("predict", name="elsewhere/new")
    assert ended.code in (0, 3), ended.err
    for cell in CELLS:
        here = predictions(good.root, cell, "test")
        there = predictions(elsewhere / "experiments" / "new", cell, "predict")
        assert there["age_years"].isna().all() and there["predicted_years"].notna().all()
        columns = ["predicted_years_1", "predicted_years_2", "predicted_years"]
        difference = (here[columns] - there.loc[here.index, columns]).abs().to_numpy()
        # one volume more or less in a batch, and prepared or not, may change the last bits
        assert difference.max() < 1e-4
        record = json.loads(
            (elsewhere / "experiments" / "new" / cell / "predictions_predict.json").read_text()
        )
        assert record["experiment_name"] == "golden (exported)" and record["n"] == len(here)
        # who is far outside of the training ages is noted as at home
        assert [flag["name"] for flag in record["flags"]] == [
            flag["name"] for flag in json.loads((good.root / cell / "metrics_test.json").read_text())["flags"]
            if flag["name"] != "no_correlation"
        ]  # fmt: skip


def test_the_card_has_the_accuracy_and_the_bias_correction_of_home(good):
    found = card(good)
    metrics = json.loads((good.root / CELLS[0] / "metrics_test.json").read_text())
    assert found["metrics"]["test"]["n"] == 72
    assert found["metrics"]["test"]["mae_years"] == metrics["ensemble"]["mae_years"]
    assert found["metrics"]["test"]["null_mae_years"] == metrics["null_mae_years"]
    line = json.loads((good.root / "bias_correction.json").read_text())
    line = line["corrections"]["female"]["test"]["T1_nonlinear"]
    assert found["bias_correction"]["alpha_years"] == line["alpha_years"]
    assert found["bias_correction"]["beta"] == line["beta"]
    assert isinstance(found["bias_correction"]["age_min_years"], int)
    text = (good.root / "export" / CELLS[0] / "MODEL_CARD.md").read_text()
    assert f"| test | 72 | {metrics['age_mean_years']:.1f} (SD" in text
    assert "corrected delta = predicted - (" in text and "Trained on simulated volumes" in text


def test_accuracy_of_other_networks_is_not_in_the_card(good):
    path = good.network(1, CELLS[0]) / "best.pt"
    content = load_checkpoint(path)
    content.pop("format_version")
    content["weights"]["FullyConnected.FullyConnected_1.bias"] += 1.0
    save_checkpoint(content, path)
    ended = good.run("export", "--cell", CELLS[0])
    assert ended.code == 0
    assert "the networks are not those that were tested; run -m test again" in ended.err
    assert set(card(good)["metrics"]["test"]) == {"left_out"}
    assert "run -m test and -m ensemble again" in card(good)["bias_correction"]["left_out"]
    assert good.run("test").code in (0, 3)
    assert good.run("export", "--cell", CELLS[0]).code == 0
    assert card(good)["metrics"]["test"]["n"] == 72
    assert "run -m test and -m ensemble again" in card(good)["bias_correction"]["left_out"]


def test_nobody_of_the_cohort_and_no_place_is_in_an_export(good, participants):
    files = [path for path in (good.root / "export").rglob("*") if path.is_file()]
    assert len(files) == 4 * 4
    ids = [subject_id.encode() for subject_id in participants["subject_id"]]
    ages = [f"{age:g}".encode() for age in participants["age_years"] if age != round(age, 1)]
    assert len(ids) == 328 and len(ages) > 200
    places = [str(good.folder).encode(), b"cohort/", b"participants.csv", b"T1_brain_to_MNI"]
    for path in files:
        data = path.read_bytes()
        assert [text for text in (*ids, *places) if text in data] == [], path
        if path.suffix == ".json":
            numbers = set(data.replace(b",", b" ").split())
            assert numbers & set(ages) == set()


def test_one_cell_by_its_own_folder_and_what_is_not_there_is_named(good, elsewhere):
    words = ("MAPPING.exported=networks/swi_male", "DATA.modality_flag=swi")
    ended = good.run("predict", *words, name="elsewhere/new")
    assert ended.code == 3, ended.err
    assert "swi_male: 72 of 72 subjects predicted" in ended.err
    assert "swi_female predicted nobody: " in ended.err and "it has swi_male." in ended.err


def test_a_new_cohort_with_ages_is_tested_with_them(good, elsewhere, participants):
    test = participants[participants["split"] == "test"].iloc[::2]
    test[["subject_id", "sex", "age_years", "split"]].to_csv(elsewhere / "aged.csv", index=False)
    words = ("DATA.subjects=aged.csv", "MAPPING.dataset_type=test", "MAPPING.bootstrap_resamples=0")
    ended = good.run("test", *words, name="elsewhere/new")
    assert ended.code in (0, 3), ended.err
    for cell in CELLS:
        here = predictions(good.root, cell, "test")
        there = predictions(elsewhere / "experiments" / "new", cell, "test")
        difference = here.loc[there.index, "predicted_years"] - there["predicted_years"]
        assert np.abs(difference).max() < 1e-4
        metrics = json.loads(
            (elsewhere / "experiments" / "new" / cell / "metrics_test.json").read_text()
        )
        assert metrics["trained_in"] == "golden (exported)"
        assert metrics["training_mean_age_years"] == pytest.approx(
            json.loads((good.root / cell / "metrics_test.json").read_text())["training_mean_age_years"]
        )  # fmt: skip
    assert "trained on other subjects than the lists now name" not in ended.err


def test_a_damaged_export_is_refused_and_the_others_predict(good, elsewhere):
    path = elsewhere / "networks" / "swi_male" / "network_2.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(bytes(data))
    ended = good.run("predict", name="elsewhere/new")
    assert ended.code == 3
    assert "swi_male predicted nobody: " in ended.err
    assert "network_2.safetensors: is damaged, or not the file that was written" in ended.err
    assert "swi_female: 72 of 72 subjects predicted" in ended.err


def test_what_to_set_is_said_and_then_in_the_card(good):
    assert "set [EXPORT] licence and contact" in good.run("export").err
    ended = good.run("export", "EXPORT.licence=CC0-1.0", "EXPORT.contact=me@example.org")
    assert ended.code == 0 and "set [EXPORT]" not in ended.err
    assert "read back and found to give the same ages to the last bit" in ended.err
    assert (card(good)["licence"], card(good)["contact"]) == ("CC0-1.0", "me@example.org")


def test_without_networks_it_says_what_to_do(study):
    shutil.rmtree(study.root / "swi_male")
    ended = study.run("export", "--cell", "swi_male")
    assert ended.code == 1 and "no trained network; run -m train first" in ended.err
