"""The course of training: did the networks learn, agree, and stop in time."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from figures.style import (
    LINE_STYLES,
    MM,
    PALETTE,
    TWO_COLUMNS_INCHES,
    new_figure,
    soft_grid,
    styled,
)
from figures.tables import contrast_word, ordered_contrasts, ordered_sexes, sex_word

TRAINING_HISTORY_CAPTION = (
    "Training history, {what}: training loss (thin, pale) and validation loss (thick) in the upper row, mean "
    "absolute error on validation subjects in the lower row, one colour and line style a network. A star marks "
    "each network's lowest validation loss. Losses far above the others, as in a first epoch, may lie beyond the "
    "axis."
)


def training_history(history: pd.DataFrame) -> Figure:
    """Losses (above) and validation error (below) by epoch; one column a sex, for one contrast."""
    sexes = ordered_sexes(history["sex"])
    with styled():
        figure = new_figure(TWO_COLUMNS_INCHES, 92 * MM)
        panels = figure.subplots(2, max(len(sexes), 1), squeeze=False, sharex="col", sharey="row")
        for column, sex in enumerate(sexes):
            rows = history[history["sex"].astype(str) == sex]
            _draw_networks(panels[0, column], panels[1, column], rows)
            panels[0, column].set_title(sex_word(sex))
            panels[1, column].set_xlabel("epoch")
        panels[0, 0].set_ylabel("loss")
        panels[1, 0].set_ylabel("validation MAE (years)")
        panels[0, -1].legend(loc="upper right")
    return figure


def training_history_caption(history: pd.DataFrame) -> str:
    """The caption of `training_history`."""
    names = [contrast_word(name) for name in ordered_contrasts(history["contrast"])]
    return TRAINING_HISTORY_CAPTION.format(what=", ".join(names))


def _draw_networks(losses, errors, rows: pd.DataFrame) -> None:
    soft_grid(losses)
    soft_grid(errors)
    for step, (network, of_network) in enumerate(rows.groupby("network", sort=True)):
        of_network = of_network.sort_values("epoch")
        color = PALETTE[step % len(PALETTE)]
        line = LINE_STYLES[step % len(LINE_STYLES)]
        epoch, validation = of_network["epoch"], of_network["validation_loss"]
        losses.plot(epoch, of_network["train_loss"], color=color, alpha=0.5, linewidth=0.7)
        losses.plot(
            epoch,
            validation,
            color=color,
            linestyle=line,
            linewidth=1.4,
            label=f"network {network}",
        )
        errors.plot(
            epoch, of_network["validation_mae_years"], color=color, linestyle=line, linewidth=1.4
        )
        if validation.notna().any():
            best = of_network.loc[validation.idxmin()]
            for axes, name in ((losses, "validation_loss"), (errors, "validation_mae_years")):
                axes.plot([best["epoch"]], [best[name]], marker="*", markersize=6, color=color)
    spread = rows["validation_loss"].dropna()
    # A first epoch far above the rest would flatten every line that matters.
    if len(spread) > 10 and spread.max() > 20 * spread.median():
        losses.set_ylim(0, float(8 * spread.median()))
