"""How a contrast looks and which of the ageing structures it shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Intensities of the tissues, and weights (0 to 1 or more) of the ageing structures in one contrast."""

    grey: float
    white: float
    fluid: float
    lesion: float
    ventricle_weight: float
    cortex_weight: float
    lesion_weight: float
    iron_weight: float
    dropout_weight: float  # signal lost above air-filled bone
    rim_weight: float  # how much the extent of the brain extraction varies


# Intensities are invented but ordered as in the real images: T1 dark fluid and bright white matter, FLAIR dark fluid
# and bright lesions, T2* (ms, times ten) bright fluid and dark iron.
RECIPES = {
    "T1": Recipe(700, 1000, 220, 650, 1.0, 1.0, 0.5, 0.0, 0.0, 1.0),
    "FLAIR": Recipe(1000, 800, 180, 1150, 0.8, 0.5, 1.0, 0.0, 0.0, 1.0),
    "T2STAR": Recipe(560, 480, 1150, 650, 1.0, 0.6, 0.3, 1.0, 0.5, 0.5),
    "ANISOTROPY": Recipe(180, 550, 60, 250, 1.0, 0.5, 1.0, 0.0, 0.0, 1.0),
    "DIFFUSIVITY": Recipe(800, 700, 2500, 1200, 1.0, 0.5, 1.0, 0.0, 0.0, 1.0),
    "DEFAULT": Recipe(800, 500, 200, 650, 1.0, 0.7, 0.5, 0.3, 0.3, 1.0),
}


def recipe_of(contrast: str) -> Recipe:
    """The recipe for a name of the contrast table; names without an own look get the default one."""
    if contrast.startswith("T1"):
        return RECIPES["T1"]
    if contrast.startswith("T2"):
        return RECIPES["FLAIR"]
    if contrast == "swi":
        return RECIPES["T2STAR"]
    if contrast.startswith("tbss_"):
        kind = contrast.split("_")[1]
        return RECIPES["DIFFUSIVITY" if kind in ("L1", "L2", "L3", "MD", "ISOVF") else "ANISOTROPY"]
    return RECIPES["DEFAULT"]
