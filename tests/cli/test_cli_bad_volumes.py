"""Volumes that cannot be used are named with subject and reason, and never end a run."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

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


def test_a_missing_contrast_ends_its_cells_alone(study, own_cohort):
    for path in (own_cohort / "subjects").rglob("T1*.nii.gz"):
        path.unlink()
    ended = study.run("study", "-e", "1", "MISC.experiments_directory=new")
    assert ended.code == 3
    assert f"{CELL} was not trained: " in ended.err and "swi_female test: n 72" in ended.err
    root = study.folder / "new" / "golden"
    assert (root / "deltas_test.csv").is_file() and (root / "summary" / "report.html").is_file()
