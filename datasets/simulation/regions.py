"""Where in the volume the simulated ageing happens: for judging what a network looks at."""

from __future__ import annotations

import numpy as np

from datasets.simulation.anatomy import LANDSCAPE, TISSUES, Atlas, sample

# Label 1 is the first; later ones are drawn over earlier ones.
REGIONS = (
    {"region": "frontal and temporal cortex", "ageing": "recedes"},
    {"region": "white matter at the ventricles", "ageing": "lesions grow"},
    {"region": "deep grey matter", "ageing": "iron darkens swi"},
    {"region": "lateral ventricles and their wall", "ageing": "widen"},
)
ACTIVE = 0.3  # share of the largest effect from which a voxel belongs to a region


def region_labels(atlas: Atlas) -> np.ndarray:
    """uint8 label map on the cohort's grid, 0 where nothing ages; the template's anatomy at the youngest age."""
    voxels = atlas.positions_mm / np.float32(atlas.working_mm)
    land = sample(atlas.landscape, voxels)
    tissues = sample(atlas.tissues, voxels)

    first = LANDSCAPE.index("ageing_cortex_x")
    cortex = np.linalg.norm(land[:, first : first + 3], axis=1)
    share = {name: tissues[:, index] for index, name in enumerate(TISSUES)}
    masks = (
        (cortex > ACTIVE) & (share["grey"] > ACTIVE),
        share["lesion_site"] > ACTIVE,
        share["deep_grey"] > ACTIVE,
        share["ventricle"] > ACTIVE / 2,
    )
    labels = np.zeros(len(voxels), np.uint8)
    for label, mask in enumerate(masks, start=1):
        labels[mask] = label
    volume = np.zeros(int(np.prod(atlas.grid.shape)), np.uint8)
    volume[atlas.head] = labels
    return volume.reshape(atlas.grid.shape)
