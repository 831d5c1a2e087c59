"""The report's static tables and their words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from figures.accuracy import may_be_shown
from figures.association_table import HIDDEN_CASES, AssociationView
from figures.privacy import SUPPRESSED, shown_count
from figures.tables import (
    contrast_word,
    is_present,
    ordered_contrasts,
    ordered_sexes,
    sex_word,
)

N_TOP = 25
ACCURACY_HEADS = (
    "Contrast",
    "Sex",
    "Predictor",
    "n",
    "Ages (years)",
    "Null MAE",
    "MAE [95 % CI] (years)",
    "MAE / null",
    "r [95 % CI]",
    "R²",
    "RMSE (years)",
    "r(δ, age) raw",
    "corrected",
)
ASSOCIATION_HEADS = (
    "nIDP",
    "Category",
    "Contrast",
    "Sex",
    "n",
    "Cases",
    "r [95 % CI]",
    "−log₁₀ p",
    "p Bonferroni",
    "q (BH)",
)


def number(value: Any, digits: int) -> str:
    """A number as text with a true minus sign, a dash for a missing one."""
    if value is None or not np.isfinite(float(value)):
        return "–"
    return f"{float(value):.{digits}f}".replace("-", "−")


def number_in(row: pd.Series, name: str) -> float:
    """A row's value as float, NaN where missing."""
    value = pd.to_numeric(row.get(name, np.nan), errors="coerce")
    return float(value) if pd.notna(value) else float("nan")


def _with_interval(row: pd.Series, name: str, low: str, high: str, digits: int) -> str:
    ends = number_in(row, low), number_in(row, high)
    text = number(number_in(row, name), digits)
    if np.isfinite(ends).all():
        text += f" [{number(ends[0], digits)}, {number(ends[1], digits)}]"
    return text


def accuracy_rows(
    metrics: pd.DataFrame,
    individual_level: bool,
    failed_checks: dict[tuple[str, str], list[str]] | None = None,
) -> list[dict[str, Any]]:
    """Rows of the accuracy table; groups of fewer than ten keep their name and lose their numbers.

    `failed_checks` are words for what is wrong with a cell, by contrast and sex; they stand at its mean of networks.
    """
    rows = []
    shown = may_be_shown(metrics, individual_level)
    order = {name: place for place, name in enumerate(ordered_contrasts(metrics["contrast"]))}
    sexes = {name: place for place, name in enumerate(ordered_sexes(metrics["sex"]))}
    keys = metrics.assign(
        _contrast=metrics["contrast"].astype(str).map(order),
        _sex=metrics["sex"].astype(str).map(sexes),
    )
    for place, row in keys.sort_values(["_contrast", "_sex"], kind="stable").iterrows():
        predictor = str(row["predictor"])
        single = predictor.startswith("network")
        words = predictor.replace("_", " ")
        if predictor == "ensemble":
            words = "mean of networks"
        cell = str(row["contrast"]), str(row["sex"])
        rows.append(
            {
                "kind": "network" if single else "mean",
                "badges": (failed_checks or {}).get(cell, []) if predictor == "ensemble" else [],
                "contrast": contrast_word(row["contrast"]),
                "cells": [
                    {"text": sex_word(row["sex"]), "value": None},
                    {"text": words, "value": None},
                    *(_accuracy_cells(row) if shown.loc[place] else _hidden_cells()),
                ],
            }
        )
    return rows


def _hidden_cells() -> list[dict[str, Any]]:
    """A small group: its number and statistics stay inside."""
    return [{"text": SUPPRESSED, "value": 0}] + [{"text": "–", "value": ""}] * (
        len(ACCURACY_HEADS) - 4
    )


def _accuracy_cells(row: pd.Series) -> list[dict[str, Any]]:
    mae, null = number_in(row, "mae_years"), number_in(row, "null_mae_years")
    low, high = number_in(row, "age_min_years"), number_in(row, "age_max_years")
    # Whole years: the exact age of the youngest or the oldest is one person's.
    ages = f"{np.floor(low):.0f}–{np.ceil(high):.0f}" if np.isfinite([low, high]).all() else "–"
    ratio = mae / null if null else float("nan")
    values: list[tuple[str, float]] = [
        (shown_count(number_in(row, "n"), individual_level=True), number_in(row, "n")),
        (ages, np.floor(low)),
        (number(null, 2), null),
        (_with_interval(row, "mae_years", "mae_low_years", "mae_high_years", 2), mae),
        (number(ratio, 2), ratio),
        (_with_interval(row, "r", "r_low", "r_high", 2), number_in(row, "r")),
        (number(number_in(row, "r2"), 2), number_in(row, "r2")),
        (number(number_in(row, "rmse_years"), 2), number_in(row, "rmse_years")),
        *(
            (_with_interval(row, name, f"{name}_low", f"{name}_high", 2), number_in(row, name))
            for name in ("r_delta_age", "r_corrected_delta_age")
        ),
    ]
    return [
        {"text": text, "value": round(value, 6) if np.isfinite(value) else ""}
        for text, value in values
    ]


def family_words(view: AssociationView) -> str:
    """The family of tests, or their number where there are several."""
    if len(view.families) == 1:
        return f"{view.families[0].name} ({view.families[0].n_tests:,} tests)"
    return f"{len(view.families)} families, corrected one by one ({view.families[0].name}, …)"


def association_part(view: AssociationView) -> dict[str, Any]:
    """Words, counts by delta and the smallest p of the static page."""
    table = view.table
    untested = (
        table.loc[table["nlog10p"].isna(), "reason"].replace("", "no reason given").value_counts()
    )
    why = "; ".join(f"{reason} ({n:,})" for reason, n in untested.head(6).items())
    words = (
        f"{view.n_nidps:,} nIDPs and {len(view.deltas)} deltas make {len(table):,} pairs; "
        f"{int(table['nlog10p'].notna().sum()):,} were tested."
        + (f" Not tested or not shown: {why}." if why else "")
        + " “Associated” says nothing about cause."
    )
    bonferroni, bh = view.passes_bonferroni(), view.passes_bh()
    counts = []
    for place, (contrast, sex) in enumerate(view.deltas):
        mine = table["delta_place"] == place
        counts.append(
            (
                contrast_word(contrast),
                sex_word(sex),
                f"{int((mine & table['nlog10p'].notna()).sum()):,}",
                f"{int((mine & bonferroni).sum()):,}",
                f"{int((mine & bh).sum()):,}",
            )
        )
    top = table[table["nlog10p"].notna()].sort_values("nlog10p", ascending=False, kind="stable")
    return {
        "words": words,
        "alpha": f"{view.alpha:g}",
        "family": family_words(view),
        "counts": counts if len(counts) <= 24 else [],
        "heads": ASSOCIATION_HEADS,
        "top": [_association_row(row, view) for _, row in top.head(N_TOP).iterrows()],
    }


def _association_row(row: pd.Series, view: AssociationView) -> tuple[str, ...]:
    nidp = view.nidps.iloc[int(row["nidp_place"])]
    arrow = "▲" if row["ci_lo"] > 0 else "▼" if row["ci_hi"] < 0 else "○"
    cases = SUPPRESSED if row["n_cases"] == HIDDEN_CASES else shown_count(row["n_cases"])
    return (
        nidp["name"],
        nidp["category"],
        contrast_word(row["contrast"]),
        sex_word(row["sex"]),
        shown_count(row["n"]),
        cases,
        f"{arrow} {_with_interval(row, 'r', 'ci_lo', 'ci_hi', 3)}",
        number(row["nlog10p"], 2),
        probability(row["nlog10p_bonf"]),
        probability(row["nlog10q_bh"]),
    )


def probability(nlog10p: float) -> str:
    """A p value from its −log10, without underflow."""
    if not np.isfinite(nlog10p):
        return "–"
    if nlog10p <= 3:
        return f"{10**-nlog10p:.2g}"
    power = int(np.ceil(nlog10p))
    return f"{10 ** (power - nlog10p):.1f}e−{power}"


def history_rows(history: pd.DataFrame | None) -> list[tuple[str, ...]]:
    """Best epoch of each network."""
    if history is None or not is_present(history):
        return []
    rows: list[tuple[str, ...]] = []
    for (contrast, sex, network), of_network in history.groupby(
        ["contrast", "sex", "network"], sort=False
    ):
        loss = pd.to_numeric(of_network["validation_loss"], errors="coerce")
        best = of_network.loc[loss.idxmin()] if loss.notna().any() else of_network.iloc[-1]
        rows.append(
            (
                contrast_word(contrast),
                sex_word(sex),
                str(network),
                f"{int(of_network['epoch'].max())}",
                f"{int(best['epoch'])}" if loss.notna().any() else "–",
                number(best["train_loss"], 3),
                number(best["validation_loss"], 3),
                number(best["validation_mae_years"], 2),
            )
        )
    return rows
