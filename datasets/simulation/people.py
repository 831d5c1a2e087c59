"""Who takes part: ids, ages, sexes, families, sites, true deltas, and what is measured at the scanner."""

from __future__ import annotations

import numpy as np
import pandas as pd

from datasets.simulation.specification import CohortSpecification
from utils.common.randomness import generator

SEXES = ("female", "male")
SPLITS = ("train", "validation", "test")
PARTICIPANT_COLUMNS = ("subject_id", "age_years", "sex", "split", "family", "site")
SIBLING_AGE_GAP_YEARS = 6.0
SITE_NAMES = ("Northfield", "Eastwick", "Southmoor", "Westbrook", "Midhaven")  # invented


def draw_people(specification: CohortSpecification) -> pd.DataFrame:
    """One row a person, ordered by subject id: participants' columns, deltas, brain ages, nuisance.

    Siblings are neighbours within a split, so that a family never crosses from one split to another.
    """
    s = specification
    people = _assign_ids_and_splits(s)
    random = generator(s.seed, "people")
    n = len(people)
    span_years = s.age_maximum_years - s.age_minimum_years
    older = _older_siblings(people, s.sibling_fraction)
    ages = s.age_minimum_years + span_years * random.uniform(size=n)
    gaps = random.uniform(-SIBLING_AGE_GAP_YEARS, SIBLING_AGE_GAP_YEARS, n)
    younger = older >= 0
    ages[younger] = _reflect(ages[older[younger]] + gaps[younger], s)
    people["age_years"] = np.round(ages, 2)
    people["family"] = [f"family-{first:05d}" for first in np.where(younger, older, np.arange(n))]
    people["site"] = [_site_name(i) for i in random.integers(0, s.n_sites, n)]
    correlation = s.sibling_delta_correlation
    shared = s.shared_delta_sd_years * _familial(older, correlation, random)
    people["shared_delta_years"] = shared
    for contrast in s.contrasts:
        own = s.own_delta_sd_years * _familial(older, correlation, random)
        people[f"own_delta_{contrast}_years"] = own
        people[f"delta_{contrast}_years"] = people["shared_delta_years"] + own
        people[f"brain_age_{contrast}_years"] = (
            people["age_years"] + people[f"delta_{contrast}_years"]
        )
    male = (people["sex"] == "male").to_numpy()
    people["head_size_percent"] = (
        s.head_size_sd_percent * random.normal(size=n) + s.head_size_male_percent * male
    )
    people["motion_z"] = random.normal(size=n)
    people["scan_year"] = random.uniform(2014.5, 2023.0, n)
    people["table_position_mm"] = 12 * random.normal(size=n)
    return people


def _assign_ids_and_splits(s: CohortSpecification) -> pd.DataFrame:
    """Shuffled ids with leading zeros, so that their order tells nothing; sexes alternate within a split."""
    sizes = dict(zip(SPLITS, (s.n_train_per_sex, s.n_validation_per_sex, s.n_test_per_sex)))
    rows = [(split, sex) for split, size in sizes.items() for _ in range(size) for sex in SEXES]
    numbers = generator(s.seed, "ids").permutation(len(rows)) + 1
    people = pd.DataFrame(rows, columns=["split", "sex"])
    people.insert(0, "subject_id", [f"sim-{number:07d}" for number in numbers])
    return people.sort_values("subject_id", ignore_index=True)


def _older_siblings(people: pd.DataFrame, sibling_fraction: float) -> np.ndarray:
    """For each person the row of an earlier sibling, or -1: pairs among the first people of each split."""
    older = np.full(len(people), -1)
    for split in SPLITS:
        rows = np.flatnonzero(people["split"] == split)
        n_pairs = round(len(rows) * sibling_fraction / 2)
        older[rows[1 : 2 * n_pairs : 2]] = rows[0 : 2 * n_pairs : 2]
    return older


def _familial(older: np.ndarray, correlation: float, random: np.random.Generator) -> np.ndarray:
    """Standard normal values that correlate between siblings."""
    values = random.normal(size=len(older))
    younger = older >= 0
    own = values[younger] * np.sqrt(1 - correlation**2)
    values[younger] = correlation * values[older[younger]] + own
    return values


def _reflect(ages: np.ndarray, s: CohortSpecification) -> np.ndarray:
    """Ages beyond a limit are mirrored at it, so that the distribution stays flat."""
    ages = np.where(ages < s.age_minimum_years, 2 * s.age_minimum_years - ages, ages)
    ages = np.where(ages > s.age_maximum_years, 2 * s.age_maximum_years - ages, ages)
    return np.clip(ages, s.age_minimum_years, s.age_maximum_years)


def _site_name(index: int) -> str:
    return SITE_NAMES[index] if index < len(SITE_NAMES) else f"Site {index + 1}"
