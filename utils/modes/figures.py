"""-m figures: the figures of the study as PNG and SVG, with captions."""

from __future__ import annotations

from figures.writing import write_figures
from utils.common.messages import say
from utils.experiment.description import study_tables
from utils.experiment.experiment import Experiment


def run(experiment: Experiment) -> None:
    """Draw what there is; dots for persons only where the cohort is simulated or the settings say so."""
    written = write_figures(
        study_tables(experiment), experiment.paths.figures, experiment.individual_level
    )
    say(f"{len(written)} pictures written to {experiment.paths.figures}")
