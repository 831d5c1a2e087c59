"""Trained networks on subjects of a cell: the step that test and predict share."""

from __future__ import annotations

import pandas as pd
import torch

from utils.common.messages import warn
from utils.evaluation.prediction import predict_years
from utils.evaluation.predictions import predictions_table
from utils.experiment.experiment import Cell, Experiment
from utils.experiment.trained import TrainedNetwork, averaged_networks
from utils.experiment.volumes import cell_volumes, report_failures


def predict_subjects(
    experiment: Experiment,
    cell: Cell,
    networks: list[TrainedNetwork],
    subjects: pd.DataFrame,
    split: str,
    device: torch.device,
) -> pd.DataFrame:
    """The predictions table of these subjects; failed volumes are rows with their reason."""
    settings = experiment.settings
    scale_factor = networks[0].record["contrast"]["scale_factor"]
    directory = settings.mapping.data_directory
    volumes = cell_volumes(experiment, cell, subjects, scale_factor, directory)
    predicted = predict_years(
        [(trained.network, trained.target) for trained in networks],
        volumes,
        settings.training.validation_batch_size,
        device,
        settings.data.num_workers,
    )
    report_failures(experiment, cell, split, volumes)
    averaged = averaged_networks(networks)
    if not all(averaged.values()):
        names = ", ".join(str(number) for number, used in averaged.items() if not used)
        warn(f"{cell.name}: network {names} collapsed in training and is not averaged.")
    elif all(trained.collapsed for trained in networks):
        experiment.problem(
            f"{cell.name}: every network collapsed in training; their mean is written, but it is no "
            "better than the mean age."
        )
    return predictions_table(subjects, predicted, averaged, volumes.failures)
