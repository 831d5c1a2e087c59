"""A tiny cohort of NIfTI volumes with a contrast table of its own grid, for every test that reads images."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny volumes: more threads only wait for each other

from pathlib import Path

if not Path(
    "/dev/nvidia0"
).exists():  # before torch imports Triton: its interpreter runs the kernels
    os.environ.setdefault("TRITON_INTERPRET", "1")

from dataclasses import dataclass

import nibabel as nib
import numpy as np
import pytest

from datasets.contrasts import Contrast, read_contrast_table
from utils.common.randomness import generator

SHAPE = (18, 20, 17)
CROP = "1:17 2:20 0:16"  # 16 x 18 x 16
N_SUBJECTS = 13


def las_affine(voxel_mm: float) -> np.ndarray:
    """The MNI box's corner, stored LAS, as UK Biobank's volumes are."""
    affine = np.diag([-voxel_mm, voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = (90.0, -126.0, -72.0)
    return affine


def save_volume(
    path: Path,
    values: np.ndarray,
    voxel_mm: float = 8.0,
    affine: np.ndarray | None = None,
    slope: float = 1.0,
    intercept: float = 0.0,
) -> Path:
    """Write stored (unscaled) values as NIfTI, with slope and intercept in the header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, las_affine(voxel_mm) if affine is None else affine)
    image.header.set_data_dtype(values.dtype)
    image.header.set_slope_inter(slope, intercept)
    if (slope, intercept) == (1.0, 0.0):
        nib.save(image, path)
        return path
    # nibabel would divide by the slope when it saves; the stored values are meant here
    unscaled = nib.Nifti1Image(nib.Nifti1Image(values, image.affine).dataobj, image.affine)
    unscaled.header.set_data_dtype(values.dtype)
    plain = bytearray(unscaled.to_bytes())
    plain[112:120] = np.array([slope, intercept], dtype="<f4").tobytes()  # scl_slope, scl_inter
    opened = path.open("wb") if path.suffix == ".nii" else nib.openers.Opener(str(path), "wb")
    with opened as handle:
        handle.write(bytes(plain))
    return path


@dataclass(frozen=True)
class TinyCohort:
    """Folder, contrast, ids, ages and files of a handful of subjects."""

    folder: Path
    table: Path
    contrast: Contrast
    subject_ids: list[str]
    ages_years: np.ndarray
    paths: list[Path]


def equal(first, second) -> bool:
    """Whether two states are the same to the last bit."""
    if hasattr(first, "is_contiguous"):  # a tensor; torch is not imported for tests without it
        return type(first) is type(second) and first.equal(second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[k], second[k]) for k in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(equal, first, second))
    return first == second or (first != first and second != second)  # NaN is NaN


@pytest.fixture(scope="session")
def same_to_the_bit():
    """Function that compares two states."""
    return equal


@pytest.fixture(scope="session")
def write_volume():
    """Function that writes a NIfTI volume."""
    return save_volume


@pytest.fixture
def tiny_cohort(tmp_path: Path) -> TinyCohort:
    """Thirteen subjects whose volumes brighten with age."""
    table = tmp_path / "contrasts.csv"
    table.write_text(
        "name,scale_factor,resolution,data_file,shape,crop\n"
        f"tiny,100,8mm,tiny.nii.gz,{' '.join(map(str, SHAPE))},{CROP}\n"
    )
    ids = [f"{number:04d}" for number in range(1, N_SUBJECTS + 1)]
    ages = np.linspace(46.0, 80.0, N_SUBJECTS)
    paths = []
    for subject_id, age in zip(ids, ages):
        draw = generator("tiny cohort", subject_id)
        values = (draw.integers(0, 60, SHAPE) + age).astype(np.int16)
        paths.append(save_volume(tmp_path / "subjects" / subject_id / "tiny.nii.gz", values))
    contrast = read_contrast_table(table)["tiny"]
    return TinyCohort(tmp_path / "subjects", table, contrast, ids, ages, paths)
