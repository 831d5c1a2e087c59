"""The curves of the interactive page: dots or counts of persons, means by age, training histories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from figures.deltas import correlation
from figures.persons import AGE_LIMITS, DELTA_LIMITS, span
from figures.privacy import MINIMUM_COUNT, binned_counts, means_by_age
from figures.tables import (
    COMBINATION,
    StudyTables,
    is_present,
    ordered_contrasts,
    ordered_sexes,
    person_table,
)

MOST_DOTS = (
    30_000  # persons x contrasts; beyond it the page shows counts even where dots are allowed
)
MOST_EPOCHS_SHOWN = 150  # of one network; longer histories are thinned evenly
_VIEWS = (
    ("predicted", "predicted_years"),
    ("delta", "delta_years"),
    ("corrected", "corrected_delta_years"),
)


def curves(tables: StudyTables, split: str, individual_level: bool) -> dict[str, Any]:
    """Plain content for the page's script; dots only where `individual_level` allows and they are few enough."""
    persons = person_table(tables, split)
    dots = individual_level and len(persons) <= MOST_DOTS
    cells = []
    for contrast in ordered_contrasts(persons["contrast"]):
        of_contrast = persons[persons["contrast"].astype(str) == contrast]
        ages, predicted = of_contrast["age_years"], of_contrast["predicted_years"]
        deltas = (of_contrast["delta_years"], of_contrast["corrected_delta_years"])
        limits = {
            "age": span(individual_level, AGE_LIMITS, ages),
            "predicted": span(individual_level, AGE_LIMITS, ages, predicted),
            "delta": span(individual_level, DELTA_LIMITS, *deltas),
        }
        for sex in ordered_sexes(of_contrast["sex"]):
            rows = of_contrast[of_contrast["sex"].astype(str) == sex]
            views = {key: _view(rows, name, dots, individual_level) for key, name in _VIEWS}
            cells.append({"contrast": contrast, "sex": sex, "limits": limits, "views": views})
    names = [cell["contrast"] for cell in cells]
    headline = COMBINATION if COMBINATION in names else (names[0] if names else None)
    return {"cells": cells, "headline": headline, "history": _histories(tables.history)}


def shows_dots(tables: StudyTables, split: str, individual_level: bool) -> bool:
    """Whether the interactive page draws one dot a person."""
    return individual_level and len(person_table(tables, split)) <= MOST_DOTS


def _view(
    rows: pd.DataFrame, name: str, dots: bool, individual_level: bool
) -> dict[str, Any] | None:
    known = rows[np.isfinite(rows[name])]
    if len(known) == 0:
        return None
    age, value = known["age_years"].to_numpy(), known[name].to_numpy()
    means = means_by_age(age, value).round(3)
    view: dict[str, Any] = {"means": means.to_numpy().tolist(), "empty": False, "note": ""}
    if len(age) >= MINIMUM_COUNT or individual_level:
        view["note"] = f"r = {correlation(age, value)}"
        if name == "predicted_years":
            view["note"] = (
                f"MAE {np.mean(np.abs(value - age)):.2f} y, r = {correlation(age, value)}"
            )
    if dots:
        # `person_table` is sorted by age: the order of the subject list is gone.
        view["points"] = np.column_stack([age, value]).round(2).ravel().tolist()
        return view
    bins = binned_counts(age, value)
    places = np.argwhere(bins.counts > 0)
    view["squares"] = [[int(i), int(j), int(bins.counts[i, j])] for i, j in places]
    view["empty"] = bins.is_empty
    if not bins.is_empty:  # the edges alone would tell the range of a handful of persons
        view["x"], view["y"] = bins.x_edges.round(3).tolist(), bins.y_edges.round(3).tolist()
    return view


def _histories(history: pd.DataFrame | None) -> list[dict[str, Any]]:
    """One entry a cell with its networks' curves."""
    if history is None or not is_present(history):
        return []
    cells = []
    for contrast in ordered_contrasts(history["contrast"]):
        of_contrast = history[history["contrast"].astype(str) == contrast]
        for sex in ordered_sexes(of_contrast["sex"]):
            rows = of_contrast[of_contrast["sex"].astype(str) == sex]
            networks = [
                _history(str(network), of_network.sort_values("epoch"))
                for network, of_network in rows.groupby("network", sort=True)
            ]
            cells.append({"contrast": contrast, "sex": sex, "networks": networks})
    return cells


def _history(network: str, rows: pd.DataFrame) -> dict[str, Any]:
    every = max(1, -(-len(rows) // MOST_EPOCHS_SHOWN))
    keep = np.arange(len(rows)) % every == 0
    keep[-1] = True
    rows = rows[keep]
    return {
        "network": network,
        "epoch": [int(epoch) for epoch in rows["epoch"]],
        "train": _plain(rows["train_loss"]),
        "validation": _plain(rows["validation_loss"]),
        "mae": _plain(rows["validation_mae_years"]),
    }


def _plain(values: pd.Series) -> list[float | None]:
    numbers = pd.to_numeric(values, errors="coerce").astype(float)
    return [float(f"{number:.5g}") if np.isfinite(number) else None for number in numbers]
