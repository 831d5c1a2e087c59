"""A person's brain, and its volume in one contrast: the template deformed, aged, coloured, disturbed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from datasets.simulation.anatomy import LANDSCAPE, TISSUES, Atlas, sample
from datasets.simulation.grid import BOX_SHAPE_1MM
from datasets.simulation.recipes import Recipe, recipe_of
from datasets.simulation.specification import CohortSpecification
from utils.common.randomness import generator

HEAD_CENTRE_MM = np.array([90.0, 108.0, 82.0], np.float32)  # of the box, from the first voxel
N_WAVES = 4  # cosines along each axis in a smooth field: the shortest half wave is about 60 mm
HULL_SOFTNESS_VOXELS = 0.25  # of the edge that the brain extraction leaves


@dataclass(frozen=True)
class Ageing:
    """How far the structures of one person have aged in one contrast."""

    ventricle_mm: float
    cortex_mm: float
    lesion_fraction: float
    iron_fraction: float


@dataclass(frozen=True)
class Brain:
    """One person's anatomy before ageing: where in the template each voxel lies, and what is there."""

    positions_mm: np.ndarray
    landscape: np.ndarray
    offsets: Ageing
    lesion_pattern: np.ndarray
    other_cortex_mm: float
    rim_deviation_mm: float


@dataclass(frozen=True)
class Rendered:
    """A volume and what can be measured in it without error."""

    volume: np.ndarray
    ageing: Ageing
    ventricle_ml: float
    grey_ml: float


def smooth_field(waves: np.ndarray, atlas: Atlas) -> np.ndarray:
    """A smooth field over the head with a standard deviation of about one, from (4, 4, 4) numbers."""
    field = waves
    for axis_mm, length in zip(atlas.grid.axes_mm(), BOX_SHAPE_1MM):
        cosines = np.cos(np.pi * np.outer(axis_mm / length, np.arange(waves.shape[0])))
        field = np.tensordot(field, cosines.astype(np.float32), axes=(0, 1))
    return field.reshape(-1)[atlas.head] / np.float32(np.sqrt(waves.size / 8))


def build_brain(
    person: Mapping[str, Any], specification: CohortSpecification, atlas: Atlas
) -> Brain:
    """Draw a person's anatomy; nothing here knows the age."""
    s = specification
    random = generator(s.seed, person["subject_id"], "anatomy")
    shape = (N_WAVES,) * 3
    displacement = np.stack(
        [smooth_field(random.normal(size=shape).astype(np.float32), atlas) for _ in "xyz"], axis=-1
    )
    scale = np.float32(1 + person["head_size_percent"] / 100)
    positions = (atlas.positions_mm - HEAD_CENTRE_MM) / scale + HEAD_CENTRE_MM
    positions += displacement * np.float32(s.deformation_sd_mm)
    landscape = sample(atlas.landscape, positions / np.float32(atlas.working_mm))
    male = person["sex"] == "male"
    offsets = Ageing(
        ventricle_mm=s.ventricle_sd_mm * random.normal() + s.ventricle_male_mm * male,
        cortex_mm=s.cortex_sd_mm * random.normal(),
        lesion_fraction=s.lesion_sd_fraction * random.normal(),
        iron_fraction=s.iron_sd_fraction * random.normal(),
    )
    return Brain(
        positions_mm=positions,
        landscape=landscape,
        offsets=offsets,
        lesion_pattern=np.exp(0.4 * smooth_field(random.normal(size=shape), atlas)).astype(
            np.float32
        ),
        other_cortex_mm=s.other_cortex_mean_mm + s.other_cortex_sd_mm * random.normal(),
        rim_deviation_mm=s.rim_sd_mm * random.normal(),
    )


def aged(brain_age_years: float, offsets: Ageing, recipe: Recipe, s: CohortSpecification) -> Ageing:
    """Structures at a brain age: the rate per decade since the youngest age, weighted by the contrast."""
    decades = (brain_age_years - s.age_minimum_years) / 10
    return Ageing(
        offsets.ventricle_mm + s.ventricle_mm_per_decade * recipe.ventricle_weight * decades,
        offsets.cortex_mm + s.cortex_mm_per_decade * recipe.cortex_weight * decades,
        offsets.lesion_fraction + s.lesion_fraction_per_decade * recipe.lesion_weight * decades,
        offsets.iron_fraction + s.iron_fraction_per_decade * recipe.iron_weight * decades,
    )


def render(
    brain: Brain,
    person: Mapping[str, Any],
    contrast: str,
    specification: CohortSpecification,
    atlas: Atlas,
) -> Rendered:
    """The int16 volume of one person in one contrast, with the anatomy that was put into it.

    A voxel looks up the template where it came from: the ventricle's wall has moved outwards, the outer face of the
    cortex inwards. Its tissue shares become an intensity, which is disturbed in every way that does not depend on age.
    """
    recipe = recipe_of(contrast)
    ageing = aged(person[f"brain_age_{contrast}_years"], brain.offsets, recipe, specification)
    random = generator(specification.seed, person["subject_id"], "volume", contrast)
    tissues, hull_mm = _age_tissues(brain, ageing, specification, atlas, random)
    signal = _signal(tissues, brain, ageing, recipe, specification.tissue_sd_fraction, random)
    signal *= _disturbance(person, contrast, specification, atlas, random)
    noise = specification.noise_fraction * recipe.white
    noise *= max(0.3, 1 + specification.motion_noise_fraction * person["motion_z"])
    signal += np.float32(noise) * random.standard_normal(len(signal), dtype=np.float32)
    softness_mm = np.float32(HULL_SOFTNESS_VOXELS * atlas.grid.voxel_mm)
    rim_mm = specification.rim_mean_mm + recipe.rim_weight * brain.rim_deviation_mm
    inside = 1 / (1 + np.exp(np.clip((hull_mm - rim_mm) / softness_mm, -30, 30)))
    signal *= inside
    signal[inside < 0.1] = 0
    volume = np.zeros(int(np.prod(atlas.grid.shape)), np.int16)
    volume[atlas.head] = np.clip(np.rint(signal), 0, 32767).astype(np.int16)
    return Rendered(
        volume=volume.reshape(atlas.grid.shape),
        ageing=ageing,
        ventricle_ml=float(tissues[:, TISSUES.index("ventricle")].sum() * atlas.grid.voxel_ml),
        grey_ml=float(tissues[:, TISSUES.index("grey")].sum() * atlas.grid.voxel_ml),
    )


def _age_tissues(brain, ageing, specification, atlas, random) -> tuple[np.ndarray, np.ndarray]:
    """What is in each voxel after ageing, (N, 5),, and the distance from the head's hull."""
    land = brain.landscape
    first = LANDSCAPE.index("ventricle_x")
    shift = -ageing.ventricle_mm * land[:, first : first + 3]
    shift += ageing.cortex_mm * land[:, first + 3 : first + 6]
    shift += brain.other_cortex_mm * land[:, first + 6 : first + 9]
    shift += specification.placement_sd_mm * random.normal(size=3).astype(np.float32)
    tissues = sample(atlas.tissues, (brain.positions_mm + shift) / np.float32(atlas.working_mm))
    return tissues, land[:, LANDSCAPE.index("hull_mm")]


def _signal(tissues, brain, ageing, recipe: Recipe, tissue_sd: float, random) -> np.ndarray:
    """Intensity of each voxel's tissues, each tissue as bright as this person's scan makes it."""
    grey, white, fluid, lesion = (
        np.float32(value * max(0.2, 1 + tissue_sd * random.normal()))
        for value in (recipe.grey, recipe.white, recipe.fluid, recipe.lesion)
    )
    share_grey, share_white = tissues[:, 0], tissues[:, 1]
    signal = grey * share_grey + white * share_white
    signal += fluid * np.clip(1 - share_grey - share_white, 0, 1)
    if recipe.lesion_weight:
        site = tissues[:, TISSUES.index("lesion_site")] * brain.lesion_pattern
        share = np.clip(site * np.float32(ageing.lesion_fraction), 0, 1) * share_white
        signal += (lesion - white) * share
    if recipe.iron_weight:
        iron = np.float32(np.clip(ageing.iron_fraction, 0, 0.95))
        signal *= 1 - iron * tissues[:, TISSUES.index("deep_grey")]
    if recipe.dropout_weight:
        lost = recipe.dropout_weight * np.clip(0.5 + 0.3 * random.normal(), 0, 1)
        signal *= 1 - np.float32(lost) * brain.landscape[:, LANDSCAPE.index("dropout")]
    return signal


def _disturbance(person, contrast: str, s: CohortSpecification, atlas: Atlas, random) -> np.ndarray:
    """Factor of the scanner: gain of the scan and of the site, and a smooth field over the head."""
    site = generator(s.seed, person["site"], "site", contrast).normal()
    gain = max(0.3, 1 + s.gain_sd_fraction * random.normal() + s.site_sd_fraction * site)
    waves = random.normal(size=(N_WAVES,) * 3).astype(np.float32)
    waves[0, 0, 0] = 0  # a constant field is the gain
    field = np.exp(np.float32(s.bias_field_sd_fraction) * smooth_field(waves, atlas))
    return field.astype(np.float32) * np.float32(gain)
