"""NIfTI file -> network input; the only file that opens an image.

A compressed file is always read whole, so that its gzip checksum is verified (nibabel's own reading
stops before it and does not notice a flipped bit). Steps as in AgeMapper (Roibu et al. 2023): read as
stored, crop, divide by the crop's mean (some contrasts), divide by the contrast's scale factor.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from nibabel.processing import resample_from_to
from nibabel.spatialimages import SpatialImage

from datasets.contrasts import Contrast

ORIENTATION = ("L", "A", "S")
# Voxel sizes that differ by more than this share are another grid, not rounding in a header.
ZOOM_TOLERANCE = 0.01
# `scale_factor = auto`: this percentile of the cropped training volumes becomes 1.
AUTO_SCALE_PERCENTILE = 99.0


class VolumeError(ValueError):
    """A volume cannot be used; the message is the reason, without the subject."""


@dataclass(frozen=True)
class VolumeReader:
    """Reads volumes of one contrast, all in the same way."""

    contrast: Contrast
    scale_factor: float
    conform: str = "strict"

    def read(self, path: str | Path) -> np.ndarray:
        """(X, Y, Z) float32 network input of the file at `path`.

        Raises
        ------
        VolumeError
            Missing, damaged, on another grid, constant, or not finite.
        """
        return scaled(
            read_crop(path, self.contrast, self.conform), self.contrast, self.scale_factor
        )


def read_crop(path: str | Path, contrast: Contrast, conform: str = "strict") -> np.ndarray:
    """The cropped volume in stored intensities, (X, Y, Z) float32; errors as `VolumeReader.read`."""
    image = open_image(path)
    _refuse_no_volume(image)
    image = conformed(image, contrast, conform)
    crop = tuple(slice(start, stop) for start, stop in contrast.crop)
    values = np.asarray(_stored_array(image, contrast)[crop])
    slope, intercept = getattr(image.dataobj, "slope", 1.0), getattr(image.dataobj, "inter", 0.0)
    if (slope, intercept) != (1.0, 0.0):
        values = values.astype(np.float64) * slope + intercept
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused for it
        values = values.astype(np.float32)
    _refuse_unusable(values)
    return values


def scaled(crop: np.ndarray, contrast: Contrast, scale_factor: float) -> np.ndarray:
    """Divide by the crop's mean where the contrast asks for it, then by the scale factor."""
    divisor = float(scale_factor)
    if contrast.divide_by_mean:
        mean = float(crop.mean(dtype=np.float64))
        if mean <= 0:
            raise VolumeError(
                f"the mean intensity of the crop is {mean:g}, it cannot be divided by"
            )
        divisor *= mean
    if float(np.abs(crop).max()) / divisor > np.finfo(np.float32).max:
        raise VolumeError(f"is too large for the scale factor {scale_factor:g}")
    return crop / np.float32(divisor)


def auto_scale_factor(paths: Iterable[Path], contrast: Contrast, conform: str) -> float:
    """`scale_factor = auto`: the mean over volumes of the crop's 99th percentile (after mean division).

    Volumes that cannot be read are passed over here; they are named where they are used.
    """
    heights, reason = [], "there is none"
    for path in paths:
        try:
            crop = scaled(read_crop(path, contrast, conform), contrast, 1.0)
        except VolumeError as error:
            reason = f"e.g. {path} {error}"
            continue
        heights.append(np.percentile(crop, AUTO_SCALE_PERCENTILE))
    factor = float(np.mean(heights)) if heights else 0.0
    if factor <= 0:
        raise VolumeError(
            f"scale_factor = auto: no training volume with intensities above 0 could be read: {reason}"
        )
    return factor


def open_image(path: str | Path) -> SpatialImage:
    """Open an image file of any form nibabel knows; .nii.gz is read whole and its checksum verified."""
    path = Path(path)
    try:
        with path.open("rb") as handle:
            is_gzip = handle.read(2) == b"\x1f\x8b"
        if is_gzip and path.name.endswith((".nii.gz", ".nii")):
            return _nifti_from_bytes(gzip.decompress(path.read_bytes()))
        return nib.load(path)  # type: ignore[return-value]
    except FileNotFoundError as error:
        raise VolumeError("no such file") from error
    except IsADirectoryError as error:
        raise VolumeError("is a folder, not an image") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise VolumeError(f"is damaged or truncated ({error})") from error
    except VolumeError:
        raise
    except Exception as error:  # nibabel raises many kinds for malformed headers
        raise VolumeError(f"cannot be read as an image ({_first_line(error)})") from error


def _nifti_from_bytes(data: bytes) -> SpatialImage:
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        if kind.header_class.may_contain_header(data[:1024]):
            return kind.from_bytes(data)
    raise VolumeError("is not a NIfTI image")


def conformed(image: SpatialImage, contrast: Contrast, conform: str) -> SpatialImage:
    """The image on the contrast's grid: refused, reoriented or resampled where it is not already.

    Raises
    ------
    VolumeError
        The grid differs and `conform` does not allow to change it; the reason names what differs.
    """
    difference = grid_difference(image, contrast)
    if not difference:
        return image
    if conform == "strict":
        raise VolumeError(f"{difference}; conform = strict refuses it")
    if np.linalg.matrix_rank(image.affine) < 4:
        raise VolumeError(f"{difference}; its affine has no inverse, so {conform} is not possible")
    image = _single_volume(image, contrast)
    try:
        transform = ornt_transform(io_orientation(image.affine), axcodes2ornt(ORIENTATION))
        image = image.as_reoriented(transform)
        if conform == "resample":
            image = resample_from_to(image, (contrast.shape, contrast.affine), order=1)
    except Exception as error:  # e.g. fewer than three axes
        raise VolumeError(
            f"{difference}; no {conform} is possible ({_first_line(error)})"
        ) from error
    difference = grid_difference(image, contrast)
    if difference:
        raise VolumeError(f"{difference} after reorienting; conform = {conform} refuses it")
    return image


def grid_difference(image: SpatialImage, contrast: Contrast) -> str:
    """What of shape, orientation and voxel size differs from the contrast's grid; "" where nothing."""
    shape, zooms = image.shape[:3], image.header.get_zooms()[:3]
    differences = []
    if tuple(shape) != contrast.shape:
        differences.append(f"shape {_times(shape)}, expected {_times(contrast.shape)}")
    axes = nib.aff2axcodes(image.affine)
    if axes != ORIENTATION:
        stored = "".join(axis or "?" for axis in axes)
        differences.append(f"orientation {stored}, expected {''.join(ORIENTATION)}")
    if any(abs(zoom / contrast.voxel_mm - 1) > ZOOM_TOLERANCE for zoom in zooms):
        stored = " x ".join(f"{zoom:g}" for zoom in zooms)
        differences.append(f"voxels of {stored} mm, expected {contrast.voxel_mm:g} mm")
    return "; ".join(differences)


def _single_volume(image: SpatialImage, contrast: Contrast) -> SpatialImage:
    try:
        with np.errstate(over="ignore"):
            values = np.asarray(image.dataobj, dtype=np.float32)
    except Exception as error:  # truncated data
        raise VolumeError(f"is damaged or truncated ({_first_line(error)})") from error
    if values.ndim == 4:
        values = values[..., _volume_index(image, contrast)]
    return nib.Nifti1Image(values, image.affine)


def _stored_array(image: SpatialImage, contrast: Contrast) -> np.ndarray:
    """The 3D array as stored, before slope and intercept; one volume of a 4D file."""
    try:
        proxy = image.dataobj
        stored = proxy.get_unscaled() if hasattr(proxy, "get_unscaled") else np.asarray(proxy)
    except Exception as error:  # truncated data, unsupported types
        raise VolumeError(f"is damaged or truncated ({_first_line(error)})") from error
    return stored[..., _volume_index(image, contrast)] if stored.ndim == 4 else stored


def _volume_index(image: SpatialImage, contrast: Contrast) -> int:
    if len(image.shape) != 4:
        return 0
    n_volumes, index = image.shape[3], contrast.volume_index
    if index is None and n_volumes > 1:
        raise VolumeError(f"holds {n_volumes} volumes and the contrast table gives no volume_index")
    if (index or 0) >= n_volumes:
        raise VolumeError(f"holds {n_volumes} volumes, volume_index {index} is not among them")
    return index or 0


def _refuse_no_volume(image: object) -> None:
    if not isinstance(image, SpatialImage) or image.affine is None:
        raise VolumeError(f"is a {type(image).__name__}, not a volume with an affine")
    kind = image.get_data_dtype()
    if kind.kind not in "biuf":
        raise VolumeError(f"its voxels hold no plain numbers ({kind})")


def _refuse_unusable(values: np.ndarray) -> None:
    if values.ndim != 3:
        raise VolumeError(f"has {values.ndim} dimensions, expected 3")
    n_bad = int(values.size - np.isfinite(values).sum())
    if n_bad:
        raise VolumeError(f"{n_bad} voxel(s) are NaN or infinite")
    if not values.any():
        raise VolumeError("is zero everywhere in the crop")
    if values.min() == values.max():
        raise VolumeError(f"is constant ({values.flat[0]:g}) everywhere in the crop")


def _times(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
