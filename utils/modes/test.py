"""-m test: the best checkpoints of every cell predict validation and test; metrics beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from datasets.subjects import subjects_hash
from utils.common.files import write_json
from utils.common.messages import say, warn
from utils.common.randomness import generator
from utils.common.tables import write_table
from utils.evaluation.cell_metrics import cell_metrics
from utils.evaluation.gate import prediction_flags
from utils.experiment.experiment import Cell, Experiment
from utils.experiment.exported import networks_of
from utils.experiment.predicting import predict_subjects, tell_flags
from utils.experiment.trained import TrainedNetwork, averaged_networks
from utils.experiment.training import choose_device
from utils.experiment.way import way_to_predict


def run(experiment: Experiment) -> None:
    """Test every cell; one that cannot be tested is a problem, not the end of the run."""
    device = choose_device(experiment)
    experiment.each_cell(lambda cell: test_cell(experiment, cell, device), "tested")


def test_cell(experiment: Experiment, cell: Cell, device: torch.device) -> None:
    """Predict each split with the cell's networks."""
    trained_in, networks = networks_of(experiment, cell)
    if trained_in == experiment.settings.name:
        warn_of_other_training_subjects(experiment, cell, networks[0].record)
    way = way_to_predict(experiment, cell, networks, device)
    for split in experiment.settings.evaluated_splits:
        subjects = experiment.subjects_of(cell.sex, split)
        table, way = predict_subjects(experiment, cell, networks, subjects, split, way)
        write_table(table, experiment.cell_paths(cell).predictions(split))
        flags = prediction_flags(table, networks[0].record["training_ages"])
        metrics = {
            "contrast": cell.contrast.name,
            "sex": cell.sex,
            "split": split,
            "trained_in": trained_in,
            "networks_sha256": way.networks_hash,
            "training_mean_age_years": networks[0].record["training_ages"]["mean_years"],
            **describe(experiment, cell, networks, table, split),
            **way.describe(),
            "training": {
                "n_epochs": networks[0].record.get("n_epochs"),
                "precision": networks[0].record.get("computed", {}).get("precision"),
            },
            "flags": [flag.to_dict() for flag in flags],
        }
        write_json(metrics, experiment.cell_paths(cell).metrics(split))
        say(line(cell, split, metrics))
        tell_flags(experiment, cell, networks, flags, split)


def warn_of_other_training_subjects(
    experiment: Experiment, cell: Cell, record: dict[str, Any]
) -> None:
    """Say it when the lists changed since training: who is tested may have been trained on."""
    table = experiment.subjects
    chosen = (table["split"] == "train") & ((cell.sex == "both") | (table["sex"] == cell.sex))
    listed = table[chosen & table["age_years"].notna()]["subject_id"]
    if len(listed) and subjects_hash(listed) != record["training_subjects_hash"]:
        warn(
            f"{cell.name}: its networks were trained on other subjects than the lists now name; a test "
            "subject that they were trained on would flatter them."
        )


def describe(
    experiment: Experiment,
    cell: Cell,
    networks: list[TrainedNetwork],
    table: pd.DataFrame,
    split: str,
) -> dict:
    """Metrics of the split with the mean-age model of training beside them."""
    ages = networks[0].record["training_ages"]
    rng = generator(experiment.settings.training.seed, "bootstrap", cell.name, split)
    resamples = experiment.settings.mapping.bootstrap_resamples
    averaged = averaged_networks(networks)
    metrics = cell_metrics(table, averaged, ages["mean_years"], rng, resamples)
    for row, trained in zip(metrics["networks"], networks):
        row.update(seed=trained.record["seed"], collapsed=trained.collapsed)
    outside = (table["age_years"] < ages["min_years"]) | (table["age_years"] > ages["max_years"])
    metrics["n_outside_training_ages"] = int(outside.sum())
    return metrics


def line(cell: Cell, split: str, metrics: dict) -> str:
    """One line for a reader of the log."""
    if metrics["n"] == 0:
        return f"{cell.name} {split}: no subject with an age was predicted"
    mae, null = metrics["ensemble"]["mae_years"]["value"], metrics["null_mae_years"]
    r = metrics["ensemble"]["r"]["value"]
    shown = f", r {r:.3f}" if r is not None and np.isfinite(r) else ""
    return (
        f"{cell.name} {split}: n {metrics['n']}, MAE {mae:.2f} y (mean age: {null:.2f} y){shown}"
        + (f", {metrics['n_failed']} failed" if metrics["n_failed"] else "")
    )
