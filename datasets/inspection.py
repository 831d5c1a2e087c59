"""What a volume looks like in numbers and three small pictures, and which of a cohort look unlike the rest.

Everything is measured on the cropped volume in stored intensities, before any scaling, so that a wrong
unit, a missing brain extraction or a turned head is seen before a network sees it. A flip of left and
right cannot be seen: a brain and its mirror image are alike to these measures, and nearly so to the eye.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
from scipy.ndimage import affine_transform

from datasets.contrasts import Contrast

# A voxel is filled above this share of the crop's 99th percentile of absolute intensity.
FILLED_ABOVE = 0.05
# The longest side of a small picture, pixels.
PICTURE_PIXELS = 96
# That of its coarse form, which is compared with a cohort's: 1.4 kB a volume instead of 22 kB. On simulated
# cohorts turned and shifted heads stand out from it as far as from the pictures, ordinary ones less.
COARSE_PIXELS = 24
# The picture's white is this percentile of the crop, so that one bright voxel does not darken it.
WHITE_PERCENTILE = 99.5
# Fewer volumes than this say nothing about what is usual.
SMALLEST_COHORT = 10
# Air is -1000 in Hounsfield units; a crop with so large a share of voxels below this is taken for CT.
CT_AIR_BELOW = -500.0
CT_AIR_FRACTION = 0.1
# An image has more different values than this; a label map or a mask has fewer.
FEWEST_VALUES = 16
# SD below which a cohort is not believed to be alike: log10 (0.02 is 5 %), and sqrt(1 - r) for shape.
SMALLEST_SD = {"intensity": 0.02, "filled": 0.01, "shape": 0.01}
# UK Biobank's MNI box; other voxel sizes round it up.
MNI_BOX_MM = np.array([182.0, 218.0, 182.0])
# An extracted and registered brain fills little beyond MNI152's; a head with its scalp, or one that lies
# elsewhere, fills more (ten heads of IXI: 0.37 to 0.48; simulated brains at most 0.34; one patient 0.001).
OUTSIDE_LIKE_A_HEAD = 0.35
VIEWS = ("axial", "coronal", "sagittal")


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """Numbers of one cropped volume, in stored intensities; fractions are shares of the crop's voxels."""

    minimum: float
    maximum: float
    mean: float
    p99: float
    nonzero_fraction: float
    filled_fraction: float  # above FILLED_ABOVE of the 99th percentile, in absolute value
    filled_mean: float  # mean absolute intensity of those voxels
    filled_sd: float
    air_fraction: float  # below CT_AIR_BELOW
    n_values: int  # different values among filled voxels; counted up to FEWEST_VALUES + 1
    outside_fraction: float  # of the filled voxels, outside of the MNI152 brain; NaN: not known
    scale: float  # p99, by the mean where asked for: what the scale factor should be near

    @property
    def is_ct_like(self) -> bool:
        """Whether it has the air of a CT."""
        return self.air_fraction > CT_AIR_FRACTION

    @property
    def is_label_like(self) -> bool:
        """Whether it has as few values as a label map or a mask."""
        return self.n_values <= FEWEST_VALUES


Thumbnails = tuple[np.ndarray, np.ndarray, np.ndarray]  # uint8, as a reader of images sees them


@cache
def _mni_brain_mask() -> tuple[np.ndarray, np.ndarray]:
    """MNI152 brain mask (uint8) at 2 mm as nilearn ships it, and its affine."""
    from nilearn.datasets import load_mni152_brain_mask  # two seconds to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of nilearn about its own future
        image = load_mni152_brain_mask(resolution=2)
    return np.asarray(image.dataobj).astype(np.uint8), image.affine


def mni_brain(contrast: Contrast) -> np.ndarray | None:
    """(X, Y, Z) where the brain of MNI152 lies in the contrast's crop; None for a grid that is not the MNI box."""
    sizes_mm = np.array(contrast.shape) * contrast.voxel_mm
    if np.any(np.abs(sizes_mm - MNI_BOX_MM) > np.maximum(contrast.voxel_mm, 2.0)):
        return None
    mask, affine = _mni_brain_mask()
    to_mask = np.linalg.inv(affine) @ contrast.affine
    to_mask[:3, 3] += to_mask[:3, :3] @ np.array([start for start, _ in contrast.crop])
    sampled = affine_transform(
        mask, to_mask[:3, :3], to_mask[:3, 3], output_shape=contrast.box, order=0
    )
    return sampled > 0


def facts_of(crop: np.ndarray, contrast: Contrast, brain: np.ndarray | None = None) -> VolumeFacts:
    """Numbers of one cropped volume (X, Y, Z) in stored intensities; `brain` as `mni_brain` gives it."""
    size = np.abs(crop)
    # nearly the same from every 8th voxel, and many times faster than from all of a 1 mm crop
    some = size[::2, ::2, ::2] if size.size > 1_000_000 else size
    threshold = FILLED_ABOVE * float(np.percentile(some, 99))
    above = size > threshold
    filled = size[above]
    outside = np.nan if brain is None or not filled.size else np.mean(~brain[above])
    if filled.size == 0:  # so few voxels above zero that the percentile is zero
        filled = size.ravel()
    mean = float(crop.mean(dtype=np.float64))
    p99 = float(np.percentile(crop[::2, ::2, ::2] if some is not size else crop, 99))
    return VolumeFacts(
        minimum=float(crop.min()),
        maximum=float(crop.max()),
        mean=mean,
        p99=p99,
        nonzero_fraction=np.count_nonzero(crop) / crop.size,
        filled_fraction=float(np.count_nonzero(above) / crop.size),
        filled_mean=float(filled.mean(dtype=np.float64)),
        filled_sd=float(filled.std(dtype=np.float64)),
        air_fraction=float(np.count_nonzero(crop < CT_AIR_BELOW) / crop.size),
        n_values=_n_values(filled),
        outside_fraction=float(outside),
        scale=(p99 / mean if mean > 0 else float("nan")) if contrast.divide_by_mean else p99,
    )


def _n_values(filled: np.ndarray) -> int:
    """Different values among a spread of the voxels, at most FEWEST_VALUES + 1."""
    some = filled[:: max(filled.size // 20_000, 1)]
    return min(len(np.unique(some)), FEWEST_VALUES + 1)


def thumbnails_of(crop: np.ndarray) -> Thumbnails:
    """Axial, coronal and sagittal slice through the middle of a crop stored LAS; 8 bit, each its own window.

    Anterior and superior are up; in the axial and coronal picture the person's right is on the left, as
    radiologists show it; in the sagittal one the face looks to the right.
    """
    x, y, z = (size // 2 for size in crop.shape)
    step = -(-max(crop.shape) // PICTURE_PIXELS)
    slices = [_smaller(view, step) for view in (crop[:, :, z], crop[:, y, :], crop[x, :, :])]
    low = min(0.0, min(float(view.min()) for view in slices))
    white = float(
        np.percentile(np.concatenate([view.ravel() for view in slices]), WHITE_PERCENTILE)
    )
    span = max(white - low, 1e-30)
    pictures = [np.clip((view - low) / span, 0, 1) * 255 for view in slices]
    return tuple(np.rint(p.T[::-1]).astype(np.uint8) for p in pictures)  # type: ignore[return-value]


def coarse_of(thumbnails: Thumbnails) -> Thumbnails:
    """The same three pictures with sides of at most COARSE_PIXELS."""
    step = -(-max(max(picture.shape) for picture in thumbnails) // COARSE_PIXELS)
    if step <= 1:
        return thumbnails
    return tuple(np.rint(_smaller(p, step)).astype(np.uint8) for p in thumbnails)  # type: ignore[return-value]


def _smaller(view: np.ndarray, step: int) -> np.ndarray:
    """Means of squares of step x step pixels; what is left over at the end is cut."""
    if step <= 1:
        return view.astype(np.float64)
    step_rows, step_columns = (min(step, size) for size in view.shape)
    rows, columns = view.shape[0] // step_rows, view.shape[1] // step_columns
    cut = view[: rows * step_rows, : columns * step_columns].astype(np.float64)
    return cut.reshape(rows, step_rows, columns, step_columns).mean(axis=(1, 3))


@dataclass(frozen=True)
class Unusualness:
    """How far each of S volumes lies from its cohort: robust z's, i.e. (value - median) / (1.4826 MAD).

    `shape` is the largest over three views of sqrt(1 - r), r the correlation of the slice with the
    cohort's median slice: a head that is turned, flipped, shifted or not extracted correlates less. Of the
    transforms tried on simulated cohorts, 1 - r itself is so skewed that ordinary brains pass z = 6, and
    its logarithm so flat that turned ones do not.
    """

    intensity_z: np.ndarray  # (S,) of log10 mean absolute intensity of filled voxels
    filled_z: np.ndarray  # (S,) of log10 filled fraction
    shape_z: np.ndarray  # (S,) of the worst view; only its upper side is unusual
    worst_view: tuple[str, ...]  # (S,)

    @property
    def score(self) -> np.ndarray:
        """(S,) the largest of the three, by which volumes are ordered."""
        return np.maximum.reduce([np.abs(self.intensity_z), np.abs(self.filled_z), self.shape_z])


def unusualness(facts: list[VolumeFacts], coarse: list[Thumbnails]) -> Unusualness:
    """How unlike the others each volume of a contrast is; pictures as `coarse_of` gives them.

    Raises
    ------
    ValueError
        Fewer than ten volumes: what is usual cannot be told.
    """
    if len(facts) < SMALLEST_COHORT:
        raise ValueError(f"{len(facts)} volumes cannot be compared, {SMALLEST_COHORT} are needed")
    intensity = robust_z(_log10([f.filled_mean for f in facts]), SMALLEST_SD["intensity"])
    filled = robust_z(_log10([f.filled_fraction for f in facts]), SMALLEST_SD["filled"])
    views = []
    for view in range(len(VIEWS)):
        stack = np.stack([pictures[view] for pictures in coarse]).reshape(len(facts), -1)
        views.append(robust_z(np.sqrt(_distances(stack)), SMALLEST_SD["shape"]))
    shape = np.stack(views)
    worst = tuple(VIEWS[i] for i in shape.argmax(axis=0))
    return Unusualness(intensity, filled, shape.max(axis=0), worst)


def _distances(stack: np.ndarray) -> np.ndarray:
    """(S,) 1 - r of each picture (S, pixels) with the median picture; 1 where a picture is constant."""
    median = np.median(stack, axis=0).astype(np.float32)
    median -= median.mean()
    found = []
    for picture in stack:  # one at a time: a cohort of 40,000 as floats would need 0.1 GB a view
        centred = picture.astype(np.float32)
        centred -= centred.mean()
        size = float(np.linalg.norm(centred) * np.linalg.norm(median))
        found.append(max(1.0 - float(centred @ median) / size, 0.0) if size > 0 else 1.0)
    return np.array(found)


def robust_z(values: np.ndarray, smallest_sd: float) -> np.ndarray:
    """(value - median) / (1.4826 MAD), with an SD of at least `smallest_sd`."""
    deviation = values - np.median(values)
    return deviation / max(1.4826 * float(np.median(np.abs(deviation))), smallest_sd)


def _log10(values: list[float] | np.ndarray) -> np.ndarray:
    return np.log10(np.maximum(np.asarray(values, dtype=np.float64), 1e-6))


def median_and_mad(facts: list[VolumeFacts]) -> dict[str, dict[str, float]]:
    """Median and median absolute deviation of each known number over the volumes of a contrast."""
    found = {}
    for name in (each.name for each in fields(VolumeFacts)):
        values = np.array([getattr(f, name) for f in facts], dtype=np.float64)
        values = values[np.isfinite(values)]
        if not len(values):
            continue
        median = float(np.median(values))
        found[name] = {"median": median, "mad": float(np.median(np.abs(values - median)))}
    return found
