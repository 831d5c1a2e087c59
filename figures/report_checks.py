"""Cells whose predictions failed a check, as the report says it: nothing about one person."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from figures.privacy import MINIMUM_COUNT, text_for_export
from figures.tables import contrast_word, is_present, of_split, sex_word

LABELS = {
    "constant": "all predictions equal",
    "small_spread": "predictions hardly differ",
    "outside_training_ages": "ages far outside those of training",
    "no_correlation": "predicted age does not follow age",
}
WITHHELD_LABEL = "a check failed"
N_NAMED = 12  # cells; a sentence that names more is not read


@dataclass(frozen=True)
class FailedCheck:
    """One check that the predictions of one cell failed."""

    contrast: str
    sex: str
    label: str  # what is wrong, in a few words
    sentence: str  # the same with its numbers and what to do

    @property
    def cell_words(self) -> str:
        """The cell in words."""
        return f"{contrast_word(self.contrast)} of {sex_word(self.sex)}"


def failed_checks(
    cell_flags: pd.DataFrame | None, split: str, individual_level: bool
) -> list[FailedCheck]:
    """The failed checks of one split, in the order of the cells.

    Of fewer than ten subjects, or where all but fewer than ten are meant, only that a check failed is said.
    """
    shown = of_split(cell_flags, split)
    if shown is None or not is_present(shown):
        return []
    return [_failed_check(row, split, individual_level) for row in shown.to_dict("records")]


def _failed_check(row: dict, split: str, individual_level: bool) -> FailedCheck:
    sentence = str(row["reason"])
    label = LABELS.get(str(row["name"]), str(row["name"]))
    if not individual_level:
        sentence = text_for_export(sentence)
        n, n_all = int(row["n_subjects"]), int(row["of_n_subjects"])
        if n_all < MINIMUM_COUNT or 0 < n_all - n < MINIMUM_COUNT:
            label = WITHHELD_LABEL
            sentence = f"So few subjects are concerned that it is not said here; metrics_{split}.json says it."
    return FailedCheck(str(row["contrast"]), str(row["sex"]), label, sentence)


def labels_by_cell(checks: list[FailedCheck]) -> dict[tuple[str, str], list[str]]:
    """(contrast, sex) -> what is wrong there."""
    labels: dict[tuple[str, str], list[str]] = {}
    for check in checks:
        labels.setdefault((check.contrast, check.sex), []).append(check.label)
    return labels


def checks_sentence(checks: list[FailedCheck]) -> str:
    """One sentence for the top of the page that names the cells; empty where every check was passed."""
    cells = list(dict.fromkeys(check.cell_words for check in checks))
    if not cells:
        return ""
    more = f" and {len(cells) - N_NAMED} more" if len(cells) > N_NAMED else ""
    return (
        f"The predictions failed a check: {', '.join(cells[:N_NAMED])}{more}. "
        "The accuracy section says which, and what to look at."
    )
