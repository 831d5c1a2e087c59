"""Invented non-imaging phenotypes (nIDPs) with planted causes, and the confounds.

No number here comes from a person. Names look like those of a field list so that tables and figures can be tried out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from datasets.simulation.specification import CohortSpecification
from utils.common.randomness import generator

CATEGORIES = {  # category: (measures, ways to take them)
    "Cognitive tests": (
        ("Card pairs", "Tile maze", "Word chain", "Dot tracing", "Digit ladder"),
        "score",
    ),
    "Blood assays": (("Ferulin", "Globatin", "Lipidan", "Nephrol", "Corvane"), "concentration"),
    "Physical measures": (("Grip", "Waist", "Stride", "Reach", "Balance"), "measurement"),
    "Heart and circulation": (
        ("Pulse wave", "Pressure", "Recovery", "Rhythm", "Stiffness"),
        "index",
    ),
    "Lifestyle": (("Walking", "Sleep", "Screen", "Garden", "Salt"), "frequency"),
    "Mental health": (("Worry", "Mood", "Energy", "Calm", "Interest"), "questionnaire"),
    "Bone and joint": (("Heel", "Hip", "Spine", "Knee", "Wrist"), "density"),
    "Eyes and hearing": (("Tone", "Speech", "Lens", "Field", "Pressure of the eye"), "threshold"),
}
# Part of the phenotypes with each driver, in this order; the contrasts share theirs, "none" takes the rest.
SHARED_PART, CONTRAST_PART, AGE_PART, CONFOUND_PART = 0.2, 0.2, 0.15, 0.15
CONFOUND_DRIVERS = ("head_size_scale", "head_motion_mm", "scan_year")
KINDS = ("continuous",) * 6 + ("ordinal",) * 2 + ("binary",) * 2
HEAVY_MISSING_FACTOR = 4  # every tenth phenotype was taken from few people
ONE_SEX_EVERY = 15  # one phenotype in fifteen is of one sex alone


@dataclass(frozen=True)
class Phenotypes:
    """The three tables; `truth` is for the simulation's own tests, never for an analysis."""

    values: pd.DataFrame
    dictionary: pd.DataFrame
    truth: pd.DataFrame


def confounds_of(people: pd.DataFrame) -> pd.DataFrame:
    """Confounds as an analyst would have them: numbers, and the site as text."""
    return pd.DataFrame(
        {
            "subject_id": people["subject_id"],
            "site": people["site"],
            # Volumetric scale onto the template: a large head needs a small factor.
            "head_size_scale": (1 + people["head_size_percent"] / 100) ** -3,
            "head_motion_mm": 0.15 * np.exp(0.4 * people["motion_z"]),
            "scan_year": people["scan_year"],
            "table_position_mm": people["table_position_mm"],
        }
    )


def draw_phenotypes(people: pd.DataFrame, specification: CohortSpecification) -> Phenotypes:
    """Every phenotype is `effect` x z(driver) + sqrt(1 - effect^2) x noise, then given its kind.

    `effect` is therefore the planted correlation with the driver before the values are cut into classes and before
    some go missing. Drivers: "shared" (the shared delta), "contrast:<name>" (that contrast's own delta alone), "age",
    "confound:<column>" and "none".
    """
    confounds = confounds_of(people)
    drivers = _drivers(specification)
    values: dict[str, object] = {"subject_id": people["subject_id"]}
    dictionary, truth = [], []
    for index, driver in enumerate(drivers):
        random = generator(specification.seed, "nidp", index)
        entry = _entry(index)
        effect = _effect(driver, specification, random)
        latent = _standardised(_driver_values(driver, people, confounds)) * effect
        latent = latent + np.sqrt(1 - effect**2) * random.normal(size=len(people))
        column = _give_kind(latent, entry["kind"], random)
        missing, sex = _missing(index, people, specification.nidp_missing_fraction, random)
        values[entry["nidp"]] = np.where(missing, np.nan, column)
        dictionary.append(entry)
        truth.append({"nidp": entry["nidp"], "driver": driver, "effect": effect, "sex": sex})
    return Phenotypes(pd.DataFrame(values), pd.DataFrame(dictionary), pd.DataFrame(truth))


def _drivers(s: CohortSpecification) -> list[str]:
    """One driver a phenotype, shuffled so that every category holds every kind of cause."""
    counts = [
        round(s.n_nidps * part) for part in (SHARED_PART, CONTRAST_PART, AGE_PART, CONFOUND_PART)
    ]
    drivers = ["shared"] * counts[0]
    drivers += [f"contrast:{s.contrasts[i % len(s.contrasts)]}" for i in range(counts[1])]
    drivers += ["age"] * counts[2]
    drivers += [f"confound:{CONFOUND_DRIVERS[i % len(CONFOUND_DRIVERS)]}" for i in range(counts[3])]
    drivers += ["none"] * (s.n_nidps - len(drivers))
    order = generator(s.seed, "nidp drivers").permutation(s.n_nidps)
    return [drivers[i] for i in order]


def _entry(index: int) -> dict[str, str]:
    """The dictionary's row of a phenotype."""
    category = list(CATEGORIES)[index % len(CATEGORIES)]
    measures, way = CATEGORIES[category]
    round_ = index // len(CATEGORIES)
    measure = measures[round_ % len(measures)]
    name = f"{measure} {way} {round_ // len(measures) + 1}"
    kind = KINDS[(index * 7 + round_) % len(KINDS)]
    return {
        "nidp": f"sim{90001 + index}",
        "name": name,
        "category": category,
        "description": f"Simulated {kind} phenotype: {name.lower()} ({category.lower()}); not of any person.",
        "kind": kind,
    }


def _effect(driver: str, s: CohortSpecification, random: np.random.Generator) -> float:
    if driver == "none":
        return 0.0
    size = random.uniform(s.nidp_smallest_r, s.nidp_largest_r)
    return round(float(size * random.choice([-1, 1])), 4)


def _driver_values(driver: str, people: pd.DataFrame, confounds: pd.DataFrame) -> np.ndarray:
    kind, _, name = driver.partition(":")
    if kind == "shared":
        column = people["shared_delta_years"]
    elif kind == "contrast":
        column = people[f"own_delta_{name}_years"]
    elif kind == "age":
        column = people["age_years"]
    elif kind == "confound":
        column = confounds[name]
    else:
        column = pd.Series(np.zeros(len(people)))
    return column.to_numpy(dtype=float)


def _standardised(values: np.ndarray) -> np.ndarray:
    spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)


def _give_kind(latent: np.ndarray, kind: str, random: np.random.Generator) -> np.ndarray:
    """Continuous values with a unit of their own, 3 to 6 ordered classes, or 0/1 of 5 to 50 % prevalence."""
    if kind == "binary":
        return (latent > np.quantile(latent, 1 - random.uniform(0.05, 0.5))).astype(float)
    if kind == "ordinal":
        n_classes = int(random.integers(3, 7))
        cuts = np.quantile(latent, np.sort(random.uniform(0.1, 0.9, n_classes - 1)))
        return np.searchsorted(cuts, latent).astype(float)
    if random.uniform() < 0.3:  # skewed, as many blood assays are
        return np.round(10 * np.exp(0.5 * latent), 3)
    return np.round(50 + 10 * latent, 3)


def _missing(
    index: int, people: pd.DataFrame, mean_fraction: float, random: np.random.Generator
) -> tuple[np.ndarray, str]:
    """Who was not measured: some by chance, sometimes all of one sex. Returns the mask and the sex measured."""
    factor = HEAVY_MISSING_FACTOR if index % 10 == 9 else 1
    fraction = min(0.9, mean_fraction * factor * random.uniform(0, 2))
    missing = random.uniform(size=len(people)) < fraction
    if index % ONE_SEX_EVERY != ONE_SEX_EVERY - 1:
        return missing, "both"
    sex = "female" if (index // ONE_SEX_EVERY) % 2 == 0 else "male"
    return missing | (people["sex"] != sex).to_numpy(), sex
