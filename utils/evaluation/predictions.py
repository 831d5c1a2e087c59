"""The predictions table of a cell: a row for every subject that was asked for."""

from __future__ import annotations

import numpy as np
import pandas as pd


def predictions_table(
    subjects: pd.DataFrame,
    predicted_years: np.ndarray,
    averaged: dict[int, bool],
    reasons: dict[int, str],
    conformed: dict[int, str] | None = None,
) -> pd.DataFrame:
    """Average the networks of a cell per subject and set deltas beside the ages.

    Parameters
    ----------
    subjects : DataFrame of S rows with subject_id, age_years (NaN where unknown), note
    predicted_years : (S, K) float, years; NaN where there is no prediction
    averaged : number of each of the K networks -> whether it enters the mean (a collapsed one does
        not)
    reasons : position of a subject -> why its volume could not be used
    conformed : position of a subject -> what was done to put its volume onto the contrast's grid

    Returns
    -------
    DataFrame: subject_id, age_years, predicted_years_1..K, predicted_years (mean),
    predicted_sd_years (between the averaged networks), delta_years, status (ok/failed), note.
    """
    ages = subjects["age_years"].to_numpy(dtype=float)
    chosen = predicted_years[:, np.array(list(averaged.values()), dtype=bool)]
    table = pd.DataFrame({"subject_id": subjects["subject_id"].to_numpy(), "age_years": ages})
    for k, number in enumerate(averaged):
        table[f"predicted_years_{number}"] = predicted_years[:, k]
    table["predicted_years"] = chosen.mean(axis=1)
    n_averaged = chosen.shape[1]
    table["predicted_sd_years"] = chosen.std(axis=1, ddof=1) if n_averaged > 1 else np.nan
    table["delta_years"] = table["predicted_years"] - ages
    failed = np.array([position in reasons for position in range(len(table))])
    table["status"] = np.where(failed, "failed", "ok")
    left_out = [str(number) for number, used in averaged.items() if not used]
    left_out_note = (
        f"network {', '.join(left_out)} collapsed and is not averaged" if left_out else ""
    )
    done = conformed or {}
    table["note"] = [
        "; ".join(
            part for part in (reasons.get(i, ""), done.get(i, ""), note, left_out_note) if part
        )
        for i, note in enumerate(subjects["note"].fillna("").tolist())
    ]
    return table
