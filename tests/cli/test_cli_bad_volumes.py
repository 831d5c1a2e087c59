"""Volumes that cannot be used are named with subject and reason, and never end a run."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from datasets import volumes
from datasets.images import ReadFaultError, open_image

CELL = "T1_nonlinear_female"


def volume_of(own_cohort: Path, subject_id: str) -> Path:
    """The T1 volume of a subject; a link that may be replaced."""
    return next((own_cohort / "subjects" / subject_id).rglob("T1*.nii.gz"))


def rewritten(path: Path, change) -> None:
    """Replace a volume by a changed one."""
    image = nib.load(path)
    values = change(np.asarray(image.dataobj))
    content = nib.Nifti1Image(values, image.affine).to_bytes()
    path.unlink()
    path.write_bytes(gzip.compress(content))


def truncated(path: Path) -> None:
    """Cut a file in the middle."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


def with_flipped_bit(path: Path) -> None:
    """Flip one bit in the middle of the compressed data."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.unlink()
    path.write_bytes(bytes(content))


def with_nan(values: np.ndarray) -> np.ndarray:
    """Three NaN in the middle."""
    values = values.astype(np.float32)
    x, y, z = (size // 2 for size in values.shape)
    values[x, y, z : z + 3] = np.nan
    return values


DAMAGES = {
    "missing": (lambda path: path.unlink(), "no such file"),
    "truncated": (truncated, "is damaged or truncated"),
    "flipped": (with_flipped_bit, "is damaged or truncated"),
    "text": (lambda path: (path.unlink(), path.write_text("hello")), "is not a NIfTI image"),
    "shape": (lambda path: rewritten(path, lambda v: v[:-1].astype(np.int16)), "shape "),
    "zero": (
        lambda path: rewritten(path, lambda v: v * np.int16(0)),
        "is zero everywhere in the crop",
    ),
    "constant": (
        lambda path: rewritten(path, lambda v: v * np.int16(0) + np.int16(7)),
        "is constant (7)",
    ),
    "nan": (lambda path: rewritten(path, with_nan), "3 voxel(s) are NaN or infinite"),
}


@pytest.fixture
def damaged(study, own_cohort) -> dict[str, str]:
    """Damage -> test subject whose T1 volume has it."""
    ids = study.predictions("test", CELL)["subject_id"].tolist()
    chosen = dict(zip(DAMAGES, ids[3:]))
    for name, subject_id in chosen.items():
        DAMAGES[name][0](volume_of(own_cohort, subject_id))
    return chosen


def test_testing_goes_on_and_names_each_subject_with_its_reason(study, own_cohort, damaged):
    before = study.predictions("test", CELL).set_index("subject_id")
    ended = study.run("test", "--cell", CELL)
    assert ended.code == 3
    assert "Traceback" not in ended.err
    after = study.predictions("test", CELL).set_index("subject_id")
    for name, subject_id in damaged.items():
        reason = DAMAGES[name][1]
        named = f"{CELL} test: subject {subject_id} is left out: "
        line = next(line for line in ended.err.splitlines() if named in line)
        assert "cohort/subjects/" in line and reason in line
        assert after.loc[subject_id, "status"] == "failed"
        assert reason in after.loc[subject_id, "note"]
        assert np.isnan(after.loc[subject_id, "predicted_years"])
    good = ~after.index.isin(damaged.values())
    assert list(after.index) == list(before.index)
    years = "predicted_years"  # batches of other subjects round differently
    assert after.loc[good, years].to_numpy() == pytest.approx(
        before.loc[good, years].to_numpy(), abs=1e-4
    )
    assert f"n {good.sum()}, MAE" in ended.err and f"{len(damaged)} failed" in ended.err
    assert ended.err.strip().endswith(f"test finished; {len(damaged)} problem(s) stand above.")


@pytest.mark.parametrize("memory_gb", ["4", "0"])
def test_training_goes_on_without_them(study, own_cohort, participants, memory_gb: str):
    rows = participants[(participants["sex"] == "female") & (participants["split"] == "train")]
    chosen = dict(zip(DAMAGES, rows["subject_id"]))
    for name, subject_id in chosen.items():
        DAMAGES[name][0](volume_of(own_cohort, subject_id))
    ended = study.run(
        "train",
        "--cell",
        CELL,
        "-e",
        "1",
        f"DATA.memory_gb={memory_gb}",
        "MISC.experiments_directory=new",
    )
    assert ended.code == 3
    for name, subject_id in chosen.items():
        assert f"{CELL} train: subject {subject_id} is left out: " in ended.err
        assert DAMAGES[name][1] in ended.err
    assert ended.err.count("is left out") == len(DAMAGES)
    assert (study.folder / "new" / "golden" / CELL / "network_2" / "last.pt").is_file()


def test_no_usable_volume_at_all_is_said_with_the_first_file(study, own_cohort):
    for path in (own_cohort / "subjects").rglob("T1*.nii.gz"):
        path.unlink()
    ended = study.run("train", "--cell", CELL, "MISC.experiments_directory=new")
    assert ended.code == 1
    assert "no training volume" in ended.err and "no such file" in ended.err
    ended = study.run("test", "--cell", CELL)
    assert ended.code in (1, 3)
    assert "no subject with an age was predicted" in ended.err


@pytest.mark.parametrize("split", ["train", "validation"])
def test_prepared_volumes_of_which_none_can_be_used(study, own_cohort, participants, split: str):
    """The cache knows it, so that no network is trained on nothing."""
    contrasts = pd.read_csv(own_cohort / "contrasts.csv")
    contrasts.assign(scale_factor=1000.0).to_csv(own_cohort / "contrasts.csv", index=False)
    chosen = (participants["sex"] == "female") & (participants["split"] == split)
    for subject_id in participants.loc[chosen, "subject_id"]:
        DAMAGES["zero"][0](volume_of(own_cohort, subject_id))
    n = chosen.sum()
    assert study.run("prepare", "--cell", CELL).code == 3
    ended = study.run("train", "--cell", CELL, "-e", "1", "MISC.experiments_directory=new")
    name = {"train": "training"}.get(split, split)
    assert ended.code == 1, ended.err
    assert f"none of the {n} {name} volumes can be used; the first, " in ended.err
    assert "is zero everywhere in the crop." in ended.err and "collapsed" not in ended.err
    assert not list((study.folder / "new").rglob("*.pt"))


def test_only_volumes_that_are_not_prepared_count_for_the_memory(study, participants):
    chosen = (participants["sex"] == "female") & participants["split"].isin(("train", "validation"))
    n = chosen.sum()
    left_out = study.folder / "not_yet.txt"
    left_out.write_text(participants.loc[chosen, "subject_id"].iloc[0] + "\n")
    assert study.run("prepare", "--cell", CELL, f"DATA.exclude={left_out}").code == 0

    def train(memory_gb: str) -> str:
        ended = study.run(
            "train", "--cell", CELL, "-e", "1", "-c", "0", "--yes",
            "MISC.experiments_directory=new", f"DATA.memory_gb={memory_gb}",
        )  # fmt: skip
        assert ended.code in (0, 3), ended.err
        return ended.err

    said = train("0")
    assert (
        f"  1 of {n} volumes are not prepared and do not fit into memory_gb = 0; they are" in said
    )
    assert "do not fit" not in train("0.001")  # room for a few volumes, not for all


def test_a_failed_check_leaves_the_old_weights_where_they_are(study, own_cohort):
    for path in (own_cohort / "subjects").rglob("T1*.nii.gz"):
        path.unlink()
    before = {path: path.read_bytes() for path in study.root.rglob("*.pt")}
    ended = study.run("train", "--cell", CELL, "-c", "0", "--yes")
    assert ended.code == 1 and "no training volume" in ended.err
    assert before and {path: path.read_bytes() for path in study.root.rglob("*.pt")} == before
    assert "moved the old run aside" not in ended.err and not (study.root / "previous").exists()


@pytest.mark.parametrize("memory_gb", ["4", "0"])
def test_a_fault_that_passes_is_reported_and_the_subject_used_again(
    study, own_cohort, participants, monkeypatch, memory_gb: str
):
    chosen = (participants["sex"] == "female") & (participants["split"] == "validation")
    subject_id = participants.loc[chosen, "subject_id"].iloc[4]
    path, reason = volume_of(own_cohort, subject_id), "cannot be read (Input/output error)"
    calls = []

    def open_later(asked: Path):
        if Path(asked) == path:
            calls.append(asked)
            if len(calls) == 1:
                raise ReadFaultError(reason)
        return open_image(asked)

    monkeypatch.setattr(volumes, "open_image", open_later)
    ended = study.run(
        "train", "--cell", CELL, "-e", "2",
        f"DATA.memory_gb={memory_gb}", "MISC.experiments_directory=new",
    )  # fmt: skip
    assert ended.code == 3 and "is left out" not in ended.err, ended.err
    assert (
        f"{CELL} validation: subject {subject_id} could not always be read, and was left out then: "
        f"{path} {reason}."
    ) in ended.err
    table = pd.read_csv(study.folder / "new" / "golden" / CELL / "volumes_validation.csv")
    assert len(calls) > 1 and set(table["status"]) == {"ok"}


def test_a_missing_contrast_ends_its_cells_alone(study, own_cohort):
    for path in (own_cohort / "subjects").rglob("T1*.nii.gz"):
        path.unlink()
    ended = study.run("study", "-e", "1", "MISC.experiments_directory=new")
    assert ended.code == 3
    assert f"{CELL} was not trained: " in ended.err and "swi_female test: n 72" in ended.err
    root = study.folder / "new" / "golden"
    assert (root / "deltas_test.csv").is_file() and (root / "summary" / "report.html").is_file()
