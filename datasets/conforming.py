"""A volume on its contrast's grid: refused, reoriented (exact) or resampled where it is not there already."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.affines import obliquity
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from nibabel.processing import resample_from_to

from datasets.contrasts import Contrast
from datasets.images import Image, ImageHeader, VolumeError

ORIENTATION = "LAS"
# Voxel sizes that differ by more than this share are another grid, not rounding in a header.
ZOOM_TOLERANCE = 0.01
# The MNI box may lie off by this much, and axes may be tilted by this much, before it is another space.
ORIGIN_TOLERANCE_VOXELS = 1.0
TILT_TOLERANCE_DEGREES = 1.0
NOT_POSITIONED = "its header does not say where it lies (e.g. sform and qform codes are 0)"


@dataclass(frozen=True)
class Conformed:
    """One volume on its contrast's grid."""

    voxels: np.ndarray  # (X, Y, Z) as stored, or float32 after resampling
    slope: float
    intercept: float
    done: str  # what was done to it; "" for nothing


def conformed(image: Image, contrast: Contrast, conform: str) -> Conformed:
    """The contrast's volume of an image, on the contrast's grid.

    Raises
    ------
    VolumeError
        The grid differs and `conform` does not allow to change it; the reason names what differs.
    """
    header = image.header
    volume = image.volume(volume_index(header, contrast))
    difference = grid_difference(header, contrast)
    if not difference:
        return Conformed(volume, header.slope, header.intercept, "")
    if conform == "strict":
        raise VolumeError(f"{difference}; conform = strict refuses it")
    if np.linalg.matrix_rank(header.affine) < 4:
        raise VolumeError(f"{difference}; its affine has no inverse, so {conform} is not possible")
    if conform == "resample" and not header.positioned:
        raise VolumeError(f"{difference}; it cannot be resampled: {NOT_POSITIONED}")
    try:
        transform = ornt_transform(io_orientation(header.affine), axcodes2ornt(ORIENTATION))
        done = (
            "" if header.axes == ORIENTATION else f"reoriented from {header.axes} to {ORIENTATION}"
        )
        if conform == "resample":
            with np.errstate(all="ignore"):  # what is too large becomes infinite, and is refused
                values = _scaled(volume, header.slope, header.intercept)
                moved = nib.Nifti1Image(values, header.affine).as_reoriented(transform)
                resampled = resample_from_to(moved, (contrast.shape, contrast.affine), order=1)
            was = f"resampled from {_times(header.shape[:3])} voxels of {_times(header.zooms)} mm"
            done = f"{done}, {was}" if done else was
            return Conformed(np.asarray(resampled.dataobj), 1.0, 0.0, done)
        affine = header.affine @ inv_ornt_aff(transform, header.shape[:3])
        turned = apply_orientation(volume, transform)
    except Exception as error:
        raise VolumeError(f"{difference}; no {conform} is possible ({error})") from error
    zooms = tuple(float(zoom) for zoom in nib.affines.voxel_sizes(affine))
    after = _differences(turned.shape, zooms, affine, header.positioned, contrast)
    if after:
        raise VolumeError(f"{after} after reorienting; conform = {conform} refuses it")
    return Conformed(turned, header.slope, header.intercept, done)


def _scaled(volume: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """(X, Y, Z) float32, computed in float64 slice by slice: whole, that takes 20 bytes a voxel."""
    values = np.empty(volume.shape, np.float32, order="F")
    for z in range(volume.shape[2]):
        values[..., z] = volume[..., z].astype(np.float64) * slope + intercept
    return values


def grid_difference(header: ImageHeader, contrast: Contrast) -> str:
    """What of shape, axes, voxel size and position differs from the contrast's grid; "" for nothing."""
    return _differences(header.shape[:3], header.zooms, header.affine, header.positioned, contrast)


def volume_index(header: ImageHeader, contrast: Contrast) -> int:
    """Which volume of the file is the contrast's; refuses one that is not there."""
    n_volumes, index = header.n_volumes, contrast.volume_index
    if index is None and n_volumes > 1:
        raise VolumeError(f"holds {n_volumes} volumes and the contrast table gives no volume_index")
    if (index or 0) >= n_volumes:
        raise VolumeError(
            f"holds {n_volumes} volume{'s' if n_volumes > 1 else ''}, volume_index {index} is not "
            "among them"
        )
    return index or 0


def _differences(
    shape: tuple[int, ...],
    zooms: tuple[float, ...],
    affine: np.ndarray,
    positioned: bool,
    contrast: Contrast,
) -> str:
    found = []
    if tuple(shape) != contrast.shape:
        found.append(f"shape {_times(shape)}, expected {_times(contrast.shape)}")
    axes = "".join(axis or "?" for axis in nib.aff2axcodes(affine))
    if axes != ORIENTATION:
        found.append(f"orientation {axes}, expected {ORIENTATION}")
    # written so that a voxel size that is not a number differs too
    if not all(abs(zoom / contrast.voxel_mm - 1) <= ZOOM_TOLERANCE for zoom in zooms):
        found.append(f"voxels of {_times(zooms)} mm, expected {contrast.voxel_mm:g} mm")
    if not found and contrast.in_mni_box:
        found += _position_differences(affine, positioned, contrast)
    return "; ".join(found)


def _position_differences(affine: np.ndarray, positioned: bool, contrast: Contrast) -> list[str]:
    """Where the box lies in the world, of a volume that otherwise is on UK Biobank's MNI grid."""
    if not positioned:
        return [NOT_POSITIONED]
    sizes = nib.affines.voxel_sizes(affine)
    if not np.abs(sizes / contrast.voxel_mm - 1).max() <= ZOOM_TOLERANCE:
        return [f"its sform gives voxels of {_times(sizes)} mm, and its pixdim others"]
    tilt_degrees = float(np.degrees(np.max(obliquity(affine))))
    if not tilt_degrees <= TILT_TOLERANCE_DEGREES:
        return [f"its axes are tilted by {tilt_degrees:.1f} degrees"]
    off_mm = affine[:3, 3] - contrast.affine[:3, 3]
    if not np.abs(off_mm).max() <= ORIGIN_TOLERANCE_VOXELS * contrast.voxel_mm:
        off = ", ".join(f"{value:+.1f}" for value in off_mm)
        return [f"it lies ({off}) mm off the MNI box"]
    return []


def _times(sizes: Iterable[float]) -> str:
    return " x ".join(f"{size:g}" for size in sizes)
