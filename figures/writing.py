"""All figures of an experiment, as PNG and SVG with their captions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from figures.accuracy import accuracy_by_contrast, accuracy_by_contrast_caption
from figures.association_table import association_view
from figures.associations import (
    QUANTILE_QUANTILE_CAPTION,
    manhattan,
    manhattan_caption,
    quantile_quantile,
)
from figures.deltas import (
    delta_against_age,
    delta_against_age_caption,
    predicted_against_age,
    predicted_against_age_caption,
)
from figures.history import training_history, training_history_caption
from figures.style import save_figure
from figures.tables import (
    StudyTables,
    file_word,
    headline_split,
    is_present,
    of_split,
    ordered_contrasts,
    person_table,
)


def write_figures(tables: StudyTables, folder: str | Path, individual_level: bool) -> list[Path]:
    """Write every figure that the tables allow, with captions.txt; return the pictures' paths.

    Parameters
    ----------
    tables : StudyTables
        Any part may be missing; its figures are then missing too.
    folder : path
        Created when needed.
    individual_level : bool
        True draws one dot a person. False, for anything that leaves a protected platform, draws counts and
        leaves out every group of fewer than ten.
    """
    written: list[Path] = []
    for name, figure, caption in study_figures(tables, individual_level):
        written += save_figure(figure, folder, name, caption)
    return written


def study_figures(
    tables: StudyTables, individual_level: bool, contrasts: list[str] | None = None
) -> Iterator[tuple[str, Figure, str]]:
    """Name, figure and caption of each figure, drawn when asked for; `contrasts` limits the per-contrast ones."""
    split = headline_split(tables)
    metrics = of_split(tables.metrics, split)
    if metrics is not None and is_present(metrics):
        yield (
            "accuracy_by_contrast",
            accuracy_by_contrast(metrics, individual_level),
            accuracy_by_contrast_caption(metrics, split, individual_level),
        )
    persons = person_table(tables, split)
    for contrast in _wanted(ordered_contrasts(persons["contrast"]), contrasts):
        rows = persons[persons["contrast"].astype(str) == contrast]
        yield (
            f"predicted_against_age_{file_word(contrast)}",
            predicted_against_age(rows, individual_level),
            predicted_against_age_caption(rows, split, individual_level),
        )
        yield (
            f"delta_against_age_{file_word(contrast)}",
            delta_against_age(rows, individual_level),
            delta_against_age_caption(rows, split, individual_level),
        )
    yield from _history_figures(tables, contrasts)
    yield from _association_figures(tables, contrasts)


def _wanted(found: list[str], contrasts: list[str] | None) -> list[str]:
    return [name for name in found if contrasts is None or name in contrasts]


def _history_figures(
    tables: StudyTables, contrasts: list[str] | None
) -> Iterator[tuple[str, Figure, str]]:
    if tables.history is None or not is_present(tables.history):
        return
    for contrast in _wanted(ordered_contrasts(tables.history["contrast"]), contrasts):
        rows = tables.history[tables.history["contrast"].astype(str) == contrast]
        yield (
            f"training_history_{file_word(contrast)}",
            training_history(rows),
            training_history_caption(rows),
        )


def _association_figures(
    tables: StudyTables, contrasts: list[str] | None
) -> Iterator[tuple[str, Figure, str]]:
    view = association_view(tables)
    if view is None:
        return
    for contrast in _wanted(ordered_contrasts([name for name, _ in view.deltas]), contrasts):
        yield (
            f"manhattan_{file_word(contrast)}",
            manhattan(view, contrast),
            manhattan_caption(view, contrast),
        )
    yield "quantile_quantile", quantile_quantile(view), QUANTILE_QUANTILE_CAPTION
