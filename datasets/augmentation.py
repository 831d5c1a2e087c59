"""Random changes of a training volume: a draw and an apply, so that a batch can be replayed.

AgeMapper shifts each axis by an integer from -2 to 2 and mirrors left and right with probability 1/2.
Its release shifts with wrap-around, so a brain that leaves on one side comes back on the other; here
what moves in is zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class AugmentationPlan:
    """Which changes a study asks for."""

    shift_voxels: int = 0  # 0: none
    mirror: bool = False

    def draw(self, generator: np.random.Generator) -> Augmentation:
        """Draw one change; the same generator state gives the same change."""
        x, y, z = generator.integers(-self.shift_voxels, self.shift_voxels + 1, size=3)
        mirrored = bool(generator.integers(0, 2)) and self.mirror
        return Augmentation(shift=(int(x), int(y), int(z)), mirrored=mirrored)


@dataclass(frozen=True)
class Augmentation:
    """One drawn change."""

    shift: tuple[int, int, int]
    mirrored: bool

    def apply(self, volume: np.ndarray, box: np.ndarray | None = None) -> np.ndarray:
        """(X, Y, Z) volume, moved by `shift` voxels (zeros move in), then mirrored on the first axis.

        Written into `box` where one is given.
        """
        moved = np.empty_like(volume) if box is None else box
        if self == NO_AUGMENTATION:
            moved[:] = volume
            return moved
        moved[:] = 0
        seen = moved[::-1] if self.mirrored else moved
        target, source = [], []
        for wanted, size in zip(self.shift, volume.shape):
            shift = max(-size, min(wanted, size))  # further than the axis: all zero
            target.append(slice(max(shift, 0), size + min(shift, 0)))
            source.append(slice(max(-shift, 0), size + min(-shift, 0)))
        seen[tuple(target)] = volume[tuple(source)]
        return moved


NO_AUGMENTATION = Augmentation(shift=(0, 0, 0), mirrored=False)
