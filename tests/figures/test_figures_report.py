"""The page: one file, same bytes, nothing unescaped, every part may be missing."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from dataclasses import replace

import numpy as np
import pytest

from figures.association_table import association_view
from figures.methods import CITATIONS, methods_paragraph
from figures.packing import pack_associations, unpack_associations
from figures.report import report_page, write_report
from figures.report_tables import probability
from figures.tables import StudyTables
from tests.figures.page_reader import Reader


@pytest.fixture(scope="module")
def page(study):
    return report_page(study, individual_level=True)


def test_the_same_study_gives_the_same_bytes(study, page, tmp_path):
    first = write_report(study, tmp_path / "a.html", True).read_bytes()
    assert first == page.encode()
    assert len(first) < 1_500_000


def test_the_page_asks_nothing_of_the_network(page):
    reader = Reader(page)
    for tag, attributes in reader.tags:
        for name in ("src", "href", "action"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith(("#", "data:")), (tag, value)
    policy = next(a["content"] for t, a in reader.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    for tag in ("style", "script"):
        content = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        assert len(content) == 1
        fingerprint = base64.b64encode(hashlib.sha256(content[0].encode()).digest()).decode()
        assert f"'sha256-{fingerprint}'" in policy
    assert not any("style" in attributes for _, attributes in reader.tags)


def test_names_cannot_become_markup(study, page, no_pictures):
    assert "<b>bold</b>" not in page and "alert(1)</script>" not in page
    assert html.escape("diet & <lifestyle>") in page
    hostile = replace(
        study,
        experiment="</title><script>x</script>",
        flags=("<img src=x onerror=y>",),
        provenance={"<i>": "</pre><script>"},
        associations=study.associations.assign(category="</script>"),
        dictionary=None,
    )
    tags = [tag for tag, _ in Reader(report_page(hostile, False)).tags]
    assert tags.count("script") == 3 and "i" not in tags


def test_packed_associations_decode_to_the_table(study):
    view = association_view(study)
    header, table = unpack_associations(pack_associations(view))
    assert header["alpha"] == 0.05 and len(table) == len(study.associations)
    both = study.associations.merge(table, on=["contrast", "sex", "nidp"], suffixes=("", "_page"))
    shown = both["n"] >= 10
    assert shown.sum() == len(both) - 8
    for name, tolerance in (
        ("r", 2e-5),
        ("nlog10p", 0.0051),
        ("ci_lo", 5e-5),
        ("ci_hi", 5e-5),
        ("n", 0),
    ):
        worst = (both[name] - both[f"{name}_page"])[shown].abs().max()
        assert worst <= tolerance, name
    untested = both[both["reason"] != ""]
    assert (untested["reason"] == untested["reason_page"]).all()


def test_rounding_changes_no_count(study):
    view = association_view(study)
    _, table = unpack_associations(pack_associations(view))
    line = -np.log10(0.05)
    assert int((table["nlog10q"] >= line).sum()) == int(view.passes_bh().sum()) > 0
    bonferroni = line + np.log10(view.families[0].n_tests)
    assert int((table["nlog10p"] >= bonferroni).sum()) == int(view.passes_bonferroni().sum()) > 0


def test_giant_p_keeps_its_value(study):
    table = study.associations.copy()
    table.loc[20, "nlog10p"] = 1234.56
    _, unpacked = unpack_associations(
        pack_associations(association_view(replace(study, associations=table)))
    )
    assert unpacked["nlog10p"].max() == pytest.approx(1234.56)


def test_thresholds_follow_from_the_family(study):
    view = association_view(study)
    family = view.families[0]
    assert family.n_tests == int(study.associations["nlog10p"].notna().sum())
    assert family.bonferroni_nlog10p == pytest.approx(np.log10(family.n_tests / 0.05))
    p = view.table["nlog10p"]
    assert (p >= family.bh_nlog10p).sum() == view.passes_bh().sum()


def test_a_family_a_contrast_is_told_apart(study, no_pictures):
    table = study.associations.assign(family_id=study.associations["contrast"])
    view = association_view(replace(study, associations=table, association_summary=None))
    assert [family.name for family in view.families] == list(dict.fromkeys(table["contrast"]))
    assert view.thresholds("T1_nonlinear", "male").name == "T1_nonlinear"
    assert "4 families" in report_page(replace(study, associations=table), False)


@pytest.mark.parametrize(
    "part, words",
    [
        ("metrics", "no table of accuracy"),
        ("history", "No training history"),
        ("associations", "no associations were computed"),
        ("provenance", "Provenance"),
        ("dictionary", "Associations of delta"),
        ("association_summary", "Associations of delta"),
        ("bias_correction", "Methods"),
        ("predictions", "Methods"),
    ],
)
def test_any_part_may_be_missing(study, no_pictures, part, words):
    assert words in report_page(replace(study, **{part: None}), individual_level=False)


def test_an_empty_study_has_a_page():
    page = report_page(StudyTables("nothing yet"), individual_level=False)
    assert "There are no predictions to show" in page and "nothing yet" in page


def test_a_refused_correction_is_said(study, no_pictures):
    refused = replace(
        study,
        deltas=study.deltas.assign(corrected_delta_years=np.nan),
        bias_correction={"refused": "only 40 validation subjects"},
    )
    page = report_page(refused, individual_level=False)
    assert "There are no corrected deltas" in page and "only 40 validation subjects" in page


def test_failures_and_missing_cells_are_flagged(study, no_pictures):
    predictions = study.predictions.copy()
    predictions.loc[predictions.index[:3], "status"] = "failed"
    metrics = study.metrics[
        ~((study.metrics["contrast"] == "dMRI_FA") & (study.metrics["sex"] == "male"))
    ]
    page = report_page(replace(study, predictions=predictions, metrics=metrics), False)
    assert "failed for fewer than ten volumes" in page
    assert "Cells without results: dMRI_FA of men" in page


def test_the_page_is_labelled(page):
    reader = Reader(page)
    tags = [tag for tag, _ in reader.tags]
    assert (
        tags.count("h1") == 1
        and tags.count("main") == 1
        and ("html", {"lang": "en"}) in reader.tags
    )
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in reader.tags:
        if tag == "canvas":
            assert attributes.get("aria-label") and attributes.get("role") == "img"
        if tag == "img":
            assert attributes.get("alt")
    assert tags.count("caption") == tags.count("table")
    assert "color-scheme" in page and "@media print" in page


def test_raw_stands_before_corrected_and_null_beside(page):
    heads = re.search(r"<thead><tr>(.*?)</tr>", page, re.S).group(1)
    words = [html.unescape(word) for word in re.findall(r">([^<]+)</th>", heads)]
    assert words.index("r(δ, age) raw") + 1 == words.index("corrected")
    assert {"n", "Ages (years)", "Null MAE", "MAE / null"} <= set(words)
    assert "null model 9.21" in page


def test_methods_say_only_what_is_known(study):
    full = methods_paragraph({**study.description, "family": "all tests", "n_tests": 1912})
    for words in (
        "3 identical",
        "1,313,345 parameters",
        "one declared family",
        "1,912 tests",
        *CITATIONS,
    ):
        assert words in full
    bare = methods_paragraph({})
    assert "None" not in bare and "nan" not in bare and "  " not in bare
    one = methods_paragraph(
        {"n_networks": 1, "network": "SFCN", "contrasts": ["T1"], "n_nidps": 1, "n_confounds": 1}
    )
    assert "One 3D convolutional network of type SFCN" in one and "one MRI contrast (T1)" in one
    assert "one non-imaging phenotype by partial correlation given one confound," in one


def test_methods_say_by_which_rules_the_associations_were_made():
    facts = {"predictors_given": True, "deltas_given": True, "n_nidps": 7, "statistic": "spearman",
             "degrees_of_freedom": "published", "n_permutations": 2000}  # fmt: skip
    text = methods_paragraph(facts)
    assert "Predictors were taken from a table" in text and "Each predictor was associated" in text
    assert "partial correlation of ranks (Spearman)" in text
    assert "n - 2 degrees of freedom" in text and "counted for each pair" not in text
    assert "Bonferroni and max-T over 2,000 joint permutations (family-wise error)" in text
    assert "max-T" not in methods_paragraph({"n_nidps": 7, "n_permutations": 0})


def test_methods_of_pooled_sexes_a_plain_mean_and_several_families():
    facts = {"contrasts": ["T1", "T2"], "counts": {"both": {"train": 90}}, "n_networks": 3, "combination": "mean",
             "correction": "subtract", "n_nidps": 5, "family": "each contrast by itself", "n_families": 3,
             "n_tests": 15}  # fmt: skip
    text = methods_paragraph(facts)
    assert "contrast and sex" not in text and "For each contrast, the sexes together, 3" in text
    assert "were combined (mean)." in text
    assert "each of 3 families of tests: each contrast by itself (15 tests in all)" in text
    assert "one declared family" not in text


def test_small_p_has_text_without_underflow():
    assert probability(0.0) == "1"
    assert probability(400.3) == "5.0e−401"
    assert probability(2.0) == "0.01"
    assert probability(float("nan")) == "–"


def test_each_refusal_is_said_with_its_cell(study, no_pictures):
    record = {
        "method": "divide",
        "fitted_on": "validation",
        "corrections": {
            "female": {"test": {"T1_nonlinear": {"refused": "the slope is 0.02"}}},
            "male": {"test": {"T1_nonlinear": {"method": "divide", "beta": 0.7}}},
        },
    }
    page = report_page(replace(study, bias_correction=record), individual_level=False)
    assert "There is no age-bias correction for T1_nonlinear of women: the slope is 0.02." in page
    assert "corrected for age bias (divide)" in page


def test_an_indicator_carries_its_columns_name(study):
    table = study.associations.copy()
    table["column"] = table["nidp"]
    table.loc[table["nidp"] == "20010-2.0", "nidp"] = "20010-2.0=3"
    view = association_view(replace(study, associations=table))
    names = dict(zip(view.nidps["nidp"], view.nidps["name"]))
    assert names["20010-2.0=3"] == "measure 10 of the body=3"
    assert names["20011-2.0"] == "measure 11 of the body"


def test_q_below_underflow_is_kept(study):
    table = study.associations.assign(nlog10q_bh=-np.log10(study.associations["q_bh"]))
    table.loc[20, ["nlog10p", "nlog10q_bh", "q_bh"]] = [420.0, 416.0, 0.0]
    view = association_view(replace(study, associations=table))
    assert view.table["nlog10q_bh"].max() == 416.0
    header, _ = unpack_associations(pack_associations(view))
    assert [len(header[name]) for name in ("large_p", "large_q")] == [1, 1]


def test_refused_sets_of_contrasts_are_not_named_one_by_one(study, no_pictures):
    few = {"n": 30, "refused": "41 subjects to fit"}
    patterns = {"method": "quadratic", "patterns": {"101": few, "011": few}}
    refused = {"corrections": {"female": {"test": {"ensemble": patterns}}}}
    page = report_page(replace(study, bias_correction=refused), individual_level=False)
    words = "no age-bias correction for some sets of contrasts of women: 41 subjects to fit."
    assert words in html.unescape(page)
