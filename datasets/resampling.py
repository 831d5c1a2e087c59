"""The compiled loops of augmentation that change a volume's numbers: interpolation and intensity."""

from __future__ import annotations

import numpy as np

from utils.common.compiling import compiled


@compiled
def resample(volume, matrix, offset, box):
    """box[o] = (x, y, z) float32 `volume` at matrix @ o + offset, by trilinear interpolation.

    Everything outside the volume counts as voxels of 0, with which those at its border are interpolated.
    """
    size_x, size_y, size_z = volume.shape
    for x in range(box.shape[0]):
        for y in range(box.shape[1]):
            row = box[x, y]
            at_x = matrix[0, 0] * x + matrix[0, 1] * y + offset[0]
            at_y = matrix[1, 0] * x + matrix[1, 1] * y + offset[1]
            at_z = matrix[2, 0] * x + matrix[2, 1] * y + offset[2]
            for z in range(len(row)):
                px, py, pz = (
                    at_x + matrix[0, 2] * z,
                    at_y + matrix[1, 2] * z,
                    at_z + matrix[2, 2] * z,
                )
                if not (-1 < px < size_x and -1 < py < size_y and -1 < pz < size_z):
                    row[z] = np.float32(0.0)
                    continue
                # + 1: what int() cuts off is the fraction of a number that is not negative
                i, j, k = int(px + 1.0) - 1, int(py + 1.0) - 1, int(pz + 1.0) - 1
                fx, fy, fz = np.float32(px - i), np.float32(py - j), np.float32(pz - k)
                inside = 0 <= i < size_x - 1 and 0 <= j < size_y - 1 and 0 <= k < size_z - 1
                if inside:
                    v000, v001 = volume[i, j, k], volume[i, j, k + 1]
                    v010, v011 = volume[i, j + 1, k], volume[i, j + 1, k + 1]
                    v100, v101 = volume[i + 1, j, k], volume[i + 1, j, k + 1]
                    v110, v111 = volume[i + 1, j + 1, k], volume[i + 1, j + 1, k + 1]
                else:
                    v000, v001 = _or_zero(volume, i, j, k), _or_zero(volume, i, j, k + 1)
                    v010, v011 = _or_zero(volume, i, j + 1, k), _or_zero(volume, i, j + 1, k + 1)
                    v100, v101 = _or_zero(volume, i + 1, j, k), _or_zero(volume, i + 1, j, k + 1)
                    v110 = _or_zero(volume, i + 1, j + 1, k)
                    v111 = _or_zero(volume, i + 1, j + 1, k + 1)
                v00, v01 = v000 + fz * (v001 - v000), v010 + fz * (v011 - v010)
                v10, v11 = v100 + fz * (v101 - v100), v110 + fz * (v111 - v110)
                v0, v1 = v00 + fy * (v01 - v00), v10 + fy * (v11 - v10)
                row[z] = v0 + fx * (v1 - v0)


@compiled
def _or_zero(volume, x, y, z):
    """A voxel; 0 outside the volume."""
    size_x, size_y, size_z = volume.shape
    if 0 <= x < size_x and 0 <= y < size_y and 0 <= z < size_z:
        return volume[x, y, z]
    return np.float32(0.0)


@compiled
def change_intensity(box, gamma, gain):
    """Every v of (x, y, z) float32 `box` becomes sign(v) |v / scale|^gamma * scale * gain, in place.

    scale is the largest |v| of the box; gamma and gain are float32.
    """
    scale = np.float32(0.0)
    if gamma != np.float32(1.0):
        for x in range(box.shape[0]):
            for y in range(box.shape[1]):
                row = box[x, y]
                for z in range(len(row)):
                    scale = max(scale, abs(row[z]))
    for x in range(box.shape[0]):
        for y in range(box.shape[1]):
            row = box[x, y]
            for z in range(len(row)):
                value = row[z]
                if scale > np.float32(0.0) and value != np.float32(0.0):
                    power = (abs(value) / scale) ** gamma * scale
                    value = power if value > np.float32(0.0) else -power
                row[z] = value * gain
