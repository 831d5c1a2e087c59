"""-m predict: trained networks on new subjects; ages are not needed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from datasets.subjects import COLUMNS, read_id_list, read_subject_table
from utils.common.errors import UserError
from utils.common.files import write_json
from utils.common.messages import say
from utils.common.tables import write_table
from utils.evaluation.gate import prediction_flags
from utils.experiment.experiment import Cell, Experiment
from utils.experiment.exported import networks_of
from utils.experiment.predicting import predict_subjects, tell_flags
from utils.experiment.training import choose_device
from utils.experiment.way import way_to_predict


def run(experiment: Experiment) -> None:
    """Write predictions_predict.csv and .json of every cell for the subjects of [MAPPING] predict_subjects.

    A cell that cannot predict is a problem, not the end of the run.
    """
    subjects = read_subjects(experiment)
    device = choose_device(experiment)
    n_predicting = 0
    for cell in experiment.cells:
        try:
            n_predicting += predict_cell(experiment, cell, subjects, device)
        except UserError as error:
            if len(experiment.cells) == 1:
                raise
            experiment.problem(f"{cell.name} predicted nobody: {error}")
    if not n_predicting:
        raise UserError("no cell predicted anybody; the reasons stand above.")


def predict_cell(
    experiment: Experiment, cell: Cell, subjects: pd.DataFrame, device: torch.device
) -> bool:
    """Predict the subjects that this cell's networks are for; False where there is none."""
    chosen = of_cell(subjects, cell)
    if chosen.empty:
        say(f"{cell.name}: none of the subjects is {cell.sex}.")
        return False
    trained_in, networks = networks_of(experiment, cell)
    way = way_to_predict(experiment, cell, networks, device)
    table, way = predict_subjects(experiment, cell, networks, chosen, "predict", way)
    path = experiment.cell_paths(cell).predictions("predict")
    write_table(table, path)
    n_ok = int((table["status"] == "ok").sum())
    say(f"{cell.name}: {n_ok} of {len(table)} subjects predicted, {path}")
    flags = prediction_flags(table, networks[0].record["training_ages"])
    record = {
        "experiment_name": trained_in,
        "n": n_ok,
        "n_failed": int((table["status"] == "failed").sum()),
        **way.describe(),
        "flags": [flag.to_dict() for flag in flags],
    }
    write_json(record, experiment.cell_paths(cell).predictions_record("predict"))
    tell_flags(experiment, cell, networks, flags, "predict")
    return True


def read_subjects(experiment: Experiment) -> pd.DataFrame:
    """A table with ids and sexes, or a list of ids."""
    text = experiment.settings.mapping.predict_subjects
    if not text:
        raise UserError(
            "-m predict: set [MAPPING] predict_subjects to a table or list of subjects."
        )
    path = experiment.settings.path(text)
    if path.suffix.lower() == ".txt":
        empty = {name: "" for name in COLUMNS if name not in ("subject_id", "age_years")}
        ids = read_id_list(path)
        table = pd.DataFrame({"subject_id": ids, "age_years": np.nan}).assign(**empty)[COLUMNS]
    else:
        table = read_subject_table(path)
    if table.empty:
        raise UserError(f"{path}: holds no subject.")
    return table


def of_cell(subjects: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    """The subjects a cell's networks are for; without a sex only pooled networks fit."""
    if cell.sex == "both":
        return subjects
    n_unknown = int((subjects["sex"] == "").sum())
    if n_unknown:
        raise UserError(
            f"{cell.name}: {n_unknown} subject(s) have no sex, and these networks are for {cell.sex} "
            "subjects; give predict_subjects as a table with a sex column."
        )
    return subjects[subjects["sex"] == cell.sex].reset_index(drop=True)
