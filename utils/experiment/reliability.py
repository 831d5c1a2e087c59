"""How far deltas can be trusted: reliability.csv of the networks of each cell, test_retest.csv of second scans."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from utils.common.tables import read_table
from utils.evaluation.deltas import AgeBiasCorrection, CorrectionRefused
from utils.evaluation.reliability import NETWORK_COLUMNS, network_agreement
from utils.evaluation.retest import recognise_retest, retest_rows, second_scans
from utils.evaluation.sex_deltas import FITTED_ON, RETEST, SexDeltas
from utils.experiment.experiment import Cell, Experiment
from utils.experiment.results import PERSON_SPLITS, read_metrics, read_predictions


def network_reliability(experiment: Experiment) -> pd.DataFrame:
    """A row a contrast, sex, split and quantity (delta, corrected_delta) with two averaged networks or more."""
    rows = []
    for cell in experiment.grid:
        for split in PERSON_SPLITS:
            rows += _rows_of_cell(experiment, cell, split)
    return pd.DataFrame(rows, columns=list(NETWORK_COLUMNS))


def retest_reliability(
    experiment: Experiment, fitted: dict[str, SexDeltas], first: pd.DataFrame
) -> pd.DataFrame:
    """Second scans of `[DELTAS] retest` against the first, corrected by what was fitted for the first.

    first : long deltas of all splits, with a column split.
    """
    path = experiment.settings.path(experiment.settings.deltas.retest)
    contrasts = list(dict.fromkeys(name for one in fitted.values() for name in one.contrasts))
    table = recognise_retest(read_table(path), str(path), contrasts)
    unknown = ~table["subject_id"].isin(first["subject_id"])
    if unknown.any():
        experiment.problem(
            f"{path}: {int(unknown.sum())} of {len(table)} rows are of subjects without a first scan in this "
            "experiment's predictions; they are left out."
        )
    second = []
    for sex, deltas in fitted.items():
        mine = set(first.loc[first["sex"] == sex, "subject_id"]) & set(table["subject_id"])
        if mine:
            scans = second_scans(table, deltas.contrasts, mine)
            second.append(deltas.apply(scans, RETEST)[0])
    return retest_rows(first, pd.concat(second)) if second else retest_rows(first, first.iloc[:0])


def _rows_of_cell(experiment: Experiment, cell: Cell, split: str) -> list[dict[str, Any]]:
    table, metrics = (
        read_predictions(experiment, cell, split),
        read_metrics(experiment, cell, split),
    )
    if table is None or metrics is None:
        return []
    names = [
        f"predicted_years_{entry['network']}" for entry in metrics["networks"] if entry["averaged"]
    ]
    if len(names) < 2:
        return []
    where = {"contrast": cell.contrast.name, "sex": cell.sex, "split": split}
    delta = table[names].to_numpy(float) - table["age_years"].to_numpy(float)[:, None]
    rows = [{**where, "quantity": "delta", "in_sample": False, **network_agreement(delta)}]
    corrected = _corrected(experiment, cell, names, table)
    if corrected is not None:
        deltas, in_sample = corrected
        stamp = {"quantity": "corrected_delta", "in_sample": in_sample}
        rows.append({**where, **stamp, **network_agreement(deltas)})
    return rows


def _corrected(
    experiment: Experiment, cell: Cell, names: list[str], table: pd.DataFrame
) -> tuple[np.ndarray, bool] | None:
    """(S, K) deltas of the networks, each corrected by what validation says of it; None where that is refused.

    With them whether a subject was part of the fit.
    """
    method = experiment.settings.deltas.bias_correction
    validation = read_predictions(experiment, cell, FITTED_ON)
    if method == "none" or validation is None:
        return None
    age, fit_age = (t["age_years"].to_numpy(float) for t in (table, validation))
    columns, in_sample = [], False
    for name in names:
        try:
            correction = AgeBiasCorrection(method).fit(
                validation[name].to_numpy(float), fit_age, validation["subject_id"].tolist()
            )
        except CorrectionRefused:
            return None
        done = correction.correct(
            table[name].to_numpy(float), age, table["subject_id"].tolist(), allow_in_sample=True
        )
        columns.append(done.corrected_delta_years)
        in_sample = in_sample or done.record["in_sample"]
    return np.column_stack(columns), in_sample
