"""-m predict: trained networks on new subjects; ages are not needed."""

from __future__ import annotations

import pandas as pd

from datasets.subjects import COLUMNS, read_id_list, read_subject_table
from utils.common.errors import UserError
from utils.common.files import write_table
from utils.common.messages import say
from utils.experiment.experiment import Cell, Experiment
from utils.experiment.predicting import predict_subjects
from utils.experiment.trained import load_trained
from utils.experiment.training import choose_device


def run(experiment: Experiment) -> None:
    """Write predictions_predict.csv of every cell for the subjects of [MAPPING] predict_subjects."""
    subjects = read_subjects(experiment)
    trained_in = experiment.settings.mapping.experiment_name or experiment.settings.name
    device = choose_device(experiment)
    for cell in experiment.cells:
        chosen = of_cell(subjects, cell)
        if chosen.empty:
            say(f"{cell.name}: none of the subjects is {cell.sex}.")
            continue
        networks = load_trained(cell, experiment.paths_of(trained_in).cell(cell.name))
        table = predict_subjects(experiment, cell, networks, chosen, "predict", device)
        path = experiment.cell_paths(cell).predictions("predict")
        write_table(table, path)
        n_ok = int((table["status"] == "ok").sum())
        say(f"{cell.name}: {n_ok} of {len(table)} subjects predicted, {path}")


def read_subjects(experiment: Experiment) -> pd.DataFrame:
    """A table with ids and sexes, or a list of ids."""
    text = experiment.settings.mapping.predict_subjects
    if not text:
        raise UserError(
            "-m predict: set [MAPPING] predict_subjects to a table or list of subjects."
        )
    path = experiment.settings.path(text)
    if path.suffix.lower() != ".txt":
        return read_subject_table(path)
    table = pd.DataFrame({"subject_id": read_id_list(path)}).reindex(columns=COLUMNS)
    return table.fillna({name: "" for name in COLUMNS if name not in ("subject_id", "age_years")})


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
