"""Predicted age and delta against age: the two pictures on which a reader judges a brain-age model."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from figures.persons import AGE_LIMITS, DELTA_LIMITS, draw_means, draw_persons, span
from figures.privacy import MINIMUM_COUNT, shown_count
from figures.style import (
    INK,
    MM,
    ONE_COLUMN_INCHES,
    SOFT_INK,
    TWO_COLUMNS_INCHES,
    new_figure,
    say_in_axes,
    soft_grid,
    styled,
)
from figures.tables import contrast_word, ordered_sexes, sex_word

PREDICTED_AGAINST_AGE_CAPTION = (
    "Predicted age against age, {what}, {split} split ({counts}). {marks} Dashed: prediction equals age. "
    "Orange: mean prediction by age with its 95 % interval, where at least {minimum} subjects stand behind "
    "it. Predictions are uncorrected."
)
DELTA_AGAINST_AGE_CAPTION = (
    "Brain-age delta (predicted age minus age) against age, {what}, {split} split ({counts}), {panels}. "
    "{marks} Orange: mean delta by age with its 95 % interval, where at least {minimum} subjects stand "
    "behind it; r: Pearson correlation of delta and age. All panels have the same limits."
)
FITTED_ON = "validation"  # the split on which age-bias corrections are fitted
_MARKS = {
    True: "Each dot is one subject.",
    False: f"Squares: number of subjects; squares with fewer than {MINIMUM_COUNT} are left out.",
}


def predicted_against_age(persons: pd.DataFrame, individual_level: bool) -> Figure:
    """Predicted age against age, one panel a sex, for the rows of one contrast of `person_table`."""
    sexes = ordered_sexes(persons["sex"])
    width = TWO_COLUMNS_INCHES if len(sexes) > 1 else ONE_COLUMN_INCHES
    limits = span(individual_level, AGE_LIMITS, persons["age_years"], persons["predicted_years"])
    with styled():
        figure = new_figure(width, 78 * MM)
        panels = figure.subplots(1, max(len(sexes), 1), squeeze=False)[0]
        for axes, sex in zip(panels, sexes):
            rows = persons[persons["sex"].astype(str) == sex]
            age, predicted = rows["age_years"].to_numpy(), rows["predicted_years"].to_numpy()
            soft_grid(axes)
            axes.plot(limits, limits, color=SOFT_INK, linewidth=0.8, linestyle="--")
            draw_persons(axes, age, predicted, individual_level)
            draw_means(axes, age, predicted)
            axes.set(xlim=limits, ylim=limits, xlabel="age (years)", aspect="equal")
            axes.set_title(_panel_title(sex, len(rows), individual_level))
            _note(axes, _accuracy_note(age, predicted, individual_level))
        panels[0].set_ylabel("predicted age (years)")
    return figure


def predicted_against_age_caption(persons: pd.DataFrame, split: str, individual_level: bool) -> str:
    """The caption of `predicted_against_age`."""
    return PREDICTED_AGAINST_AGE_CAPTION.format(**_facts(persons, split, individual_level))


def delta_against_age(persons: pd.DataFrame, individual_level: bool) -> Figure:
    """Delta against age before and after correction, one row a sex, all panels with the same limits."""
    sexes = ordered_sexes(persons["sex"])
    steps = [("delta_years", "before correction")]
    if persons["corrected_delta_years"].notna().any():
        steps.append(("corrected_delta_years", "after correction"))
    across = span(individual_level, AGE_LIMITS, persons["age_years"])
    upright = span(
        individual_level, DELTA_LIMITS, persons["delta_years"], persons["corrected_delta_years"]
    )
    width = TWO_COLUMNS_INCHES if len(steps) > 1 else ONE_COLUMN_INCHES
    with styled():
        figure = new_figure(width, (58 * max(len(sexes), 1) + 8) * MM)
        panels = figure.subplots(
            max(len(sexes), 1), len(steps), squeeze=False, sharex=True, sharey=True
        )
        for row, sex in enumerate(sexes):
            of_sex = persons[persons["sex"].astype(str) == sex]
            for column, (name, words) in enumerate(steps):
                axes = panels[row, column]
                _delta_panel(axes, of_sex, name, individual_level)
                title = _panel_title(sex, int(of_sex[name].notna().sum()), individual_level)
                axes.set_title(f"{words}: {title}")
                axes.set(xlim=across, ylim=upright)
            panels[row, 0].set_ylabel("delta (years)")
        for axes in panels[-1]:
            axes.set_xlabel("age (years)")
    return figure


def delta_against_age_caption(persons: pd.DataFrame, split: str, individual_level: bool) -> str:
    """The caption of `delta_against_age`; says so where there is no corrected delta."""
    facts = _facts(persons, split, individual_level)
    corrected = bool(persons["corrected_delta_years"].notna().any())
    fitted_on = (
        "these same subjects, which flatters it" if split == FITTED_ON else f"{FITTED_ON} subjects"
    )
    panels = (
        f"before and after the correction for age bias, whose coefficients were fitted on {fitted_on}"
        if corrected
        else "before correction only: no age-bias correction was fitted for this contrast"
    )
    return DELTA_AGAINST_AGE_CAPTION.format(**facts, panels=panels)


def _delta_panel(axes, rows: pd.DataFrame, name: str, individual_level: bool) -> None:
    age, delta = rows["age_years"].to_numpy(float), rows[name].to_numpy(float)
    known = np.isfinite(delta)
    age, delta = age[known], delta[known]
    soft_grid(axes)
    axes.axhline(0, color=SOFT_INK, linewidth=0.8, linestyle="--")
    if len(age) == 0:
        say_in_axes(axes, "no corrected delta")
        return
    draw_persons(axes, age, delta, individual_level)
    draw_means(axes, age, delta)
    if len(age) >= MINIMUM_COUNT or individual_level:
        _note(axes, f"r = {correlation(age, delta)}")


def correlation(first: np.ndarray, second: np.ndarray) -> str:
    """Pearson's r as text, a dash where it is not defined."""
    if len(first) < 3 or np.std(first) == 0 or np.std(second) == 0:
        return "–"
    return f"{np.corrcoef(first, second)[0, 1]:.2f}".replace("-", "−")


def _accuracy_note(age: np.ndarray, predicted: np.ndarray, individual_level: bool) -> str:
    if len(age) < MINIMUM_COUNT and not individual_level:
        return ""
    error = np.mean(np.abs(predicted - age)) if len(age) else np.nan
    return f"MAE {error:.2f} y\nr = {correlation(age, predicted)}"


def _note(axes, text: str) -> None:
    axes.text(
        0.03, 0.97, text, transform=axes.transAxes, ha="left", va="top", fontsize=6.5, color=INK
    )


def _panel_title(sex: str, n: int, individual_level: bool) -> str:
    return f"{sex_word(sex)}, n = {shown_count(n, individual_level)}"


def _facts(persons: pd.DataFrame, split: str, individual_level: bool) -> dict[str, object]:
    counts = persons["sex"].astype(str).value_counts()
    names = [contrast_word(name) for name in pd.unique(persons["contrast"].astype(str))]
    return {
        "what": ", ".join(names) or "no contrast",
        "split": split,
        "counts": ", ".join(
            f"{shown_count(counts[sex], individual_level)} {sex_word(sex)}"
            for sex in ordered_sexes(persons["sex"])
        ),
        "marks": _MARKS[individual_level],
        "minimum": MINIMUM_COUNT,
    }
