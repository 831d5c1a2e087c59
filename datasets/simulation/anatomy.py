"""The template's anatomy, made ready to be deformed: tissue maps, distances, and directions of ageing.

The tissue maps are those of the ICBM152 2009a template that nilearn ships (Fonov et al. 2011, NeuroImage 54:313).
Nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from datasets.simulation.grid import BOX_SHAPE_1MM, FIRST_VOXEL_MM, Grid

# Shares of a voxel, looked up where the aged voxel came from: they move along with the ageing structures.
TISSUES = ("grey", "white", "ventricle", "lesion_site", "deep_grey")
# What is looked up once for a person; the three directions have three components each.
LANDSCAPE = (
    "hull_mm",
    "dropout",
    *(f"ventricle_{axis}" for axis in "xyz"),
    *(f"ageing_cortex_{axis}" for axis in "xyz"),
    *(f"other_cortex_{axis}" for axis in "xyz"),
)
FRONTAL_HORNS_MNI_MM = (
    (5, 20),
    (-10, 25),
    (5, 22),
)  # |x|, y, z of a box that holds those of the lateral ventricles
DEEP_GREY_MNI_MM = (  # centre and half axes of ellipsoids: putamen with pallidum, head of the caudate
    ((25.0, 2.0, 1.0), (9.0, 18.0, 10.0)),
    ((13.0, 12.0, 9.0), (7.0, 12.0, 11.0)),
)
DROPOUT_MNI_MM = (
    ((0.0, 34.0, -24.0), 16.0),
    ((50.0, -14.0, -28.0), 16.0),
)  # above air: centre, radius
LARGEST_RIM_MM = 7.0


@dataclass(frozen=True)
class Atlas:
    """Maps on a working grid (2 mm, or 1 mm for finer volumes), and where the target grid's head lies.

    tissues : (X, Y, Z, 5) float32, shares of a voxel, order `TISSUES`
    landscape : (X, Y, Z, 11) float32, order `LANDSCAPE`
    head : flat indices of the target grid's voxels that a head may touch
    positions_mm : (head, 3) float32, their positions from the first voxel
    """

    grid: Grid
    working_mm: float
    tissues: np.ndarray
    landscape: np.ndarray
    head: np.ndarray
    positions_mm: np.ndarray


def build_atlas(voxel_mm: float) -> Atlas:
    """Prepare the template for volumes of this voxel size (about 2 s; 15 s below 2 mm).

    Maps are smoothed to the resolution of the target, so that a coarse voxel holds the mean of its tissue.
    """
    working_mm = 2.0 if voxel_mm >= 2 else 1.0
    grey, white, brain = _template(working_mm)
    fluid = np.clip(brain - grey - white, 0, 1)
    ventricle = _lateral_ventricles(fluid, working_mm)
    hull_mm = _signed_distance(brain > 0.5, working_mm)
    tissue_mm = _signed_distance((grey + white > 0.6) | (ventricle > 0), working_mm)
    ventricle_mm = _signed_distance((ventricle > 0) & (grey + white < 0.5), working_mm)
    landscape = _landscape(ventricle_mm, tissue_mm, hull_mm, working_mm)
    sigma = 0.35 * voxel_mm / working_mm if voxel_mm > working_mm else 0.0
    # Outside the hull the tissue share is zero: there is fluid as far as the extraction keeps it.
    sites = _sites(grey, white, ventricle_mm, working_mm)
    maps = [grey, white, fluid * ventricle, *sites]
    tissues = np.stack([ndimage.gaussian_filter(m, sigma) for m in maps], axis=-1)
    grid = Grid(voxel_mm)
    positions = np.stack(np.meshgrid(*grid.axes_mm(), indexing="ij"), axis=-1).reshape(-1, 3)
    near = sample(landscape[..., :1], positions / np.float32(working_mm))[:, 0] < LARGEST_RIM_MM + 5
    head = np.flatnonzero(near)
    return Atlas(grid, working_mm, tissues, landscape, head, np.ascontiguousarray(positions[head]))


def sample(maps: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """(N, M) values of (X, Y, Z, M) maps at (N, 3) fractional voxel positions, trilinear, clamped at the faces."""
    n_x, n_y, n_z, n_maps = maps.shape
    flat = maps.reshape(-1, n_maps)
    voxels = np.clip(voxels, 0, np.array([n_x - 1.001, n_y - 1.001, n_z - 1.001], np.float32))
    corner = voxels.astype(np.int32)
    high = voxels - corner
    low = 1 - high
    base = (corner[:, 0] * n_y + corner[:, 1]) * n_z + corner[:, 2]
    values = np.zeros((len(voxels), n_maps), np.float32)
    for dx in (0, 1):
        for dy in (0, 1):
            weight_xy = (high if dx else low)[:, 0] * (high if dy else low)[:, 1]
            for dz in (0, 1):
                weight = weight_xy * (high if dz else low)[:, 2]
                values += weight[:, None] * flat.take(base + ((dx * n_y + dy) * n_z + dz), axis=0)
    return values


def _template(working_mm: float) -> list[np.ndarray]:
    """Grey matter, white matter and filled brain mask in the FSL box, LAS, on the working grid."""
    from nilearn import (
        datasets as shipped,
    )  # nilearn takes a second to import; only simulation needs it

    loaders = (
        shipped.load_mni152_gm_template,
        shipped.load_mni152_wm_template,
        shipped.load_mni152_template,
    )
    step = int(working_mm)
    maps = []
    for load in loaders:
        image = load(resolution=1)
        offset = np.rint(np.array(FIRST_VOXEL_MM) - image.affine[:3, 3]).astype(int)
        data = np.asarray(image.dataobj, dtype=np.float32)
        left = offset[0] - BOX_SHAPE_1MM[0] + 1
        box = data[left : offset[0] + 1][::-1]
        box = box[:, offset[1] : offset[1] + BOX_SHAPE_1MM[1], : BOX_SHAPE_1MM[2]]
        if load is shipped.load_mni152_template:
            box = ndimage.binary_fill_holes(box > 0).astype(np.float32)
        maps.append(ndimage.gaussian_filter(box, 0.8)[::step, ::step, ::step] if step > 1 else box)
    return maps


def _mni_mm(shape: tuple[int, ...], working_mm: float) -> list[np.ndarray]:
    """Open grids of MNI coordinates of the working grid's voxels."""
    x, y, z = np.ogrid[tuple(slice(n) for n in shape)]
    return [
        (FIRST_VOXEL_MM[0] - x * working_mm).astype(np.float32),
        (FIRST_VOXEL_MM[1] + y * working_mm).astype(np.float32),
        (FIRST_VOXEL_MM[2] + z * working_mm).astype(np.float32),
    ]


def _lateral_ventricles(fluid: np.ndarray, working_mm: float) -> np.ndarray:
    """Soft mask (0 to 1) of the lateral ventricles: the fluid connected with the frontal horns."""
    labels, n_labels = ndimage.label(fluid > 0.6)
    x, y, z = _mni_mm(fluid.shape, working_mm)
    in_box = np.ones(fluid.shape, bool)
    for coordinate, (low, high) in zip((np.abs(x), y, z), FRONTAL_HORNS_MNI_MM):
        in_box &= (low < coordinate) & (coordinate < high)
    in_box_ml = np.bincount(labels[in_box], minlength=n_labels + 1) * working_mm**3 / 1000
    in_box_ml[0] = 0  # label 0 is what is not fluid
    core = np.isin(labels, np.flatnonzero(in_box_ml > 0.5))
    grown = ndimage.binary_dilation(core, iterations=int(4 / working_mm), mask=fluid > 0.3)
    return ndimage.binary_dilation(grown).astype(np.float32)


def _signed_distance(inside: np.ndarray, working_mm: float) -> np.ndarray:
    """Distance in mm from the surface of a mask, negative inside, smoothed by one voxel."""
    outwards = ndimage.distance_transform_edt(~inside)
    inwards = ndimage.distance_transform_edt(inside)
    return ndimage.gaussian_filter(
        ((outwards - inwards) * working_mm).astype(np.float32), 2.0 / working_mm * 0.6
    )


def _outward(distance_mm: np.ndarray, working_mm: float) -> np.ndarray:
    """(X, Y, Z, 3) outward normals; they vanish smoothly on the ridges where two surfaces are equally near."""
    return np.stack(np.gradient(distance_mm, working_mm), axis=-1).astype(np.float32)


def _sites(
    grey: np.ndarray, white: np.ndarray, ventricle_mm: np.ndarray, working_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    """Where lesions can grow, and the deep grey matter that gathers iron: 0 to 1."""
    x, y, z = _mni_mm(grey.shape, working_mm)
    lesion_site = white * _bell(ventricle_mm - 4, 4) * (ventricle_mm > 0)
    shapes = [_ellipsoid(np.abs(x), y, z, *place) for place in DEEP_GREY_MNI_MM]
    return lesion_site, grey * np.maximum.reduce(shapes)


def _landscape(
    ventricle_mm: np.ndarray, tissue_mm: np.ndarray, hull_mm: np.ndarray, working_mm: float
) -> np.ndarray:
    """Everything of `LANDSCAPE`, on the working grid."""
    x, y, z = _mni_mm(hull_mm.shape, working_mm)
    # A wall that moves by w mm takes its surroundings along, less and less: no tissue is torn or folded.
    widening = _outward(ventricle_mm, working_mm) * _fading(ventricle_mm - 4, 12)[..., None]
    recession = _outward(tissue_mm, working_mm) * _fading(-tissue_mm - 1, 5)[..., None]
    recession *= _fading(20 - ventricle_mm, 5)[..., None]  # the insides are not cortex
    anterior = (1 / (1 + np.exp(-(y + 12) / 5))) * (1 / (1 + np.exp(-(z + 40) / 5)))
    dropout = np.maximum.reduce(
        [
            _bell(np.sqrt((np.abs(x) - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2), radius)
            for (cx, cy, cz), radius in DROPOUT_MNI_MM
        ]
    )
    scalars = np.stack([hull_mm, dropout], axis=-1)
    fields = (widening, recession * anterior[..., None], recession * (1 - anterior)[..., None])
    return np.ascontiguousarray(np.concatenate([scalars, *fields], axis=-1), dtype=np.float32)


def _fading(distance_mm: np.ndarray, reach_mm: float) -> np.ndarray:
    """1 up to distance zero, then falling like a bell."""
    return np.exp(-((np.maximum(distance_mm, 0) / reach_mm) ** 2)).astype(np.float32)


def _bell(distance_mm: np.ndarray, reach_mm: float) -> np.ndarray:
    return np.exp(-((distance_mm / reach_mm) ** 2)).astype(np.float32)


def _ellipsoid(x, y, z, centre, half_axes) -> np.ndarray:
    """1 inside, falling to 0 over the outer fifth."""
    terms = ((c - m) / h for c, m, h in zip((x, y, z), centre, half_axes))
    radius = np.sqrt(sum(t**2 for t in terms))
    return np.clip((1.1 - radius) / 0.2, 0, 1).astype(np.float32)
