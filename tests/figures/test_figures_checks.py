"""Failed checks in the report: said at the cell and in words, and nothing about a few."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import pandas as pd
import pytest

from figures.report import report_page
from figures.report_checks import checks_sentence, failed_checks

CONSTANT = "All 400 subject(s) are predicted the same age, 3.017 years: <look>."
OUTSIDE = "{} subject(s) of {} are predicted more than 10 years outside the ages of training."


def flags_of(*rows: tuple[str, str, int, int], split: str = "test") -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["name", "reason", "n_subjects", "of_n_subjects"])
    return table.assign(contrast="dMRI_FA", sex="male", split=split)


def text_of(page: str) -> str:
    body = page.partition("<body")[2].partition("<script")[0]
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", body).split()))


@pytest.mark.parametrize("individual_level", [True, False])
def test_a_flagged_cell_is_told_at_the_top_in_the_section_and_in_the_table(
    study, no_pictures, individual_level: bool
):
    flagged = replace(study, cell_flags=flags_of(("constant", CONSTANT, 400, 400)))
    page = report_page(flagged, individual_level)
    words = text_of(page)
    assert "The predictions failed a check: dMRI_FA of men. The accuracy section says" in words
    assert f"dMRI_FA of men: all predictions equal. {CONSTANT}" in words
    badges = re.findall(r"<tr class=\"(\w+)\">(.*?)</tr>", page, re.S)
    marked = [(kind, row) for kind, row in badges if 'class="badge"' in row]
    assert len(marked) == 1 and marked[0][0] == "mean"
    assert "dMRI_FA" in marked[0][1] and "<td>men</td>" in marked[0][1]
    assert "mean of networks <span" in marked[0][1]


def test_without_flags_the_page_has_no_such_part(study, no_pictures):
    for cell_flags in (None, flags_of(("constant", CONSTANT, 400, 400), split="validation")):
        page = report_page(replace(study, cell_flags=cell_flags), False)
        assert "failed a check" not in page and 'class="badge"' not in page


def test_a_few_subjects_are_not_counted_in_a_page_that_may_leave():
    few = flags_of(("outside_training_ages", OUTSIDE.format(3, 400), 3, 400))
    (check,) = failed_checks(few, "test", individual_level=False)
    assert check.sentence.startswith("fewer than 10 subject(s) of 400 are predicted")
    (check,) = failed_checks(few, "test", individual_level=True)
    assert check.sentence.startswith("3 subject(s) of 400")


@pytest.mark.parametrize("n, n_all", [(2, 7), (7, 7), (396, 400)])
def test_small_groups_and_small_rests_are_told_without_what(n: int, n_all: int):
    few = flags_of(("outside_training_ages", OUTSIDE.format(n, n_all), n, n_all))
    (check,) = failed_checks(few, "test", individual_level=False)
    assert check.label == "a check failed" and "metrics_test.json says it" in check.sentence
    assert "outside" not in check.sentence and str(n) not in check.sentence


def test_a_sentence_names_a_dozen_cells_at_most():
    one = flags_of(("constant", CONSTANT, 400, 400))
    many = pd.concat([one.assign(contrast=f"c{i:02d}") for i in range(20)], ignore_index=True)
    sentence = checks_sentence(failed_checks(many, "test", False))
    assert "c11 of men and 8 more. " in sentence and "c12" not in sentence
    assert checks_sentence([]) == ""
