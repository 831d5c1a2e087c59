"""The report's static pictures: what a reader without JavaScript, or a printer, sees."""

from __future__ import annotations

import base64
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from figures.accuracy import accuracy_by_contrast, accuracy_by_contrast_caption
from figures.association_table import AssociationView
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
from figures.style import png_bytes, svg_bytes
from figures.tables import (
    COMBINATION,
    StudyTables,
    is_present,
    of_split,
    ordered_contrasts,
    person_table,
)

LARGEST_SVG = 90_000  # bytes; a larger picture is inlined as PNG
PIXELS_PER_INCH = 115  # of the page


def inlined_pictures(
    tables: StudyTables, view: AssociationView | None, split: str, individual_level: bool
) -> dict[str, dict[str, Any]]:
    """The static pictures: readable without JavaScript, one contrast where there are many."""
    found: dict[str, tuple[Figure, str]] = {}
    metrics = of_split(tables.metrics, split)
    if metrics is not None and is_present(metrics):
        caption = accuracy_by_contrast_caption(metrics, split, individual_level)
        found["accuracy"] = (accuracy_by_contrast(metrics, individual_level), caption)
    persons = _of_headline_contrast(person_table(tables, split))
    if len(persons):
        found["predicted"] = (
            predicted_against_age(persons, individual_level),
            predicted_against_age_caption(persons, split, individual_level),
        )
        found["delta"] = (
            delta_against_age(persons, individual_level),
            delta_against_age_caption(persons, split, individual_level),
        )
    if tables.history is not None and is_present(tables.history):
        history = _of_headline_contrast(tables.history)
        found["history"] = (training_history(history), training_history_caption(history))
    if view is not None:
        names = [contrast for contrast, _ in view.deltas]
        contrast = COMBINATION if COMBINATION in names else names[0]
        found["manhattan"] = (manhattan(view, contrast), manhattan_caption(view, contrast))
        found["qq"] = (quantile_quantile(view), QUANTILE_QUANTILE_CAPTION)
    return {name: _inlined(figure, caption) for name, (figure, caption) in found.items()}


def _of_headline_contrast(table: pd.DataFrame) -> pd.DataFrame:
    names = ordered_contrasts(table["contrast"])
    if not names:
        return table
    wanted = COMBINATION if COMBINATION in names else names[0]
    return table[table["contrast"].astype(str) == wanted]


def _inlined(figure: Figure, caption: str) -> dict[str, Any]:
    content, kind = svg_bytes(figure), "image/svg+xml"
    if len(content) > LARGEST_SVG:
        content, kind = png_bytes(figure, dots_per_inch=170), "image/png"
    width, height = figure.get_size_inches()
    return {
        "source": f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}",
        "alternative": caption.split(". ")[0] + ".",
        "caption": caption,
        "width": round(float(width) * PIXELS_PER_INCH),
        "height": round(float(height) * PIXELS_PER_INCH),
    }
