"""A crop -> the bytes of a prepared volume.

Whole numbers are kept as they are. Real numbers become whole steps of 16 bits, so fine that no voxel is
off by more than a ten-thousandth of the standard deviation in the mask; the few voxels that lie further
out than 65,536 such steps reach are kept exactly beside. uint8 and float16 are coarser, by choice.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from datasets import kernels
from datasets.cache.reading import Parts
from datasets.volumes import Crop

# uint16 promises at most 1e-4 of the mask's standard deviation; steps may take this share of it, the
# rest is for rounding to float32.
LARGEST_ERROR_SHARE = 0.95
LARGEST_ERROR_SD = LARGEST_ERROR_SHARE * 1e-4
# uint8 has 256 steps; over this many standard deviations each is off by at most 0.024 of one.
UINT8_WINDOW_SD = 12.0
# More voxels than this share beside the steps: float32 is simpler and no larger.
MOST_EXACT_FRACTION = 0.02
# (code + offset) must be exact in float32.
_MOST_OFFSET = 2.0**24 - 2.0**16
# Share of a voxel by which it may be off through rounding to float32: of the slope, of its product with
# the code, and of the quotient that reading the file itself would give.
_ROUNDING = 3 * 2.0**-24
# Smaller steps lose digits in float32 (whose smallest is 1.2e-38) once they are divided by a scale factor.
_SMALLEST_STEP = 1e-30
_WHOLE_KINDS = ("uint8", "int8", "uint16", "int16")


def encoded(crop: Crop, storage: str) -> tuple[Parts, dict[str, Any]]:
    """The parts of a prepared volume, and the fields of `Prepared` that say how to read them.

    storage : uint16, uint8, float16 or float32, for sources that hold real numbers.
    """
    box = np.empty(crop.box, dtype=np.float32)
    crop.fill(box)
    counts, starts, lengths = _runs(box)
    n_mask = int(lengths.sum(dtype=np.int64))
    values = np.empty(n_mask, dtype=np.float32)
    kernels.collect_runs(box, counts, starts, lengths, values)
    coding: dict[str, Any] = {"lossless": True, "slope": 1.0, "intercept": 0.0}
    positions, exact = np.empty(0, np.uint32), np.empty(0, np.float32)
    if crop.whole:
        whole = _whole_numbers(crop, box, counts, starts, lengths, values)
        if whole is not None:
            values = whole
            coding.update(slope=crop.slope, intercept=crop.intercept)
    elif storage == "float16":
        values, coding = _as_float16(values)
    elif storage in ("uint16", "uint8"):
        steps = _as_steps(values, crop, np.dtype(storage))
        if steps is not None:
            values, outside, coding = steps
            positions = np.flatnonzero(box)[outside].astype(np.uint32)
            exact = box.reshape(-1)[positions]
    parts = Parts(counts, starts, lengths, positions, exact, values)
    coding.update(
        coding=values.dtype.name, n_runs=len(starts), n_exact=len(exact), n_mask=n_mask,
        mean=crop.mean, mask_mean=crop.mask_mean, mask_sd=crop.mask_sd, smallest=crop.smallest,
        largest=crop.largest, done=crop.done,
    )  # fmt: skip
    return parts, coding


def _runs(box: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    size_x, size_y, size_z = box.shape
    counts = np.empty(size_x * size_y, dtype=np.uint16)
    most = size_x * size_y * -(-size_z // 2)
    starts, lengths = np.empty(most, dtype=np.uint16), np.empty(most, dtype=np.uint16)
    n_runs = kernels.find_runs(box, counts, starts, lengths)
    return counts, starts[:n_runs].copy(), lengths[:n_runs].copy()


def _whole_numbers(
    crop: Crop,
    box: np.ndarray,
    counts: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    values: np.ndarray,
) -> np.ndarray | None:
    """The stored numbers as the smallest kind of whole number; None where 16 bits do not hold them."""
    if (crop.slope, crop.intercept) != (1.0, 0.0):
        crop.fill_stored(box)
        kernels.collect_runs(box, counts, starts, lengths, values)
    smallest, largest = values.min(), values.max()
    for kind in _WHOLE_KINDS:
        limits = np.iinfo(kind)
        if limits.min <= smallest and largest <= limits.max:
            return values.astype(kind)
    if (crop.slope, crop.intercept) != (1.0, 0.0):
        crop.fill(box)  # back to intensities, which are then kept as float32
        kernels.collect_runs(box, counts, starts, lengths, values)
    return None


def _as_float16(values: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Halves of about a tenth of a per cent, scaled by a power of two to use their range."""
    exponent = int(np.ceil(np.log2(float(np.abs(values).max())))) - 15
    slope = 2.0**exponent
    if not slope > _SMALLEST_STEP:
        return values, {"lossless": True, "slope": 1.0, "intercept": 0.0}
    halves = (values.astype(np.float64) / slope).astype(np.float16)
    return halves, {"lossless": False, "slope": slope, "intercept": 0.0}


def _as_steps(
    values: np.ndarray, crop: Crop, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]] | None:
    """Codes, which of them do not hold (too far out), and how to read them; None where steps do not fit.

    0 falls on a step, as it is the intensity of everything outside the mask.
    """
    n_steps = float(np.iinfo(dtype).max)
    spread = crop.largest - crop.smallest
    window = 2 * LARGEST_ERROR_SD * n_steps if dtype == np.uint16 else UINT8_WINDOW_SD
    width = min(spread, window * crop.mask_sd)
    step = width / (n_steps - 1)
    if not step > _SMALLEST_STEP:
        return None
    lowest = float(np.clip(crop.mask_mean - width / 2, crop.smallest, crop.largest - width))
    first = float(np.floor(lowest / step))
    rounding = _ROUNDING * max(abs(lowest), abs(lowest + width))
    most = window * crop.mask_sd / (2 * n_steps) / LARGEST_ERROR_SHARE
    if abs(first) > _MOST_OFFSET or step / 2 + rounding > most:
        return None  # e.g. all voxels far from 0, close to each other
    codes = np.empty(len(values), dtype=dtype)
    n_outside = kernels.quantise(values, step, first, codes)
    if n_outside > MOST_EXACT_FRACTION * len(values):
        return None
    outside = np.empty(0, dtype=np.int64)
    if n_outside:
        found = np.rint(values.astype(np.float64) / step) - first
        outside = np.flatnonzero((found < 0) | (found > n_steps))
    return codes, outside, {"lossless": False, "slope": step, "intercept": first}
