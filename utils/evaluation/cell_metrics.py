"""The metrics of one cell and split: networks and ensemble beside the mean-age model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from utils.evaluation.metrics import accuracy, ensemble_gain, null_mae


def cell_metrics(
    predictions: pd.DataFrame,
    averaged: dict[int, bool],
    training_mean_age_years: float,
    rng: np.random.Generator,
    n_resamples: int,
) -> dict[str, Any]:
    """Accuracy of a predictions table, uncorrected, over the subjects with an age and a prediction.

    Parameters
    ----------
    predictions : DataFrame of `utils.evaluation.predictions`
    averaged : number of a network -> whether it enters the mean
    training_mean_age_years : what the mean-age (null) model predicts
    rng, n_resamples : the bootstrap behind the intervals

    Returns
    -------
    dict of plain values; None where a number cannot be known.
    """
    usable = predictions["age_years"].notna() & predictions["predicted_years"].notna()
    table = predictions[usable]
    ages = table["age_years"].to_numpy(dtype=float)
    columns = {number: table[f"predicted_years_{number}"].to_numpy(float) for number in averaged}
    described = ages_described(ages)
    described["n_failed"] = int((predictions["status"] == "failed").sum())
    described["null_mae_years"] = null_mae(ages, training_mean_age_years)
    described["networks"] = [
        {"network": number, "averaged": used, **accuracy(columns[number], ages, rng, n_resamples)}
        for number, used in averaged.items()
    ]
    mean = table["predicted_years"].to_numpy(dtype=float)
    described["ensemble"] = accuracy(mean, ages, rng, n_resamples)
    used_columns = [columns[number] for number, used in averaged.items() if used]
    return {**described, **ensemble_gain(np.column_stack(used_columns), ages)}


def ages_described(ages_years: np.ndarray) -> dict[str, Any]:
    """n, mean, SD and range: an MAE means nothing without them (de Lange et al. 2022)."""
    n = len(ages_years)
    return {
        "n": n,
        "age_mean_years": float(ages_years.mean()) if n else None,
        "age_sd_years": float(ages_years.std(ddof=1)) if n > 1 else None,
        "age_min_years": float(ages_years.min()) if n else None,
        "age_max_years": float(ages_years.max()) if n else None,
    }
