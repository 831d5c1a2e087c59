"""What of the associations stands in summary/: no small counts, none by subtraction, no text of a few persons."""

import json

import numpy as np
import pandas as pd
import pytest

from figures.privacy import text_for_export
from utils.association.analysis import associate
from utils.association.phenotypes import PhenotypeRules
from utils.association.rules import AssociationRules
from utils.experiment.export import (
    export_safe_record,
    hide_small_counts,
    write_summary_record,
    write_summary_table,
)

RULES = AssociationRules(
    phenotypes=PhenotypeRules(headline_n=150, missingness_indicators=True),
    compared_contrasts=("T1", "T2"),
    replication="half",
    recheck_hits=9,
    redundancy="funpack",
    family_column="family",
)
WORDS = [f"in the words of subject {k}" for k in range(45)]


@pytest.fixture(scope="module")
def result():
    """300 subjects, some texts and levels that few of them have, some of them relatives or without confounds."""
    rng = np.random.default_rng(3)
    n = 300
    ids, true = [f"sub-{700000 + k}" for k in range(n)], rng.normal(size=n)
    sex, age = np.where(np.arange(n) % 2, "female", "male"), rng.uniform(45, 80, n)
    deltas = pd.concat(
        pd.DataFrame(
            {"subject_id": ids, "sex": sex, "contrast": contrast, "age_years": age,
             "delta_years": true + rng.normal(size=n)}
        )
        for contrast in ("T1", "T2")
    )  # fmt: skip
    nidps = pd.DataFrame({"eid": ids, **{f"n{k}": 2 * true + rng.normal(size=n) for k in range(3)}})
    nidps["twin"] = nidps["n0"] * 2
    nidps["note"] = [f"note of {k}" if k < 5 else None for k in range(n)]
    nidps["words"] = [WORDS[k % len(WORDS)] for k in range(n)]
    colours = rng.choice(["blue", "green", "red"], n, p=[0.5, 0.3, 0.2]).astype(object)
    colours[10:14] = "secret"
    nidps["colour"] = colours
    confounds = pd.DataFrame({"eid": ids, "tiv": rng.normal(size=n)})
    confounds["family"] = [f"F{max(k, 4)}" for k in range(n)]
    confounds["half"] = np.where(rng.random(n) < 0.5, "first", "second")
    confounds.loc[20:24, "tiv"] = np.nan
    return associate(deltas, nidps.iloc[:297], None, confounds.iloc[3:], RULES)


def every_table(result):
    return {"associations": result.table, "nidps": result.fates, **result.tables}


def written(result, folder, individual_level=False):
    """All texts of what is written to summary/."""
    texts = {}
    for name, table in every_table(result).items():
        write_summary_table(table, folder / f"{name}.csv", individual_level)
        texts[name] = (folder / f"{name}.csv").read_text()
    write_summary_record(result.summary, folder / "record.json", individual_level)
    return {**texts, "record": (folder / "record.json").read_text()}


def test_no_id_and_no_text_of_a_few_persons_is_written(result, tmp_path):
    assert len(every_table(result)) >= 8
    for name, text in written(result, tmp_path).items():
        for word in ("sub-7", "in the words of", "note of", "secret"):
            assert word not in text, (name, word)
    shown = written(result, tmp_path, individual_level=True)  # the control
    assert "secret" in shown["nidps"] and "in the words of" in shown["associations"]


def test_no_small_count_of_persons_is_written(result):
    for name, table in every_table(result).items():
        hidden = hide_small_counts(table)
        for column in hidden:
            if column in ("n", "n_cases", "n_a", "n_b", "n_shared") or column.startswith(
                "n_without"
            ):
                counts = pd.to_numeric(hidden[column]).dropna()
                assert not counts.between(1, 9).any(), (name, column)


@pytest.mark.parametrize(
    "table, count", [("associations", "n_cases"), ("nidps", "n_smaller_class")]
)
def test_a_hidden_level_does_not_follow_from_the_others(result, table, count):
    hidden = hide_small_counts(every_table(result)[table])
    colours = hidden[hidden["nidp"].str.startswith("colour=").to_numpy(bool)]
    keys = [key for key in ("contrast", "sex") if key in colours]
    for _, levels in colours.groupby(keys, observed=True):
        assert "colour=level 4" in set(levels["nidp"])
        shown = levels[count].dropna()
        assert len(shown) == 2  # the rare level, and the smallest of the others
        assert levels["n"].max() - shown.sum() >= 10


@pytest.mark.parametrize(
    ("counts", "shown"),
    [
        ([50, 40, 7], [50, None, None]),  # 97 subjects: 7 would follow from 50 and 40
        ([50, 40, 5, 5], [50, 40, None, None]),  # ten share the two levels
        ([30, 60, 90], [30, 60, 90]),
        ([30, 24, 6], [30, None, None]),  # 90 subjects have level 0 and 30 do not: 30 - 24 = 6
    ],
)  # fmt: skip
def test_counts_of_levels(counts, shown):
    n = 120 if counts[-1] == 6 else sum(counts)
    names = [f"a=b{k}" for k in range(len(counts))]
    table = pd.DataFrame({"sex": "male", "nidp": names, "column": "a", "n": n, "n_cases": counts})
    hidden = hide_small_counts(table.astype({"nidp": "category"}))
    found = hidden["n_cases"].astype(object).where(hidden["n_cases"].notna(), None)
    assert found.tolist() == shown
    assert hidden["nidp"].tolist()[:2] == names[:2]


def test_the_record_hides_small_numbers_and_differences(result):
    record = export_safe_record(result.summary)
    matched = result.summary["subjects"]
    assert (matched["with_delta"], matched["with_nidps"], matched["analysed"]) == (300, 297, 293)
    shown = [n for n in record["subjects"].values() if isinstance(n, int) and n]
    assert not any(0 < abs(a - b) < 10 for a in shown for b in shown)
    assert record["subjects"]["with_delta_without_nidps"] == "<10"
    text = json.dumps(record)
    assert "fewer than 10 missing values filled" in text
    assert "relatives: fewer than 10 subjects left out" in text
    assert record["n_bonferroni"] == result.summary["n_bonferroni"]


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("2 of 395 subjects left out", "fewer than 10 subjects left out"),
        ("1 subject has no volume", "fewer than 10 subject has no volume"),
        ("3 missing values filled", "fewer than 10 missing values filled"),
        ("missing for 4 of 1,200 analysed subjects", "missing for fewer than 10 analysed subjects"),
        ("12 of 395 subjects; 0.5 volumes; 3 columns; 9 valuesets", None),
    ],
)
def test_sentences_with_small_counts(sentence, said):
    assert text_for_export(sentence) == (said or sentence)


def test_the_note_of_a_weight_counts_no_few_subjects():
    note = "7 validation subjects, ridge needs 10: not used"
    table = pd.DataFrame({"contrast": ["T1", "T2"], "n": [7, 90], "note": [note, ""]})
    hidden = hide_small_counts(table)
    assert hidden["note"].tolist() == [
        "fewer than 10 validation subjects, ridge needs 10: not used",
        "",
    ]
    assert hidden["n"].tolist() == [pd.NA, 90]
