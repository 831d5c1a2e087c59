"""The cohort with known truth: simulated subjects in the folder form of UK Biobank."""

from datasets.simulation.baseline import histogram_features, ridge_baseline_mae
from datasets.simulation.cohort import CohortSummary, simulate_cohort
from datasets.simulation.grid import Grid
from datasets.simulation.specification import CohortSpecification
from datasets.simulation.storage import cohort_is_complete

__all__ = [
    "CohortSpecification",
    "CohortSummary",
    "Grid",
    "cohort_is_complete",
    "histogram_features",
    "ridge_baseline_mae",
    "simulate_cohort",
]
