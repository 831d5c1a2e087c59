"""Dots for persons where that was asked for, otherwise counts: what two of the figures share."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from figures.privacy import MINIMUM_COUNT, binned_counts, means_by_age
from figures.style import ACCENT, CONTRAST_ACCENT, DENSITY, say_in_axes

RASTER_ABOVE = 3000  # points; beyond it an SVG holds a picture of them instead of each


def draw_persons(axes: Axes, x: np.ndarray, y: np.ndarray, individual_level: bool) -> None:
    """Draw (x, y) of persons: dots, or squares shaded by their count with squares under ten left out."""
    if individual_level:
        size = float(np.clip(1500 / max(len(x), 1), 1.0, 9.0))
        axes.scatter(
            x, y, s=size, color=ACCENT, alpha=0.45, linewidths=0, rasterized=len(x) > RASTER_ABOVE
        )
        return
    bins = binned_counts(x, y)
    if bins.is_empty:
        say_in_axes(axes, f"too few subjects:\nevery square holds\nfewer than {MINIMUM_COUNT}")
        return
    shown = np.ma.masked_equal(bins.counts.T, 0)
    mesh = axes.pcolormesh(
        bins.x_edges, bins.y_edges, shown, cmap=DENSITY, vmin=0, edgecolors="face", linewidth=0.2
    )
    figure = axes.get_figure()
    if figure is not None:
        bar = figure.colorbar(mesh, ax=axes, shrink=0.7, aspect=18, pad=0.02)
        bar.set_label("subjects", size=6)
        bar.ax.tick_params(labelsize=5.5, width=0.4, length=2)
        bar.outline.set_linewidth(0.4)


def draw_means(axes: Axes, age_years: np.ndarray, values: np.ndarray) -> None:
    """The mean by age with its 95 % interval, where ten persons or more stand behind it."""
    means = means_by_age(age_years, values)
    if len(means) < 2:
        return
    middle = (means["age_from"] + means["age_to"]) / 2
    half = 1.96 * means["sd"] / np.sqrt(means["n"])
    axes.fill_between(
        middle,
        means["mean"] - half,
        means["mean"] + half,
        color=CONTRAST_ACCENT,
        alpha=0.25,
        linewidth=0,
    )
    axes.plot(middle, means["mean"], color=CONTRAST_ACCENT, linewidth=1.3)


AGE_LIMITS = (40.0, 90.0)  # years; of a group too small to show even its range
DELTA_LIMITS = (-20.0, 20.0)


def span(
    individual_level: bool, too_few: tuple[float, float], *groups: np.ndarray
) -> tuple[float, float]:
    """Limits that hold every finite value, with a margin; shared by the panels of a figure.

    Whole years where persons may be shown, else steps of five: a limit is not to tell the value of the
    youngest or the strangest person. Fewer than ten values give `too_few`.
    """
    values = np.concatenate([np.asarray(group, float).ravel() for group in groups])
    values = values[np.isfinite(values)]
    if len(values) == 0 or (len(values) < MINIMUM_COUNT and not individual_level):
        return too_few
    low, high = float(values.min()), float(values.max())
    margin = max(0.04 * (high - low), 1.0)
    step = 1.0 if individual_level else 5.0
    return (
        float(np.floor((low - margin) / step) * step),
        float(np.ceil((high + margin) / step) * step),
    )
