"""The contrast table: one row is one contrast, its file, its grid and its scaling.

`scaling_values_simple.csv` holds the 57 contrasts of AgeMapper (Roibu et al. 2023) with the published
scale factors, (c) 2021 Andrei-Claudiu Roibu, BSD-3-Clause. A study may bring a table of its own with
more rows and the optional columns `shape`, `crop`, `volume_index`, `divide_by_mean` and `category`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.common.errors import UserError
from utils.common.tables import read_table
from utils.common.text import shown

PUBLISHED_TABLE = Path(__file__).with_name("scaling_values_simple.csv")

Shape = tuple[int, int, int]
Crop = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

# UK Biobank's MNI grids and AgeMapper's crops of them (first to last axis).
PUBLISHED_GRIDS: dict[float, tuple[Shape, Crop]] = {
    1.0: ((182, 218, 182), ((10, 170), (12, 204), (0, 160))),
    2.0: ((91, 109, 91), ((5, 85), (6, 102), (0, 80))),
}
# Positions within a volume are kept in 32 bits, within a row in 16.
MOST_VOXELS_AN_EDGE = 1600
# Columns of tables with a column a contrast, and the combination.
NOT_CONTRASTS = ("ensemble", "null", "sex", "split", "age_years", "subject_id")
# AgeMapper divides these by the mean of the cropped volume before the scale factor.
DIVIDED_BY_MEAN = ("T1_nonlinear", "T1_linear", "T2_nonlinear")
# How a volume becomes input: as AgeMapper's release does it, or as that of SFCN (Peng et al. 2021).
AGEMAPPER, PENG = "agemapper", "peng"
# Volume 0 sits at this world coordinate (mm) in the LAS box of the MNI152 template as FSL stores it.
MNI_ORIGIN_MM = (90.0, -126.0, -72.0)


@dataclass(frozen=True)
class Contrast:
    """One MRI contrast: where its file is, and how the file becomes a network's input."""

    name: str
    data_file: str
    scale_factor: float | None  # None: `auto`, from the training set
    voxel_mm: float
    shape: Shape
    crop: Crop
    volume_index: int | None  # which volume of a 4D file
    divide_by_mean: bool
    category: str
    preprocessing: str = AGEMAPPER  # or PENG: the mean is that of the whole volume

    @property
    def box(self) -> Shape:
        """Shape of a cropped volume, i.e. of the network's input (X, Y, Z)."""
        return tuple(stop - start for start, stop in self.crop)  # type: ignore[return-value]

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) voxel to world (mm) of the LAS grid that starts at the MNI box's corner."""
        affine = np.diag([-self.voxel_mm, self.voxel_mm, self.voxel_mm, 1.0])
        affine[:3, 3] = MNI_ORIGIN_MM
        return affine

    @property
    def in_mni_box(self) -> bool:
        """Whether its grid is one of UK Biobank's MNI grids, whose place in the world is known."""
        return self.shape == PUBLISHED_GRIDS.get(self.voxel_mm, (None,))[0]

    def describe(self) -> dict[str, Any]:
        """Plain values, for checkpoints and records."""
        return {
            "name": self.name,
            "data_file": self.data_file,
            "scale_factor": self.scale_factor,
            "voxel_mm": self.voxel_mm,
            "shape": list(self.shape),
            "crop": [list(pair) for pair in self.crop],
            "volume_index": self.volume_index,
            "divide_by_mean": self.divide_by_mean,
            "preprocessing": self.preprocessing,
        }


def read_contrast_table(path: str | Path) -> dict[str, Contrast]:
    """Read a contrast table (CSV or TSV; the name may be the unnamed first column).

    Raises
    ------
    UserError
        A needed column or value is missing or malformed; the row is named.
    """
    table = read_table(path)
    if table.columns[0] in ("", "Unnamed: 0"):
        table = table.rename(columns={table.columns[0]: "name"})
    missing = [c for c in ("name", "scale_factor", "resolution", "data_file") if c not in table]
    if missing:
        raise UserError(f"{path}: the contrast table lacks the column(s) {', '.join(missing)}.")
    contrasts = {}
    for row in table.to_dict("records"):
        contrast = _contrast(row, path)
        if contrast.name in contrasts:
            raise UserError(f"{path}: contrast {contrast.name} occurs twice.")
        contrasts[contrast.name] = contrast
    return contrasts


def preprocessed(contrast: Contrast, preprocessing: str) -> Contrast:
    """A contrast of the table as `[DATA] preprocessing` has it.

    "agemapper": as the table says. "peng": divided by the mean of the whole volume, not by a scale
    factor, and cropped to a box of the same size about the centre, (shape - box) // 2 on each axis.
    Source of the latter: Peng et al. 2021, Medical Image Analysis 68:101871, as in the authors' release.
    """
    if preprocessing == AGEMAPPER:
        return contrast
    starts = [(size - edge) // 2 for size, edge in zip(contrast.shape, contrast.box)]
    crop: Any = tuple((start, start + edge) for start, edge in zip(starts, contrast.box))
    return replace(
        contrast, crop=crop, scale_factor=1.0, divide_by_mean=True, preprocessing=preprocessing
    )


def described_contrast(record: dict[str, Any]) -> dict[str, Any]:
    """The contrast of a record as `describe` gives it now; records of earlier versions knew one preprocessing."""
    return {"preprocessing": AGEMAPPER, **record}


def choose_contrasts(table: dict[str, Contrast], flag: str | tuple[str, ...]) -> list[Contrast]:
    """The contrasts of `modality_flag`: one name, several, or "all"."""
    names = list(table) if flag == "all" else [flag] if isinstance(flag, str) else list(flag)
    unknown = [name for name in names if name not in table]
    if unknown:
        raise UserError(
            f"modality_flag: no contrast {', '.join(unknown)} in the table; it has {', '.join(table)}."
        )
    if not names or len(set(names)) < len(names):
        raise UserError("modality_flag: name each contrast once, and at least one.")
    return [table[name] for name in names]


def _contrast(row: dict[str, Any], path: str | Path) -> Contrast:
    name = _text(row.get("name"))
    where = f"{path}: contrast {shown(name) or '(no name)'}"
    if (
        not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*(_[A-Za-z0-9.-]+)*", name)
        or name in NOT_CONTRASTS
    ):
        raise UserError(
            f"{where}: a name has letters, digits, '.', '-' and '_', and is none of {', '.join(NOT_CONTRASTS)}."
        )
    data_file = _text(row.get("data_file"))
    if not data_file:
        raise UserError(f"{where}: data_file is empty.")
    voxel_mm = _voxel_mm(_text(row.get("resolution")), where)
    shape, crop = _grid(row, voxel_mm, where)
    flag = _text(row.get("divide_by_mean")).lower()
    if flag not in ("", "true", "false", "1", "0", "1.0", "0.0"):
        raise UserError(f"{where}: divide_by_mean is {shown(flag)!r}, not True or False.")
    return Contrast(
        name=name,
        data_file=data_file,
        scale_factor=_scale_factor(_text(row.get("scale_factor")), where),
        voxel_mm=voxel_mm,
        shape=shape,
        crop=crop,
        volume_index=_volume_index(name, _text(row.get("volume_index")), where),
        divide_by_mean=flag in ("true", "1", "1.0") if flag else name in DIVIDED_BY_MEAN,
        category=_text(row.get("category")),
    )


def _text(value: Any) -> str:
    return "" if value is None or pd.isna(value) else str(value).strip()


def _voxel_mm(text: str, where: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?mm", text)
    if not match or not 0.1 <= float(match.group(1)) <= 50:
        raise UserError(f"{where}: resolution is {shown(text)!r}, not e.g. 1mm or 2mm.")
    return float(match.group(1))


def _scale_factor(text: str, where: str) -> float | None:
    if text == "auto":
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value) or value <= 0:
        raise UserError(f"{where}: scale_factor is {shown(text)!r}, not a number above 0 or auto.")
    return value


def _volume_index(name: str, text: str, where: str) -> int | None:
    if text:
        if not re.fullmatch(r"\d{1,6}(\.0)?", text):
            raise UserError(f"{where}: volume_index is {shown(text)!r}, not a whole number from 0.")
        return int(float(text))
    published = re.fullmatch(r"rsfmri_(\d{1,6})", name)
    return int(published.group(1)) if published else None


def _grid(row: dict[str, Any], voxel_mm: float, where: str) -> tuple[Shape, Crop]:
    shape, crop = PUBLISHED_GRIDS.get(voxel_mm, (None, None))
    if text := _text(row.get("shape")):
        sizes = re.fullmatch(r"(\d{1,6})[ x](\d{1,6})[ x](\d{1,6})", text)
        if not sizes:
            raise UserError(
                f"{where}: shape is {shown(text)!r}, not three numbers such as '46 55 46'."
            )
        shape = tuple(int(size) for size in sizes.groups())  # type: ignore[assignment]
        crop = tuple((0, size) for size in shape)  # type: ignore[assignment,union-attr]
    if shape is None or crop is None:
        raise UserError(
            f"{where}: at {voxel_mm:g} mm the table must give shape (and crop) in voxels."
        )
    if text := _text(row.get("crop")):
        edges = re.fullmatch(
            r"(\d{1,6}):(\d{1,6})[ ,]+(\d{1,6}):(\d{1,6})[ ,]+(\d{1,6}):(\d{1,6})", text
        )
        if not edges:
            raise UserError(
                f"{where}: crop is {shown(text)!r}, not three ranges such as '2:42 3:51 0:40'."
            )
        numbers = [int(edge) for edge in edges.groups()]
        crop = tuple(zip(numbers[::2], numbers[1::2]))  # type: ignore[assignment]
    if max(shape) > MOST_VOXELS_AN_EDGE:
        raise UserError(f"{where}: shape has an edge of over {MOST_VOXELS_AN_EDGE} voxels.")
    for (start, stop), size in zip(crop, shape):
        if not 0 <= start < stop <= size:
            raise UserError(f"{where}: crop {start}:{stop} does not lie inside 0:{size}.")
    return shape, crop
