"""Random changes of a training volume: a draw and an apply, so that a batch can be replayed.

AgeMapper shifts each axis by an integer from -2 to 2 and mirrors left and right with probability 1/2.
Its release shifts with wrap-around, so a brain that leaves on one side comes back on the other; here
what moves in is zero. Rotation, zoom and intensity are ours, and off unless they are asked for.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from datasets import resampling


@dataclass(frozen=True)
class AugmentationPlan:
    """Which changes a study asks for."""

    shift_voxels: int = 0  # 0: none
    mirror: bool = False
    rotation_degrees: float = 0.0  # each axis from -this to this
    zoom_fraction: float = 0.0  # one factor from 1 - this to 1 + this, below 1
    gain_fraction: float = 0.0  # likewise, of the intensity
    gamma_fraction: float = 0.0  # likewise, its exponent

    def draw(self, generator: np.random.Generator) -> Augmentation:
        """Draw one change; the same generator state gives the same change.

        Rotation, zoom, gain and gamma have numbers of their own: asking for one leaves the others.
        """
        x, y, z = generator.integers(-self.shift_voxels, self.shift_voxels + 1, size=3)
        mirrored = bool(generator.integers(0, 2)) and self.mirror
        drawn = generator.uniform(-1.0, 1.0, size=6)
        angles = (drawn[:3] * self.rotation_degrees + 0.0).tolist()  # + 0.0: no angle is -0.0
        return Augmentation(
            shift=(int(x), int(y), int(z)),
            mirrored=mirrored,
            rotation_degrees=(angles[0], angles[1], angles[2]),
            zoom=1.0 + self.zoom_fraction * float(drawn[3]),
            gain=1.0 + self.gain_fraction * float(drawn[4]),
            gamma=1.0 + self.gamma_fraction * float(drawn[5]),
        )


@dataclass(frozen=True)
class Augmentation:
    """One drawn change: rotated and zoomed about the centre, shifted, mirrored; then gamma and gain.

    Geometry is one resampling by trilinear interpolation, in which everything outside the box counts as
    voxels of zero (`scipy.ndimage.affine_transform` with order 1 and mode "grid-constant"). Without
    rotation and zoom voxels are only moved, and keep their bits. Then v becomes
    sign(v) |v / scale|^gamma * scale * gain, where scale is the largest |v| that is in the box.
    """

    shift: tuple[int, int, int]
    mirrored: bool
    rotation_degrees: tuple[float, float, float] = (0.0, 0.0, 0.0)  # about each of the axes
    zoom: float = 1.0  # above 1: larger
    gain: float = 1.0
    gamma: float = 1.0

    @property
    def resamples(self) -> bool:
        """Whether voxels are interpolated."""
        return self.rotation_degrees != (0.0, 0.0, 0.0) or self.zoom != 1.0

    @property
    def by_whole_voxels(self) -> Augmentation:
        """The shift and mirror that a reader carries out while it writes; `finish` does the rest."""
        return NO_AUGMENTATION if self.resamples else Augmentation(self.shift, self.mirrored)

    def apply(self, volume: np.ndarray, box: np.ndarray | None = None) -> np.ndarray:
        """(X, Y, Z) float32 volume, changed; written into `box` where one is given, zeros move in."""
        changed = np.empty_like(volume) if box is None else box
        if self.resamples:
            self.finish(volume, changed)
        else:
            self._move(volume, changed)
            self.finish(changed, changed)
        return changed

    def finish(self, volume: np.ndarray, box: np.ndarray) -> None:
        """Change a volume that was moved `by_whole_voxels` into `box`: another one if it `resamples`."""
        if self.resamples:
            resampling.resample(volume, *self.matrix_and_offset(volume.shape), box)
        if self.gain != 1.0 or self.gamma != 1.0:
            resampling.change_intensity(box, np.float32(self.gamma), np.float32(self.gain))

    def matrix_and_offset(self, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """(3, 3) matrix and (3,) offset: voxel o becomes what the volume is at matrix @ o + offset."""
        centre = (np.array(size) - 1) / 2
        back = _rotation(self.rotation_degrees).T / self.zoom
        matrix = back @ np.diag([-1.0 if self.mirrored else 1.0, 1.0, 1.0])
        return matrix, centre - matrix @ centre - back @ np.array(self.shift, dtype=np.float64)

    def _move(self, volume: np.ndarray, moved: np.ndarray) -> None:
        """Shift by whole voxels, then mirror the first axis."""
        if self.by_whole_voxels == NO_AUGMENTATION:
            moved[:] = volume
            return
        moved[:] = 0
        seen = moved[::-1] if self.mirrored else moved
        target, source = [], []
        for wanted, size in zip(self.shift, volume.shape):
            shift = max(-size, min(wanted, size))  # further than the axis: all zero
            target.append(slice(max(shift, 0), size + min(shift, 0)))
            source.append(slice(max(-shift, 0), size + min(-shift, 0)))
        seen[tuple(target)] = volume[tuple(source)]


NO_AUGMENTATION = Augmentation(shift=(0, 0, 0), mirrored=False)


class _OfThread(threading.local):
    """A thread's memory for a volume before it is resampled: fresh pages would have to be cleared."""

    before = np.empty((0, 0, 0), dtype=np.float32)


_of_thread = _OfThread()


def memory_before(by: Augmentation, box: np.ndarray) -> np.ndarray:
    """Where a reader writes a volume that `by.finish` then changes into `box`: there, or beside it.

    Memory beside it belongs to the thread, until it asks for it again.
    """
    if not by.resamples:
        return box
    if _of_thread.before.shape != box.shape:
        _of_thread.before = np.empty(box.shape, dtype=np.float32)
    return _of_thread.before


def _rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """(3, 3) rotation about the first, then the second, then the third axis (right-handed)."""
    turned = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        one = np.eye(3)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        one[i, i] = one[j, j] = np.cos(angle)
        one[j, i], one[i, j] = np.sin(angle), -np.sin(angle)
        turned = one @ turned
    return turned
