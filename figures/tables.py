"""The tables that the figures and the report read, and the few questions they ask of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

COMBINATION = "ensemble"  # the contrast name under which the combination over contrasts is stored
SEX_WORDS = {"female": "women", "male": "men", "both": "both sexes", "all": "all subjects"}
SEX_ORDER = ("female", "male", "both", "all")


@dataclass(frozen=True)
class StudyTables:
    """Everything the figures and the report may show of one experiment; every part but the name may be missing.

    Parameters
    ----------
    experiment : str
        Name of the experiment.
    description : dict
        Settings excerpts, counts and facts for the methods paragraph; keys in `figures.methods`.
    metrics : DataFrame or None
        `summary/metrics.csv`, long.
    predictions : DataFrame or None
        The cells' predictions with columns contrast, sex and split added.
    cell_flags : DataFrame or None
        A row for each check that the predictions of a cell failed: contrast, sex, split, name, reason (a sentence
        about the group), n_subjects (whom it is about), of_n_subjects.
    deltas : DataFrame or None
        Long table of deltas with a column split; contrast "ensemble" is the combination.
    history : DataFrame or None
        contrast, sex, network, epoch, train_loss, validation_loss, validation_mae_years, learning_rate.
    associations : DataFrame or None
        One row per delta and nIDP.
    association_summary : dict or None
        `family` (a phrase that names the tests that were corrected together), `alpha`; other keys are shown
        in the provenance.
    dictionary : DataFrame or None
        nidp, name, category, description.
    bias_correction : dict or None
        Content of `bias_correction.json`.
    provenance : dict or None
        Versions, settings, hashes: shown folded, never a subject id.
    flags : tuple of str
        Sentences about anything the reader should not overlook.
    """

    experiment: str
    description: dict[str, Any] = field(default_factory=dict)
    metrics: pd.DataFrame | None = None
    predictions: pd.DataFrame | None = None
    cell_flags: pd.DataFrame | None = None
    deltas: pd.DataFrame | None = None
    history: pd.DataFrame | None = None
    associations: pd.DataFrame | None = None
    association_summary: dict[str, Any] | None = None
    dictionary: pd.DataFrame | None = None
    bias_correction: dict[str, Any] | None = None
    provenance: dict[str, Any] | None = None
    flags: tuple[str, ...] = ()


def is_present(table: pd.DataFrame | None) -> bool:
    """Whether a table exists and has a row."""
    return table is not None and len(table) > 0


def headline_split(tables: StudyTables) -> str:
    """The split whose numbers are reported: the description's, else test, else the last one there is."""
    wanted = tables.description.get("split")
    found: list[str] = []
    for table in (tables.metrics, tables.deltas, tables.predictions):
        if table is not None and "split" in table.columns:
            found += [str(split) for split in table["split"].dropna().unique()]
    if wanted and (wanted in found or not found):
        return str(wanted)
    for split in ("test", "validation", "train"):
        if split in found:
            return split
    return found[0] if found else "test"


def of_split(table: pd.DataFrame | None, split: str) -> pd.DataFrame | None:
    """The rows of one split; a table without that column is taken whole."""
    if table is None or "split" not in table.columns:
        return table
    return table[table["split"].astype(str) == split]


def ordered_contrasts(values: pd.Series | list[str]) -> list[str]:
    """Contrast names in the order of their first appearance, the combination last."""
    names = _distinct(values)
    return [name for name in names if name != COMBINATION] + [COMBINATION] * (COMBINATION in names)


def ordered_sexes(values: pd.Series | list[str]) -> list[str]:
    """Sexes in the fixed order women, men, both, all; unknown words last."""
    names = sorted(_distinct(values))
    known = [sex for sex in SEX_ORDER if sex in names]
    return known + [name for name in names if name not in known]


def _distinct(values: pd.Series | list[str]) -> list[str]:
    series = values if isinstance(values, pd.Series) else pd.Series(list(values), dtype=object)
    return [str(value) for value in series.dropna().unique()]


def sex_word(sex: str) -> str:
    """The word for a sex that a reader sees."""
    return SEX_WORDS.get(str(sex), str(sex))


def contrast_word(contrast: str) -> str:
    """The word for a contrast that a reader sees: the combination says what it is."""
    return "combination" if str(contrast) == COMBINATION else str(contrast)


def person_table(tables: StudyTables, split: str) -> pd.DataFrame:
    """Age, prediction and deltas per person, contrast and sex of one split, **without ids**, sorted by age.

    Deltas are the source where they exist (they hold the combination too); cells without deltas come from
    their predictions. Persons without a prediction are left out.
    """
    columns = [
        "contrast",
        "sex",
        "age_years",
        "predicted_years",
        "delta_years",
        "corrected_delta_years",
    ]
    parts: list[pd.DataFrame] = []
    seen: set[tuple[str, str]] = set()
    for source in (of_split(tables.deltas, split), of_split(tables.predictions, split)):
        if source is None or len(source) == 0:
            continue
        part = source.reindex(columns=columns)
        for name in columns[2:]:
            part[name] = pd.to_numeric(part[name], errors="coerce").astype("float64")
        cells = list(zip(part["contrast"].astype(str), part["sex"].astype(str)))
        part = part[[cell not in seen for cell in cells]]
        seen.update(cells)
        parts.append(part)
    if not parts:
        return pd.DataFrame(columns=columns)
    table = pd.concat(parts, ignore_index=True)
    known_delta = table["predicted_years"] - table["age_years"]
    table["delta_years"] = table["delta_years"].fillna(known_delta)
    table["predicted_years"] = table["predicted_years"].fillna(
        table["age_years"] + table["delta_years"]
    )
    table = table[np.isfinite(table["age_years"]) & np.isfinite(table["predicted_years"])]
    # Sorted by every value: the order says nothing about the subject list.
    return table.sort_values(
        ["contrast", "sex", "age_years", "predicted_years"], ignore_index=True, kind="stable"
    )


def file_word(text: str) -> str:
    """A contrast's name as part of a file name."""
    return re.sub(r"[^0-9A-Za-z_-]+", "_", str(text)).strip("_") or "contrast"
