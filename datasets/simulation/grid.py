"""The box of MNI152 as FSL and UK Biobank store it, at any voxel size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

BOX_SHAPE_1MM = (182, 218, 182)
FIRST_VOXEL_MM = (
    90.0,
    -126.0,
    -72.0,
)  # MNI coordinates of voxel (0, 0, 0); the first axis runs to the left
CROP_1MM = ((10, 170), (12, 204), (0, 160))  # of the published system, first to last axis


@dataclass(frozen=True)
class Grid:
    """Voxels of the MNI152 box, stored LAS. Positions inside are mm from the centre of the first voxel."""

    voxel_mm: float

    @property
    def shape(self) -> tuple[int, ...]:
        """182 x 218 x 182 at 1 mm, 91 x 109 x 91 at 2 mm, 46 x 55 x 46 at 4 mm."""
        return tuple(math.ceil(n / self.voxel_mm) for n in BOX_SHAPE_1MM)

    @property
    def affine(self) -> np.ndarray:
        """Voxel indices to MNI coordinates in mm."""
        affine = np.diag([-self.voxel_mm, self.voxel_mm, self.voxel_mm, 1.0])
        affine[:3, 3] = FIRST_VOXEL_MM
        return affine

    @property
    def crop(self) -> tuple[tuple[int, int], ...]:
        """The published crop in voxels of this grid, rounded down: [2:42, 3:51, 0:40] at 4 mm."""
        return tuple(
            (int(start / self.voxel_mm), int(stop / self.voxel_mm)) for start, stop in CROP_1MM
        )

    @property
    def crop_text(self) -> str:
        """The crop as the contrast table writes it."""
        return " ".join(f"{start}:{stop}" for start, stop in self.crop)

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel."""
        return self.voxel_mm**3 / 1000

    def axes_mm(self) -> list[np.ndarray]:
        """Positions along each axis, mm from the first voxel."""
        return [np.arange(n, dtype=np.float32) * np.float32(self.voxel_mm) for n in self.shape]
