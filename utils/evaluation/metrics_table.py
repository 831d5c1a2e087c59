"""summary/metrics.csv: the accuracy of every network, ensemble and combination in one long table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from utils.evaluation.age_dependence import age_dependence
from utils.evaluation.cell_metrics import ages_described
from utils.evaluation.metrics import accuracy

# Accuracy is of uncorrected predictions and comes first; then what is left of age in raw and corrected deltas.
COLUMNS = (
    "contrast", "sex", "split", "predictor", "n", "n_failed", "age_mean_years", "age_sd_years",
    "age_min_years", "age_max_years", "null_mae_years", "mae_years", "mae_low_years",
    "mae_high_years", "rmse_years", "r", "r_low", "r_high", "r2", "r_delta_age",
    "r_corrected_delta_age", "flags", "mae_over_null",
    "r_delta_age_low", "r_delta_age_high", "r_corrected_delta_age_low", "r_corrected_delta_age_high",
    "r_delta_age2", "r_delta_age2_low", "r_delta_age2_high",
    "r_corrected_delta_age2", "r_corrected_delta_age2_low", "r_corrected_delta_age2_high",
)  # fmt: skip
_DELTAS = ("delta", "corrected_delta")


def rows_of_cell(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each network of a metrics_<split>.json and one for their ensemble."""
    shared = {key: metrics[key] for key in COLUMNS if key in metrics and key != "flags"}
    flags = ";".join(flag["name"] for flag in metrics.get("flags", []))
    rows = [
        {**shared, "predictor": f"network_{entry['network']}", **_flat(entry)}
        for entry in metrics["networks"]
    ]
    return [
        *rows,
        {**shared, "predictor": "ensemble", "flags": flags, **_flat(metrics["ensemble"])},
    ]


def row_of_predictor(
    where: dict[str, Any],
    predicted_years: np.ndarray,
    ages_years: np.ndarray,
    null_years: np.ndarray,
    rng: np.random.Generator,
    n_resamples: int,
) -> dict[str, Any]:
    """One row for a predictor given subject by subject.

    `where` holds contrast, sex, split and predictor; `null_years` is what the mean-age model says of
    each subject (it differs between sexes).
    """
    usable = np.isfinite(predicted_years) & np.isfinite(ages_years)
    ages = ages_years[usable]
    null = float(np.abs(null_years[usable] - ages).mean()) if usable.any() else None
    return {
        **where,
        **ages_described(ages),
        "n_failed": int((~usable & np.isfinite(ages_years)).sum()),
        "null_mae_years": null,
        **_flat(accuracy(predicted_years[usable], ages, rng, n_resamples)),
    }


def metrics_table(
    rows: list[dict[str, Any]], deltas: pd.DataFrame, combination: str
) -> pd.DataFrame:
    """The rows in order, with what is left of the age in raw and corrected deltas beside them.

    Deltas are of the mean of a cell's networks and of the one chosen `combination`; the rows of other
    predictors have none. mae_over_null: the MAE in units of the mean-age model's, which alone can be
    compared between cohorts of different ages.
    """
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    flags = table["flags"].astype(object)
    table["flags"] = flags.where(flags.notna(), "")
    mae, null = (pd.to_numeric(table[name]) for name in ("mae_years", "null_mae_years"))
    table["mae_over_null"] = (mae / null).where(null > 0)
    places = ["contrast", "sex", "split"]
    found = {key: _left_of_age(part) for key, part in deltas.groupby(places)}
    with_deltas = table["predictor"].isin(["ensemble", combination])
    keys = list(zip(*(table[name] for name in places)))
    for column in (name for name in COLUMNS if "delta_age" in name):
        values = [found.get(key, {}).get(column) for key in keys]
        table[column] = pd.to_numeric(pd.Series(values, dtype=object)).where(with_deltas)
    return table


def _left_of_age(part: pd.DataFrame) -> dict[str, float | None]:
    """Columns r_delta_age, r_delta_age_low, ... of one contrast, sex and split."""
    age = part["age_years"].to_numpy(float)
    columns = {}
    for name in _DELTAS:
        measured = age_dependence(part[f"{name}_years"].to_numpy(float), age)
        for term, interval in measured.items():
            columns[f"r_{name}_{term}"] = interval["value"]
            columns[f"r_{name}_{term}_low"] = interval["low"]
            columns[f"r_{name}_{term}_high"] = interval["high"]
    return columns


def _flat(measures: dict[str, Any]) -> dict[str, Any]:
    return {
        "mae_years": measures["mae_years"]["value"],
        "mae_low_years": measures["mae_years"]["low"],
        "mae_high_years": measures["mae_years"]["high"],
        "rmse_years": measures["rmse_years"]["value"],
        "r": measures["r"]["value"],
        "r_low": measures["r"]["low"],
        "r_high": measures["r"]["high"],
        "r2": measures["r2"]["value"],
    }
