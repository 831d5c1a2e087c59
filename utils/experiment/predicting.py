"""Trained networks on subjects of a cell: the steps that test and predict share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from utils.common.messages import say, warn
from utils.evaluation.gate import Flag, with_notes
from utils.evaluation.precision import precision_change
from utils.evaluation.prediction import predict_years
from utils.evaluation.predictions import predictions_table
from utils.experiment.experiment import Cell, Experiment
from utils.experiment.trained import TrainedNetwork, averaged_networks
from utils.experiment.volumes import cell_volumes, report_failures
from utils.experiment.way import Way

# A network whose validation MAE is above this share of the mean age's has hardly learned anything.
HARDLY_LEARNED = 0.95
TRIAL_N = 100  # subjects; below it such networks are a trial run more often than a result
FOLLOW_FROM_HARDLY_LEARNED = ("small_spread", "no_correlation")


def predict_subjects(
    experiment: Experiment,
    cell: Cell,
    networks: list[TrainedNetwork],
    subjects: pd.DataFrame,
    split: str,
    way: Way,
) -> tuple[pd.DataFrame, Way]:
    """The predictions table of these subjects; failed volumes are rows with their reason.

    On validation, bfloat16 is compared with float32 first. Returned beside the table is the way in which it,
    and what follows, was and is to be predicted.
    """
    settings = experiment.settings
    scale_factor = networks[0].record["contrast"]["scale_factor"]
    directory = settings.mapping.data_directory
    volumes = cell_volumes(experiment, cell, subjects, scale_factor, directory)

    def predict(precision: torch.dtype) -> np.ndarray:
        return predict_years(
            [(trained.network, trained.target) for trained in networks],
            volumes,
            settings.training.validation_batch_size,
            way.device,
            settings.data.num_workers,
            precision,
        )

    averaged = averaged_networks(networks)
    if split == "validation" and way.wanted == torch.bfloat16:
        exact, quick = predict(torch.float32), predict(torch.bfloat16)
        enters = list(averaged.values())
        way = replace(way, change=precision_change(exact[:, enters], quick[:, enters]))
        say(f"{cell.name}: {way.change.sentence}")  # type: ignore[union-attr]
        predicted = quick if way.precision == torch.bfloat16 else exact
    else:
        predicted = predict(way.precision)
    report_failures(experiment, cell, split, volumes)
    if not all(averaged.values()):
        names = ", ".join(str(number) for number, used in averaged.items() if not used)
        warn(f"{cell.name}: network {names} collapsed in training and is not averaged.")
    elif all(trained.collapsed for trained in networks):
        experiment.problem(
            f"{cell.name}: every network collapsed in training; their mean is written, but it is no "
            "better than the mean age."
        )
    table = predictions_table(subjects, predicted, averaged, volumes.failures, volumes.conformed)
    return with_notes(table, networks[0].record["training_ages"]), way


def tell_flags(
    experiment: Experiment,
    cell: Cell,
    networks: list[TrainedNetwork],
    flags: list[Flag],
    split: str,
) -> None:
    """Say every flag: predictions that collapsed are a problem (exit 3), a few outliers a warning.

    A warning as well: a trial run, in which networks that hardly learned anything, as their training showed, say
    about the same age for a few subjects. It was meant to show that everything runs, and it does.
    """
    is_trial = all(hardly_learned(trained) for trained in networks)
    for flag in flags:
        expected = is_trial and flag.of_n_subjects < TRIAL_N
        expected &= flag.name in FOLLOW_FROM_HARDLY_LEARNED
        tell = experiment.problem if flag.is_problem and not expected else warn
        tell(f"{cell.name} {split}: {flag.message}")


def hardly_learned(trained: TrainedNetwork) -> bool:
    """Whether a network's best epoch was next to no better on validation than the mean age."""
    null_years = trained.record["validation_null_mae_years"]
    return not trained.record["validation_mae_years"] < HARDLY_LEARNED * null_years
