"""Image file -> network input, as in AgeMapper (Roibu et al. 2023) or as for SFCN (Peng et al. 2021).

AgeMapper: read as stored, crop, divide by the crop's mean (some contrasts), divide by the contrast's
scale factor. SFCN: read as stored, divide by the mean of the whole volume, crop about the centre. A volume
that `-m prepare` prepared is taken from there (`cache/`), with the same values.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets import kernels
from datasets.augmentation import NO_AUGMENTATION, Augmentation, memory_before
from datasets.cache.index import Prepared
from datasets.cache.reading import ContrastCache
from datasets.conforming import Conformed, conformed
from datasets.contrasts import PENG, Contrast
from datasets.images import Image, ReadFaultError, VolumeError, open_image

__all__ = ["Crop", "VolumeError", "VolumeReader", "auto_scale_factor", "open_crop", "read_crop"]

# `scale_factor = auto`: this percentile of the cropped training volumes becomes 1.
AUTO_SCALE_PERCENTILE = 99.0
# Kinds of stored numbers that are used as they are; all others are converted first.
_NATIVE = tuple(map(np.dtype, ("uint8", "int16", "uint16", "int32", "float32", "float64")))


@dataclass(frozen=True)
class Crop:
    """The part of a stored volume that a network sees, not yet converted or turned."""

    voxels: np.ndarray  # (X, Y, Z) as stored, whole volume, Fortran order
    slope: float
    intercept: float
    start: tuple[int, int, int]
    box: tuple[int, int, int]
    whole: bool  # stored as whole numbers
    done: str  # what conforming did to it
    n_mask: int  # voxels of the crop that are not 0
    mean: float  # of the crop, or (preprocessing `peng`) of the whole volume; background included
    mask_mean: float
    mask_sd: float
    smallest: float  # of the voxels that are not 0
    largest: float

    def fill(
        self, box: np.ndarray, divisor: float = 1.0, by: Augmentation = NO_AUGMENTATION
    ) -> None:
        """Write the crop in stored intensities / divisor, augmented, into (X, Y, Z) float32 `box`."""
        moved, before = by.by_whole_voxels, memory_before(by, box)
        kernels.fill_box(
            self.voxels, *self.start, self.slope, self.intercept, np.float32(divisor),
            moved.shift, moved.mirrored, before,
        )  # fmt: skip
        by.finish(before, box)

    def fill_stored(self, box: np.ndarray) -> None:
        """Write the crop's numbers as stored, before slope and intercept, into `box`."""
        kernels.fill_box(
            self.voxels, *self.start, 1.0, 0.0, np.float32(1.0), NO_AUGMENTATION.shift, False, box
        )


@dataclass(frozen=True)
class VolumeReader:
    """Reads volumes of one contrast, all in the same way; prepared ones from the cache."""

    contrast: Contrast
    scale_factor: float
    conform: str = "strict"
    cache: ContrastCache | None = None

    def read_into(self, path: Path, box: np.ndarray, by: Augmentation = NO_AUGMENTATION) -> str:
        """Write the augmented network input of a file into (X, Y, Z) float32 `box`.

        Returns what conforming did to the volume ("" for nothing).

        Raises
        ------
        VolumeError
            Missing, damaged, on another grid, constant, or not finite.
        """
        if self.cache and self.cache.entry(path):
            prepared = self.prepared(path)
            self.cache.expand(prepared, self.divisor_of(prepared), by, box)
            return prepared.done
        crop = open_crop(path, self.contrast, self.conform)
        crop.fill(box, self.divisor_of(crop), by)
        return crop.done

    def read(self, path: str | Path) -> np.ndarray:
        """(X, Y, Z) float32 network input of a file; errors as `read_into`."""
        box = np.empty(self.contrast.box, dtype=np.float32)
        self.read_into(Path(path), box)
        return box

    def prepared(self, path: Path) -> Prepared:
        """A volume in the cache; VolumeError with the reason where there is none."""
        entry = self.cache.entry(path) if self.cache else None
        if entry is None or entry.reason:
            raise VolumeError(entry.reason if entry else "is not prepared")
        return entry

    def divisor_of(self, crop: Crop | Prepared) -> float:
        """What this volume is divided by; errors as `divisor`."""
        return divisor(self.contrast, self.scale_factor, crop.mean, crop.smallest, crop.largest)


def open_crop(path: str | Path, contrast: Contrast, conform: str = "strict") -> Crop:
    """Open a file and look at its crop; errors as `VolumeReader.read_into`."""
    return crop_of(open_image(path), contrast, conform)


def crop_of(image: Image, contrast: Contrast, conform: str) -> Crop:
    """The crop of an open image; one open 4D file gives the crops of many contrasts."""
    found = conformed(image, contrast, conform)
    voxels = _native(found.voxels)
    (x0, x1), (y0, y1), (z0, z1) = contrast.crop
    n_bad, n_mask, total, squares, smallest, largest = kernels.summarise(
        voxels, x0, x1, y0, y1, z0, z1, found.slope, found.intercept
    )
    n_voxels = int(np.prod(contrast.box))
    if n_bad:
        raise VolumeError(_what_is_bad(found.voxels[x0:x1, y0:y1, z0:z1], n_bad))
    _refuse_unusable(n_voxels, n_mask, smallest, largest)
    mask_mean = total / n_mask
    variance = max(squares / n_mask - mask_mean**2, 0.0)
    mean = _whole_mean(found, voxels) if contrast.preprocessing == PENG else total / n_voxels
    return Crop(
        voxels, found.slope, found.intercept, (x0, y0, z0), contrast.box,
        found.voxels.dtype.kind in "biu", found.done,
        int(n_mask), mean, mask_mean, float(np.sqrt(variance)), smallest, largest,
    )  # fmt: skip


def _whole_mean(found: Conformed, voxels: np.ndarray) -> float:
    """Mean of the whole volume, background included; refuses a volume that has none."""
    n_bad, _, total, *_ = kernels.summarise(
        voxels, 0, voxels.shape[0], 0, voxels.shape[1], 0, voxels.shape[2],
        found.slope, found.intercept,
    )  # fmt: skip
    if n_bad:
        raise VolumeError(
            f"{_what_is_bad(found.voxels, n_bad)} outside the crop, and it is divided by the mean of the "
            "whole volume"
        )
    return total / voxels.size


def read_crop(path: str | Path, contrast: Contrast, conform: str = "strict") -> np.ndarray:
    """The cropped volume in stored intensities, (X, Y, Z) float32; errors as `VolumeReader.read_into`."""
    box = np.empty(contrast.box, dtype=np.float32)
    open_crop(path, contrast, conform).fill(box)
    return box


def divisor(
    contrast: Contrast, scale_factor: float, mean: float, smallest: float, largest: float
) -> float:
    """What a crop is divided by: the mean where the contrast asks for it, times the scale factor.

    Raises
    ------
    VolumeError
        The mean is not above 0, or the quotient would be too large for float32.
    """
    found = float(scale_factor)
    if contrast.divide_by_mean:
        if not mean > 0:
            whole = contrast.preprocessing == PENG
            raise VolumeError(
                f"the mean intensity of the whole volume is {mean:g}, preprocessing peng cannot divide by it"
                if whole
                else f"the mean intensity of the crop is {mean:g}, it cannot be divided by"
            )
        found *= mean
    with np.errstate(over="ignore"):
        in_float32 = np.float32(found)
    if not 0 < in_float32 < np.inf:
        raise VolumeError(f"would be divided by {found:g}, which is too small or large for float32")
    if max(abs(smallest), abs(largest)) / found > float(np.finfo(np.float32).max):
        raise VolumeError(f"is too large for the scale factor {scale_factor:g}")
    return found


def auto_percentile(crop: Crop) -> float:
    """The percentile of a crop, in stored intensities, that `scale_factor = auto` looks at."""
    box = np.empty(crop.box, dtype=np.float32)
    crop.fill(box)
    return float(np.percentile(box, AUTO_SCALE_PERCENTILE))


def _height(volume: Crop | Prepared, percentile: float, contrast: Contrast) -> float:
    """How high a volume is for `scale_factor = auto`: after division by its mean, where that is asked for."""
    return percentile / divisor(contrast, 1.0, volume.mean, volume.smallest, volume.largest)


def auto_scale_factor(
    paths: Iterable[Path], contrast: Contrast, conform: str, cache: ContrastCache | None = None
) -> float:
    """`scale_factor = auto`: the mean over volumes of the crop's 99th percentile (after mean division).

    Volumes that cannot be read are passed over here; they are named where they are used.
    """
    heights, reason = [], "there is none"
    for path in paths:
        prepared = cache.entry(path) if cache else None
        try:
            if prepared and prepared.percentile is not None:
                heights.append(_height(prepared, prepared.percentile, contrast))
            else:
                crop = open_crop(path, contrast, conform)
                heights.append(_height(crop, auto_percentile(crop), contrast))
        except ReadFaultError as error:  # another run would come to another factor
            raise VolumeError(f"scale_factor = auto: {path} {error}; run it again") from error
        except VolumeError as error:
            reason = f"e.g. {path} {error}"
    factor = float(np.mean(heights)) if heights else 0.0
    if factor <= 0:
        raise VolumeError(
            f"scale_factor = auto: no training volume with intensities above 0 could be read: {reason}"
        )
    return factor


def _native(voxels: np.ndarray) -> np.ndarray:
    """Stored voxels in a kind of number and an order that the compiled loops know."""
    known = voxels.dtype in _NATIVE and voxels.dtype.isnative
    if known and voxels.flags.f_contiguous and voxels.flags.aligned:
        return np.asarray(voxels)
    kind = voxels.dtype.newbyteorder("=")
    if kind not in _NATIVE:
        small = kind.kind == "b" or (kind.kind in "iu" and kind.itemsize <= 2)
        kind = np.dtype("int16") if small else np.dtype("float64")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused for it
        return np.require(voxels, kind, ["F", "A"])


def _what_is_bad(stored: np.ndarray, n_bad: int) -> str:
    if np.isfinite(stored).all():
        return f"{n_bad} voxel(s) are too large for float32, i.e. NaN or infinite in it"
    return f"{n_bad} voxel(s) are NaN or infinite"


def _refuse_unusable(n_voxels: int, n_mask: int, smallest: float, largest: float) -> None:
    if not n_mask:
        raise VolumeError("is zero everywhere in the crop")
    if n_mask == n_voxels and smallest == largest:
        raise VolumeError(f"is constant ({smallest:g}) everywhere in the crop")
