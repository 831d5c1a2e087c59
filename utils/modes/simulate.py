"""-m simulate: a cohort with known truth, in the folder form of UK Biobank."""

from __future__ import annotations

import os

from datasets.simulation import CohortSpecification, simulate_cohort
from utils.common.messages import say
from utils.experiment.experiment import Experiment


def run(experiment: Experiment) -> None:
    """Write the cohort of [SIMULATION]; a finished one of the same numbers is kept."""
    numbers = experiment.settings.simulation.model_dump(exclude={"folder"})
    folder = experiment.settings.path(experiment.settings.simulation.folder)
    summary = simulate_cohort(CohortSpecification(**numbers), folder, os.cpu_count() or 1)
    say(str(summary))
