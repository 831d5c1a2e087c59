"""-m simulate: a cohort with known truth, in the folder form of UK Biobank."""

from __future__ import annotations

import os

from datasets.simulation import CohortSpecification, simulate_cohort
from utils.common.errors import SettingsError
from utils.common.messages import say
from utils.experiment.experiment import Experiment

EFFECTS = (
    "shared_delta_sd_years",
    "own_delta_sd_years",
    "ventricle_mm_per_decade",
    "cortex_mm_per_decade",
    "lesion_fraction_per_decade",
    "iron_fraction_per_decade",
    "noise_fraction",
)


def run(experiment: Experiment) -> None:
    """Write the cohort of [SIMULATION]; a finished one of the same numbers is kept."""
    numbers = experiment.settings.simulation.model_dump(exclude={"folder"})
    try:
        specification = CohortSpecification(**numbers)
    except SettingsError as error:
        place = f"{experiment.settings.name}.ini [SIMULATION]"
        raise SettingsError([f"{place}: {problem}" for problem in error.problems]) from error
    effects = ", ".join(f"{name} {numbers[name]:g}" for name in EFFECTS)
    say(f"simulating a cohort at {specification.voxel_mm:g} mm; {effects}")
    folder = experiment.settings.path(experiment.settings.simulation.folder)
    summary = simulate_cohort(specification, folder, os.cpu_count() or 1)
    say(
        f"{summary.n_subjects} subjects with {', '.join(summary.contrasts)} in {summary.folder}"
        + (" (made before)" if summary.reused else "")
    )
