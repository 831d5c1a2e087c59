"""A whole study through the real command line: its numbers, its files, and that a second call changes nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest

from tests.reference.make_golden_run import CELLS, NETWORKS, REFERENCE, ended, numbers

# Other processors and libraries add up in another order; training magnifies it from epoch to epoch.
TOLERANCE_OF_EPOCH = (1e-4, 1e-3, 1e-2, 1e-2)
# Another minor version of NumPy, SciPy or torch renders and adds up differently: measured up to 9e-4.
OTHER_LIBRARIES = 20
TOLERANCE_MAE_YEARS = 0.15
N_SUBJECTS = {"validation": 52, "test": 72}


def same_libraries(recorded_with: dict[str, str]) -> bool:
    """Whether the minor versions are those of the recorded numbers."""
    return all(
        metadata.version(name).split(".")[:2] == version.split(".")[:2]
        for name, version in recorded_with.items()
    )


@pytest.fixture(scope="module")
def recorded() -> dict:
    return json.loads(REFERENCE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def found(golden: Path) -> dict:
    return numbers(golden)


def test_both_modes_end_well_and_say_so(golden: Path):
    for mode in ("simulate", "study"):
        how = ended(golden, mode)
        assert how["code"] == 0, how["err"]
        assert how["err"].strip().splitlines()[-1] == f"{mode} finished."
        assert "Traceback" not in how["err"] and "Warning" not in how["err"]


@pytest.mark.parametrize("column", ["train_loss", "validation_loss", "validation_mae_years"])
def test_histories_are_the_recorded_ones(recorded: dict, found: dict, column: str):
    assert found[column].keys() == recorded[column].keys()
    for network, values in recorded[column].items():
        for epoch, (now, then) in enumerate(zip(found[column][network], values, strict=True)):
            tolerance = TOLERANCE_OF_EPOCH[epoch]
            if not same_libraries(recorded["recorded_with"]):
                tolerance *= OTHER_LIBRARIES
            assert now == pytest.approx(then, rel=tolerance), f"{network} epoch {epoch + 1}"


def test_accuracies_are_the_recorded_ones(recorded: dict, found: dict):
    wanted = recorded["test_mae_years"]
    assert found["test_mae_years"] == pytest.approx(wanted, abs=TOLERANCE_MAE_YEARS)
    assert found["test_null_mae_years"] == pytest.approx(recorded["test_null_mae_years"], abs=1e-4)


def test_standard_output_is_the_table_of_results(golden: Path, found: dict):
    lines = ended(golden, "study")["out"].splitlines()
    assert " ".join(lines[0].split()) == "contrast sex n MAE null MAE null/MAE r r(delta, truth)"
    shown = {tuple(line.split()[:2]): float(line.split()[3]) for line in lines[1:10]}
    assert shown[("swi", "male")] == pytest.approx(
        found["test_mae_years"]["swi male ensemble"], abs=0.006
    )
    assert ("ensemble", "all") in shown and len(shown) == 9


def test_every_file_of_the_layout_is_there(golden: Path):
    root = golden / "experiments" / "golden"
    wanted = [
        "bias_correction.json",
        "combination.json",
        "deltas_test.csv",
        "deltas_validation.csv",
    ]
    wanted += ["settings.ini", "settings_eval.ini", "logs/run.log"]
    for cell in CELLS:
        wanted += [f"{cell}/{kind}_{s}" for s in N_SUBJECTS for kind in ("predictions", "metrics")]
        for number in NETWORKS:
            files = ("best.pt", "last.pt", "epoch_0003.pt", "history.csv")
            wanted += [f"{cell}/network_{number}/{file}" for file in files]
    summary = (
        "metrics.csv associations.parquet associations_significant.csv associations.json nidps.csv"
    )
    summary += " report.html provenance.json settings.ini settings_eval.ini figures/captions.txt"
    wanted += [f"summary/{file}" for file in summary.split()]
    there = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    ending = {"predictions": ".csv", "metrics": ".json"}
    for name in wanted:
        kind = name.rpartition("/")[2].partition("_")[0]
        full = name if "." in name.rpartition("/")[2] else name + ending[kind]
        assert full in there, full
    assert any(name.startswith("logs/tensorboard/swi_male/network_2/") for name in there)
    figures = [name for name in there if "/figures/" in name and "manifest" not in name]
    assert {Path(name).suffix for name in figures} == {".png", ".svg", ".txt"}
    for folder in ("", f"{CELLS[0]}/", "summary/", "summary/figures/"):
        assert f"{folder}manifest.json" in there
    assert not [name for name in there if ".writing-" in name]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("split", N_SUBJECTS)
def test_predictions_have_a_row_for_every_subject(
    golden: Path, participants, cell: str, split: str
):
    path = golden / "experiments" / "golden" / cell / f"predictions_{split}.csv"
    table = pd.read_csv(path, dtype={"subject_id": str})
    assert " ".join(table) == (
        "subject_id age_years predicted_years_1 predicted_years_2 predicted_years predicted_sd_years "
        "delta_years status note"
    )
    sex = cell.rpartition("_")[2]
    asked = participants[(participants["split"] == split) & (participants["sex"] == sex)]
    assert len(table) == N_SUBJECTS[split]
    assert table["subject_id"].tolist() == asked["subject_id"].tolist()
    assert table["age_years"].to_numpy() == pytest.approx(asked["age_years"].to_numpy())
    assert set(table["status"]) == {"ok"}
    mean = table[["predicted_years_1", "predicted_years_2"]].mean(axis=1)
    assert table["predicted_years"].to_numpy() == pytest.approx(mean.to_numpy(), abs=2e-6)
    delta = table["predicted_years"] - table["age_years"]
    assert table["delta_years"].to_numpy() == pytest.approx(delta.to_numpy(), abs=2e-6)


def test_deltas_hold_every_contrast_and_the_ensemble(golden: Path):
    table = pd.read_csv(golden / "experiments/golden/deltas_test.csv", dtype={"subject_id": str})
    assert " ".join(table) == (
        "subject_id sex contrast age_years predicted_years delta_years corrected_delta_years delta_z note"
    )
    assert table.groupby(["contrast", "sex"]).size().eq(72).all()
    assert set(table["contrast"]) == {"T1_nonlinear", "swi", "ensemble"}
    assert table["corrected_delta_years"].notna().all()


def test_associations_say_why_a_row_has_no_p(golden: Path):
    table = pd.read_parquet(golden / "experiments/golden/summary/associations.parquet")
    tested = table["reason"] == ""
    assert tested.any() and (~tested).any()
    assert table.loc[tested, "nlog10p"].notna().all() and table.loc[~tested, "nlog10p"].isna().all()


def test_the_same_command_again_trains_nothing_and_changes_no_result(
    golden: Path, tmp_path: Path, program
):
    again = tmp_path / "again"
    shutil.copytree(golden, again, ignore=shutil.ignore_patterns("cohort"))
    (again / "cohort").symlink_to(golden / "cohort")
    done = program("-m", "study", "-n", "golden", folder=again)
    assert done.returncode == 0, done.stderr
    assert "goes on after epoch 4" in done.stderr and "epoch 1/4" not in done.stderr
    assert done.stdout == ended(golden, "study")["out"]
    assert _hashes(again) == _hashes(golden)


def _hashes(folder: Path) -> dict[str, str]:
    """File -> sha256 of an experiment; logs carry the time of day."""
    root = folder / "experiments" / "golden"
    files = [path for path in root.rglob("*") if path.is_file() and "logs" not in path.parts]
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
