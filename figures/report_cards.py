"""The report's first numbers."""

from __future__ import annotations

import pandas as pd

from figures.accuracy import may_be_shown
from figures.association_table import AssociationView
from figures.privacy import MINIMUM_COUNT, shown_count
from figures.report_tables import family_words, number, number_in
from figures.tables import (
    COMBINATION,
    StudyTables,
    is_present,
    of_split,
    ordered_contrasts,
    ordered_sexes,
    sex_word,
)


def headline_cards(
    tables: StudyTables, view: AssociationView | None, split: str, individual_level: bool
) -> list[dict[str, str]]:
    """The page's first numbers: contrasts, subjects, best and combined error beside the null model, associations."""
    cards = []
    contrasts = [str(name) for name in tables.description.get("contrasts") or []]
    if not contrasts and tables.metrics is not None and is_present(tables.metrics):
        contrasts = [c for c in ordered_contrasts(tables.metrics["contrast"]) if c != COMBINATION]
    if contrasts:
        names = ", ".join(contrasts[:3]) + (" …" if len(contrasts) > 3 else "")
        cards.append({"title": "Contrasts", "value": f"{len(contrasts):,}", "words": names})
    cards += _subject_card(tables, split, individual_level)
    metrics = of_split(tables.metrics, split)
    if metrics is not None and is_present(metrics):
        metrics = metrics[may_be_shown(metrics, individual_level)]
        is_combination = metrics["contrast"].astype(str) == COMBINATION
        is_mean = metrics["predictor"].astype(str) == "ensemble"
        singles = metrics[~is_combination & is_mean]
        cards += _error_card("Best contrast", singles, len(contrasts))
        cards += _error_card("Combined", _declared(metrics[is_combination], tables), 0)
    if view is not None:
        cards.append(_association_card(view))
    return cards


def _declared(combinations: pd.DataFrame, tables: StudyTables) -> pd.DataFrame:
    """The combination that the study declares, else ridge: never the one that happened to score best."""
    predictor = combinations["predictor"].astype(str)
    for name in (str(tables.description.get("combination")), "ridge"):
        if (predictor == name).any():
            return combinations[predictor == name]
    return combinations


def _subject_card(tables: StudyTables, split: str, individual_level: bool) -> list[dict[str, str]]:
    counts = tables.description.get("counts") or {}
    groups = [(sex, int(splits[split])) for sex, splits in counts.items() if splits.get(split)]
    if not groups and tables.metrics is not None and is_present(tables.metrics):
        metrics = of_split(tables.metrics, split)
        if metrics is not None and is_present(metrics):
            largest = (
                pd.to_numeric(metrics["n"], errors="coerce")
                .groupby(metrics["sex"].astype(str))
                .max()
            )
            groups = [
                (sex, int(largest[sex]))
                for sex in ordered_sexes(list(largest.index))
                if sex != "all"
            ]
    if not groups:
        return []
    total = sum(n for _, n in groups)
    small = any(n < MINIMUM_COUNT for _, n in groups) and not individual_level
    words = ", ".join(f"{shown_count(n, individual_level)} {sex_word(sex)}" for sex, n in groups)
    # A small group's number would follow from the total and the other group's.
    value = (
        f"{total // 10 * 10}+"
        if small and total >= MINIMUM_COUNT
        else shown_count(total, individual_level)
    )
    return [{"title": f"Subjects ({split})", "value": value, "words": words}]


def _error_card(title: str, rows: pd.DataFrame, n_choices: int) -> list[dict[str, str]]:
    """Lowest error over the rows, for all subjects where that was computed, else for each sex."""
    error = pd.to_numeric(rows["mae_years"], errors="coerce")
    rows = rows[error.notna()].assign(mae_years=error[error.notna()].astype(float))
    if len(rows) == 0:
        return []
    pooled = rows[rows["sex"].astype(str) == "all"]
    rows = pooled if len(pooled) else rows
    best = [
        rows[rows["sex"].astype(str) == sex].sort_values("mae_years", kind="stable").iloc[0]
        for sex in ordered_sexes(rows["sex"])
    ]
    value = " / ".join(number(row["mae_years"], 2) for row in best)
    who = "; ".join(
        f"{sex_word(row['sex'])}: "
        + (str(row["predictor"]) if row["contrast"] == COMBINATION else str(row["contrast"]))
        + f", null model {number(number_in(row, 'null_mae_years'), 2)}"
        for row in best
    )
    chosen = (
        f" Lowest of {n_choices} on these subjects, so a little optimistic."
        if n_choices > 1
        else ""
    )
    return [{"title": f"{title}, MAE (years)", "value": value, "words": who + "." + chosen}]


def _association_card(view: AssociationView) -> dict[str, str]:
    passing = view.passes_bonferroni()
    n_nidps = view.table.loc[passing, "column"].nunique()
    n_bh = int(view.passes_bh().sum())
    return {
        "title": "Associations (Bonferroni)",
        "value": f"{int(passing.sum()):,}",
        "words": f"pairs of a delta and a nIDP, of {int(view.table['nlog10p'].notna().sum()):,} tested; "
        f"{n_nidps:,} distinct nIDPs (columns of their table). Benjamini–Hochberg: {n_bh:,} pairs. "
        f"Family: {family_words(view)}.",
    }
