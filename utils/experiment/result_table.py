"""The table a study ends with: accuracy per cell, and for simulated cohorts the truth beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from utils.common.tables import read_table
from utils.evaluation.metrics import correlation
from utils.evaluation.sex_deltas import COMBINED
from utils.experiment.experiment import Experiment

SPLIT = "test"
# What drives a simulated nIDP, in words; the first two are there to be found.
PLANTED = {
    "shared": "follow the delta that all contrasts share",
    "contrast": "follow one contrast's delta",
    "age": "follow age alone (any found is false)",
    "confound": "follow a confound alone (any found is false)",
    "none": "follow nothing (any found is false)",
}


def result_table(
    experiment: Experiment, metrics: pd.DataFrame, deltas: pd.DataFrame | None
) -> pd.DataFrame:
    """Per cell and combination on the test split: n, MAE, the mean-age model's MAE, r.

    A simulated cohort adds r of the corrected delta with the true one (of the contrast; the shared
    one for the combination).
    """
    chosen = metrics["predictor"].isin(["ensemble", experiment.settings.deltas.combination])
    shown = metrics[chosen & (metrics["split"] == SPLIT)]
    table = pd.DataFrame(
        {
            "contrast": shown["contrast"],
            "sex": shown["sex"],
            "n": shown["n"],
            "MAE": shown["mae_years"].round(2),
            "null MAE": shown["null_mae_years"].round(2),
            "null/MAE": (shown["null_mae_years"] / shown["mae_years"]).round(2),
            "r": shown["r"].round(3),
        }
    )
    truth = read_truth(experiment)
    if truth is None or deltas is None:
        return table
    deltas = deltas[deltas["split"] == SPLIT].merge(truth, on="subject_id", how="left")
    table["r(delta, truth)"] = [
        _r_with_truth(deltas, row["contrast"], row["sex"]) for row in table.to_dict("records")
    ]
    return table


def planted_counts(experiment: Experiment, associations: pd.DataFrame | None) -> list[str]:
    """For a simulated cohort: how many planted nIDPs were found, and how many others, in sentences."""
    folder = cohort_folder(experiment)
    if folder is None or associations is None or not (folder / "nidp_truth.csv").is_file():
        return []
    truth = read_table(folder / "nidp_truth.csv")
    alpha = experiment.settings.association.alpha
    found = set(associations.loc[associations["q_bh"] <= alpha, "column"])
    tested = set(associations.loc[associations["reason"] == "", "column"])
    kinds = truth["driver"].str.partition(":")[0]
    sentences = []
    for kind, words in PLANTED.items():
        names = set(truth.loc[kinds == kind, "nidp"]) & tested
        sentences.append(f"nIDPs that {words}: {len(names & found)} of {len(names)} found")
    return sentences


def cohort_folder(experiment: Experiment) -> Path | None:
    """The folder of a simulated cohort; None for anybody else's data."""
    if not experiment.simulated:
        return None
    folder = experiment.settings.path(experiment.settings.data.data_directory)
    return folder if (folder / "cohort.json").is_file() else folder.parent


def read_truth(experiment: Experiment) -> pd.DataFrame | None:
    """truth.csv of a simulated cohort."""
    folder = cohort_folder(experiment)
    path = folder / "truth.csv" if folder else None
    return read_table(path) if path and path.is_file() else None


def _r_with_truth(deltas: pd.DataFrame, contrast: Any, sex: Any) -> float | None:
    rows = deltas[deltas["contrast"] == contrast]
    if sex != "all":
        rows = rows[rows["sex"] == sex]
    column = "shared_delta_years" if contrast == COMBINED else f"delta_{contrast}_years"
    if column not in rows:
        return None
    delta = rows["corrected_delta_years"].to_numpy(dtype=float)
    r = correlation(delta, rows[column].to_numpy(dtype=float))["value"]
    return None if r is None else round(r, 3)
