"""Real scanner images, where they lie beside the checkout (skipped elsewhere): the examples of the docs.

IXI (brain-development.org, CC BY-SA 3.0): ten T1 heads, stored PSR at 2 mm, not in MNI space.
Lesjak et al. 2018 (doi 10.1007/s12021-017-9348-7, CC-BY): one patient's T1 in MNI space, LAS, 1 mm.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from datasets.contrasts import read_contrast_table
from datasets.volumes import VolumeReader, read_crop

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT.parent / "shared" / "realdata"
EXAMPLE = ROOT / "docs" / "examples" / "scanner"

needs_images = pytest.mark.skipif(
    not IMAGES.is_dir(), reason="no scanner images beside the checkout"
)


@pytest.fixture
def folder(tmp_path):
    """The example's folder with the images in it."""
    shutil.copytree(EXAMPLE, tmp_path / "scanner")
    for name in ("ixi10", "ms_mni"):
        (tmp_path / "scanner" / name).symlink_to(IMAGES / name)
    return tmp_path / "scanner"


def run(mode, name, *more):
    command = [sys.executable, str(ROOT / "run.py"), "-m", mode, "-n", str(name), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@needs_images
def test_ten_heads_are_conformed_trained_tested_and_get_raw_deltas(folder):
    assert run("split", folder / "ixi").returncode == 0
    done = run("study", folder / "ixi", "-e", "2")
    assert done.returncode == 0, done.stderr
    results = folder / "experiments" / "ixi"
    deltas = pd.read_csv(results / "deltas_test.csv")
    assert len(deltas) == 2 and deltas["delta_years"].notna().all()
    assert deltas["corrected_delta_years"].isna().all()
    assert deltas["note"].str.contains("at least 50 are needed").all()
    assert "2 subjects to fit the age-bias correction on" in done.stderr
    page = (results / "summary" / "report.html").read_text()
    assert "IXI0" not in page


@needs_images
def test_without_conforming_each_head_is_refused_with_its_reason(folder):
    assert run("split", folder / "ixi").returncode == 0
    done = run("train", folder / "ixi", "--set", "DATA.conform=strict")
    assert done.returncode == 1
    assert "orientation PSR, expected LAS" in done.stderr and "conform = strict" in done.stderr


@needs_images
def test_crop_and_scaling_at_native_geometry():
    contrast = read_contrast_table(EXAMPLE / "mni_patient_contrasts.csv")["T1"]
    path = IMAGES / "ms_mni" / "patient07_T1.nii.gz"
    stored = np.asarray(nib.load(path).dataobj, dtype=np.float64)
    expected = stored[10:170, 12:204, 0:160]
    crop = read_crop(path, contrast)
    assert crop.shape == (160, 192, 160)
    np.testing.assert_array_equal(crop, expected.astype(np.float32))
    np.testing.assert_allclose(
        VolumeReader(contrast, 4.0).read(path),
        expected / expected.mean() / 4.0,
        rtol=1e-5,
        atol=1e-6,
    )


@needs_images
def test_a_patient_in_mni_space_is_predicted_with_networks_trained_elsewhere(folder):
    """One contrast and three simulated 1 mm subjects; the docs' example has three contrasts and eight."""
    few = ["DATA.modality_flag=T1", "NETWORK.widths=(2,2,4,4,4)", "TRAINING.ensemble_size=2"]
    people = ["contrasts=('T1_nonlinear',)", "n_train_per_sex=1", "n_validation_per_sex=1"]
    people += ["n_test_per_sex=1", "n_nidps=8"]
    settings = [*few, *(f"SIMULATION.{text}" for text in people)]
    given = [word for text in settings for word in ("--set", text)]
    for mode in ("simulate", "train"):
        done = run(mode, folder / "mni_train", *given)
        assert done.returncode == 0, done.stderr
    done = run("predict", folder / "mni_patient", "--set", "DATA.modality_flag=T1")
    table = pd.read_csv(folder / "experiments/mni_patient/T1_both/predictions_predict.csv")
    assert table["subject_id"].tolist() == ["patient07"] and table["status"].tolist() == ["ok"]
    assert table["age_years"].isna().all() and np.isfinite(table["predicted_years"]).all()
    assert done.returncode in (0, 3), (
        done.stderr
    )  # 3: these networks are no better than the mean age
