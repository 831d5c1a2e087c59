"""How far predictions are from age, by contrast and network, beside what the mean age alone would reach."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.privacy import MINIMUM_COUNT
from figures.style import (
    ACCENT,
    CONTRAST_ACCENT,
    MM,
    PALETTE,
    SOFT_INK,
    TWO_COLUMNS_INCHES,
    new_figure,
    soft_grid,
    styled,
)
from figures.tables import COMBINATION, contrast_word, ordered_contrasts, ordered_sexes, sex_word

ACCURACY_BY_CONTRAST_CAPTION = (
    "Mean absolute error of predicted age by contrast, {split} split, uncorrected predictions. Open "
    "circles: single networks. Blue diamonds: mean of a contrast's networks; orange squares: combination "
    "over contrasts; both with 95 % intervals. Vertical ticks: the null model, which predicts the mean age "
    "of the training subjects for everybody.{hidden}"
)


def may_be_shown(metrics: pd.DataFrame, individual_level: bool) -> pd.Series:
    """Rows whose numbers rest on enough subjects to leave the platform."""
    if individual_level:
        return pd.Series(True, index=metrics.index)
    if "n" not in metrics.columns:
        return pd.Series(False, index=metrics.index)
    shown = pd.to_numeric(metrics["n"], errors="coerce").fillna(0) >= MINIMUM_COUNT
    # A hidden sex would follow from all subjects less the other sex.
    where = [metrics[name].astype(str) for name in ("contrast", "predictor")]
    whole = shown.groupby(where).transform("all")
    return shown & (whole | (metrics["sex"].astype(str) != "all"))


def accuracy_by_contrast(metrics: pd.DataFrame, individual_level: bool = False) -> Figure:
    """MAE of every network, contrast and combination of one split with the null model's; one panel a sex."""
    shown = metrics[may_be_shown(metrics, individual_level)]
    sexes = ordered_sexes(metrics["sex"])
    contrasts = ordered_contrasts(metrics["contrast"])
    height = (22 + 6 * (len(contrasts) + (COMBINATION in contrasts))) * MM
    with styled():
        figure = new_figure(TWO_COLUMNS_INCHES, max(height, 45 * MM))
        panels = figure.subplots(1, max(len(sexes), 1), squeeze=False, sharex=True, sharey=True)[0]
        for axes, sex in zip(panels, sexes):
            _accuracy_panel(axes, shown[shown["sex"].astype(str) == sex], contrasts)
            axes.set_title(sex_word(sex))
            axes.set_xlabel("mean absolute error (years)")
        panels[0].set_yticks(range(len(contrasts)), [contrast_word(name) for name in contrasts])
        panels[0].set_ylim(len(contrasts) - 0.5, -0.5)
        # A shared axis from zero: the distance to the null model is seen at its true size.
        largest = np.nanmax(
            [_numbers(shown, c).max() for c in ("mae_high_years", "mae_years", "null_mae_years")]
            + [0.1]
        )
        panels[0].set_xlim(0, 1.06 * float(largest))
    return figure


def accuracy_by_contrast_caption(metrics: pd.DataFrame, split: str, individual_level: bool) -> str:
    """The caption of `accuracy_by_contrast`."""
    hidden = "" if may_be_shown(metrics, individual_level).all() else _HIDDEN
    return ACCURACY_BY_CONTRAST_CAPTION.format(split=split, hidden=hidden)


_HIDDEN = f" Groups of fewer than {MINIMUM_COUNT} subjects are left out."


def _numbers(table: pd.DataFrame, column: str) -> pd.Series:
    if column not in table.columns or len(table) == 0:
        return pd.Series(np.nan, index=table.index if len(table) else [0], dtype=float)
    return pd.to_numeric(table[column], errors="coerce").astype(float)


def _accuracy_panel(axes: Axes, rows: pd.DataFrame, contrasts: list[str]) -> None:
    soft_grid(axes, "x")
    axes.tick_params(axis="y", length=0)
    for place, contrast in enumerate(contrasts):
        of_contrast = rows[rows["contrast"].astype(str) == contrast]
        null = _numbers(of_contrast, "null_mae_years").dropna()
        if len(null):
            axes.plot(
                [null.iloc[0]] * 2, [place - 0.38, place + 0.38], color=SOFT_INK, linewidth=1.4
            )
        _networks_and_mean(axes, of_contrast, place, contrast == COMBINATION)


def _networks_and_mean(axes: Axes, rows: pd.DataFrame, place: int, is_combination: bool) -> None:
    predictor = rows["predictor"].astype(str)
    single = rows[predictor.str.startswith("network")]
    mean = rows[~predictor.str.startswith("network")]
    if len(single):
        axes.plot(
            _numbers(single, "mae_years"),
            np.full(len(single), place - 0.24),
            linestyle="none",
            marker="o",
            markersize=3,
            markerfacecolor="white",
            markeredgecolor=PALETTE[5],
            markeredgewidth=0.8,
        )
    color, marker = (CONTRAST_ACCENT, "s") if is_combination else (ACCENT, "D")
    shift = 0.08 if len(single) else 0.0  # below the networks
    for step, (_, row) in enumerate(mean.iterrows()):
        value = float(row["mae_years"])
        if not np.isfinite(value):
            continue
        height = place + shift + 0.3 * (step - (len(mean) - 1) / 2)
        low, high = (
            float(row.get("mae_low_years", np.nan)),
            float(row.get("mae_high_years", np.nan)),
        )
        if np.isfinite(low) and np.isfinite(high):
            axes.plot([low, high], [height, height], color=color, linewidth=1.1)
        axes.plot([value], [height], marker=marker, markersize=3.6, color=color)
        if len(mean) > 1:
            axes.annotate(
                str(row["predictor"]),
                (value, height),
                xytext=(9, 0),
                textcoords="offset points",
                va="center",
                fontsize=5.5,
                color=SOFT_INK,
            )
