"""What a simulated cohort is made of: every size of every effect, with its unit."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from utils.common.errors import SettingsError

# More would fill the memory before the first volume is written.
MOST_SUBJECTS, MOST_NIDPS, MOST_SITES = 100_000, 20_000, 1_000


@dataclass(frozen=True)
class CohortSpecification:
    """The numbers from which a cohort is simulated; the same numbers give the same bytes.

    Ageing: the brain age of contrast c is age + shared delta + own delta of c. A structure has aged by
    `<structure>_per_decade` x (brain age - `age_minimum_years`) / 10, times the weight of the structure in that
    contrast (`recipes.py`). Everything under "nuisance" is independent of age: it is there so that the age cannot be
    read off the volume's intensities, only off its anatomy.

    Parameters
    ----------
    seed : int
        Key of all randomness.
    voxel_mm : float
        Edge of a voxel, 1 to 8 mm; 1 and 2 mm are the grids of UK Biobank.
    contrasts : tuple of str
        Names of the contrast table.
    n_train_per_sex, n_validation_per_sex, n_test_per_sex : int
        Subjects of one sex in each split.
    age_minimum_years, age_maximum_years : float
        Ages are uniform between them.
    sibling_fraction : float
        Part of the subjects of a split that has a sibling in the same split.
    sibling_delta_correlation : float
        Correlation of the true deltas of siblings.
    shared_delta_sd_years, own_delta_sd_years : float
        Standard deviation of the delta that all contrasts share, and of each contrast's own.
    ventricle_mm_per_decade : float
        By how much the wall of the lateral ventricles moves outwards.
    cortex_mm_per_decade : float
        By how much the outer face of the frontal and temporal cortex recedes.
    lesion_fraction_per_decade : float
        Share of the white matter at the ventricles that turns into lesion.
    iron_fraction_per_decade : float
        Share of the signal of the deep grey matter that iron takes away.
    ventricle_male_mm, head_size_male_percent : float
        Men: wall of the ventricles further out; head larger in each direction.
    ventricle_sd_mm, cortex_sd_mm, lesion_sd_fraction, iron_sd_fraction : float
        Differences between persons in the ageing structures that are not ageing: they limit the accuracy.
    other_cortex_mean_mm, other_cortex_sd_mm : float
        Nuisance: recession of the occipital, parietal and cerebellar surface.
    head_size_sd_percent, placement_sd_mm, deformation_sd_mm : float
        Nuisance: size of the head, error of the registration, smooth individual anatomy.
    rim_mean_mm, rim_sd_mm : float
        Nuisance: how much fluid around the brain the brain extraction leaves.
    tissue_sd_fraction, gain_sd_fraction, bias_field_sd_fraction, site_sd_fraction : float
        Nuisance: intensity of each tissue, of the scanner, across the head, of the site.
    noise_fraction : float
        Standard deviation of the noise, as a share of the intensity of white matter.
    motion_noise_fraction : float
        By how much head motion of one standard deviation raises the noise.
    n_sites : int
        Assessment centres.
    n_nidps : int
        Non-imaging phenotypes.
    nidp_smallest_r, nidp_largest_r : float
        Range of the planted correlations between a phenotype and what drives it.
    nidp_missing_fraction : float
        Mean part of the values missing at random.
    """

    seed: int = 1
    voxel_mm: float = 4.0
    contrasts: tuple[str, ...] = ("T1_nonlinear", "T2_nonlinear", "swi")
    n_train_per_sex: int = 320
    n_validation_per_sex: int = 70
    n_test_per_sex: int = 160
    age_minimum_years: float = 45.0
    age_maximum_years: float = 82.0
    sibling_fraction: float = 0.1
    sibling_delta_correlation: float = 0.4
    shared_delta_sd_years: float = 4.0
    own_delta_sd_years: float = 3.0
    ventricle_mm_per_decade: float = 1.0
    cortex_mm_per_decade: float = 0.4
    lesion_fraction_per_decade: float = 0.15
    iron_fraction_per_decade: float = 0.15
    ventricle_male_mm: float = 0.3
    head_size_male_percent: float = 3.0
    ventricle_sd_mm: float = 0.08
    cortex_sd_mm: float = 0.05
    lesion_sd_fraction: float = 0.02
    iron_sd_fraction: float = 0.02
    other_cortex_mean_mm: float = 1.2
    other_cortex_sd_mm: float = 0.8
    head_size_sd_percent: float = 2.0
    placement_sd_mm: float = 0.4
    deformation_sd_mm: float = 1.0
    rim_mean_mm: float = 1.5
    rim_sd_mm: float = 1.2
    tissue_sd_fraction: float = 0.07
    gain_sd_fraction: float = 0.04
    bias_field_sd_fraction: float = 0.05
    site_sd_fraction: float = 0.03
    noise_fraction: float = 0.04
    motion_noise_fraction: float = 0.2
    n_sites: int = 3
    n_nidps: int = 240
    nidp_smallest_r: float = 0.2
    nidp_largest_r: float = 0.6
    nidp_missing_fraction: float = 0.05

    def __post_init__(self) -> None:
        """Refuse numbers from which no cohort can be made, all of them at once."""
        problems = [
            f"{field.name} = {getattr(self, field.name)!r}: cannot be negative or infinite."
            for field in dataclasses.fields(self)
            if isinstance(getattr(self, field.name), (int, float))
            and not 0 <= getattr(self, field.name) < math.inf
        ]
        problems += [text for wrong, text in _rules(self) if wrong]
        if problems:
            raise SettingsError(problems)

    def as_dict(self) -> dict[str, Any]:
        """Plain types, in the order of the fields: what cohort.json holds."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }


def _rules(s: CohortSpecification) -> list[tuple[bool, str]]:
    """(broken, sentence) for what is more than a sign."""
    sizes = (s.n_train_per_sex, s.n_validation_per_sex, s.n_test_per_sex)
    return [
        (not 1 <= s.voxel_mm <= 8, f"voxel_mm = {s.voxel_mm}: choose 1 to 8."),
        (not s.contrasts, "contrasts: name at least one contrast."),
        (len(set(s.contrasts)) < len(s.contrasts), "contrasts: a name occurs twice."),
        (isinstance(s.contrasts, str), "contrasts: is one text; give a tuple of names."),
        (min(sizes) < 1, f"n_*_per_sex = {sizes}: each split needs at least one subject."),
        (
            max(sizes) > MOST_SUBJECTS,
            f"n_*_per_sex: at most {MOST_SUBJECTS:,} subjects in a split.",
        ),
        (s.n_nidps > MOST_NIDPS, f"n_nidps: at most {MOST_NIDPS:,}."),
        (not 1 <= s.n_sites <= MOST_SITES, f"n_sites: 1 to {MOST_SITES}."),
        (
            s.age_minimum_years >= s.age_maximum_years,
            f"age_minimum_years = {s.age_minimum_years} is not below age_maximum_years = {s.age_maximum_years}.",
        ),
        (max(s.sibling_fraction, s.sibling_delta_correlation) > 1, "sibling_*: at most 1."),
        (
            not s.nidp_smallest_r <= s.nidp_largest_r <= 0.95,
            "nidp_smallest_r, nidp_largest_r: ascending and at most 0.95.",
        ),
        (s.nidp_missing_fraction > 0.5, "nidp_missing_fraction: at most 0.5."),
    ]
