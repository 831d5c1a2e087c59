"""Nothing about a person leaves: no ids, no count under ten, no order of the subject list."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from figures.accuracy import may_be_shown
from figures.packing import unpack_associations, unpack_json
from figures.privacy import (
    MINIMUM_COUNT,
    binned_counts,
    known_ids,
    means_by_age,
    record_for_export,
    shown_count,
    without_ids,
)
from figures.report import INDIVIDUAL_STAMP, write_report
from figures.tables import person_table
from figures.writing import write_figures
from utils.common.randomness import generator


def packed(page: str, name: str) -> str:
    return re.search(rf'id="{name}">([^<]*)<', page).group(1)


def everything_in(page: str) -> str:
    """The page's text with its packed parts and pictures opened."""
    import base64

    texts = [page, str(unpack_json(packed(page, "packed-curves")))]
    if 'id="packed-associations"' in page:
        header, table = unpack_associations(packed(page, "packed-associations"))
        texts += [str(header), table.to_csv()]
    for picture in re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", page):
        texts.append(base64.b64decode(picture).decode())
    return "\n".join(texts)


@given(
    n=st.integers(0, 600),
    seed=st.integers(0, 50),
    spread=st.floats(0.1, 20),
)
@settings(max_examples=40, deadline=None)
def test_shown_squares_hold_ten_and_the_rest_cannot_be_subtracted(n, seed, spread):
    draw = generator("squares", seed)
    bins = binned_counts(draw.normal(60, 8, n), draw.normal(0, spread, n))
    shown = bins.counts[bins.counts > 0]
    assert (shown >= MINIMUM_COUNT).all()
    assert shown.sum() + bins.n_hidden == bins.n == n
    assert bins.n_hidden == 0 or bins.n_hidden >= MINIMUM_COUNT or not len(shown)


@given(n=st.integers(0, 300), seed=st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_means_by_age_rest_on_ten(n, seed):
    draw = generator("means", seed)
    means = means_by_age(draw.uniform(45, 80, n), draw.normal(0, 4, n))
    assert (means["n"] >= MINIMUM_COUNT).all()
    hidden = n - means["n"].sum()
    assert hidden == 0 or hidden >= MINIMUM_COUNT or len(means) == 0


def test_small_counts_read_as_such():
    assert shown_count(7) == "<10"
    assert shown_count(7, individual_level=True) == "7"
    assert (shown_count(0), shown_count(10), shown_count(12345), shown_count(np.nan)) == (
        "0",
        "10",
        "12,345",
        "–",
    )


def test_ids_are_taken_out_of_words_and_entries():
    ids = frozenset({"7100037", "sub-A12"})
    content = {
        "subject_ids": ["7100037"],
        "note": "see sub-A12, /data/7100037/T1.nii",
        "n": 7100037,
    }
    clean = without_ids(content, ids)
    assert "7100037" not in str(clean) and "sub-A12" not in str(clean)
    assert "subject_ids" not in clean


@pytest.mark.parametrize("individual_level", [False, True])
def test_no_id_in_any_output(make_study, tmp_path, individual_level):
    study = make_study(n=60, n_nidps=30, contrasts=("T1_nonlinear",))
    study = replace(study, deltas=study.deltas[study.deltas["contrast"] == "ensemble"])
    study = replace(study, predictions=study.predictions.assign(contrast="ensemble"))
    write_figures(study, tmp_path, individual_level)
    page = write_report(study, tmp_path / "report.html", individual_level).read_text("utf-8")
    ids = known_ids((study.predictions, study.deltas))
    assert len(ids) == 120
    texts = [everything_in(page)]
    texts += [path.read_bytes().decode("latin-1") for path in sorted(tmp_path.iterdir())]
    for text in texts:
        assert not any(found in ids for found in re.findall(r"7[16]\d{5}", text))
    assert (INDIVIDUAL_STAMP in page) == individual_level


def test_without_opting_in_there_are_no_points(make_study, tmp_path, no_pictures):
    study = make_study(n=60, n_nidps=12, contrasts=("T1_nonlinear",))
    page = write_report(study, tmp_path / "report.html", individual_level=False).read_text("utf-8")
    curves = unpack_json(packed(page, "packed-curves"))
    for cell in curves["cells"]:
        for view in cell["views"].values():
            assert "points" not in view
            assert all(count >= MINIMUM_COUNT for _, _, count in view["squares"])
            assert all(n >= MINIMUM_COUNT for _, _, n, _, _ in view["means"])


def test_points_are_sorted_by_age_and_carry_no_id(make_study, tmp_path, no_pictures):
    study = make_study(n=40, n_nidps=12, contrasts=("T1_nonlinear",))
    persons = person_table(study, "test")
    assert "subject_id" not in persons.columns
    page = write_report(study, tmp_path / "report.html", individual_level=True).read_text("utf-8")
    points = unpack_json(packed(page, "packed-curves"))["cells"][0]["views"]["delta"]["points"]
    assert len(points) == 80
    assert points[::2] == sorted(points[::2])
    shuffled = replace(
        study,
        deltas=study.deltas.iloc[::-1],
        predictions=study.predictions.sample(frac=1, random_state=1),
    )
    assert page == write_report(shuffled, tmp_path / "r2.html", True).read_text("utf-8")


def test_small_numbers_of_cases_and_subjects_are_hidden(study, tmp_path, no_pictures):
    page = write_report(study, tmp_path / "report.html", individual_level=False).read_text("utf-8")
    _, table = unpack_associations(packed(page, "packed-associations"))
    planted = study.associations
    cases = table["n_cases"].dropna()
    assert ((cases >= MINIMUM_COUNT) | (cases == -2)).all() and (cases == -2).any()
    few = planted.loc[planted["n"] < MINIMUM_COUNT, "nidp"].unique()
    hidden = table[table["nidp"].isin(few)]
    assert hidden[["n", "r", "nlog10p"]].isna().all().all()
    assert (hidden["reason"] == "fewer than 10 subjects").all()


def test_small_cells_lose_their_accuracy(make_study, tmp_path, no_pictures):
    study = make_study(n=9, n_nidps=12, contrasts=("T1_nonlinear",))
    page = write_report(study, tmp_path / "a.html", individual_level=False).read_text("utf-8")
    assert "4.20 [" not in page and "&lt;10" in page
    assert '"train": "<10"' in html.unescape(page)
    assert "4.20 [" in write_report(study, tmp_path / "b.html", True).read_text("utf-8")


def test_exact_extreme_ages_stay_inside(study, tmp_path, no_pictures):
    page = write_report(study, tmp_path / "report.html", individual_level=False).read_text("utf-8")
    assert "45–82" in page and "81.87" not in page and "45.31" not in page


def test_records_hide_small_counts_of_persons_only():
    record = {
        "n_fit": 7,
        "n_tests": 5,
        "age_min_years": 45.31,
        "age_max_years": 81.2,
        "in_sample": True,
        "subjects": {"deltas": 400, "without_nidps": 3},
        "counts": {"female": {"test": 9, "train": 90}},
    }
    assert record_for_export(record) == {
        "n_fit": "<10",
        "n_tests": 5,
        "age_min_years": 45,
        "age_max_years": 82,
        "in_sample": True,
        "subjects": {"deltas": 400, "without_nidps": "<10"},
        "counts": {"female": {"test": "<10", "train": 90}},
    }


def test_a_handful_tells_neither_its_range_nor_its_number(make_study, tmp_path, no_pictures):
    study = make_study(n=4, n_nidps=12, contrasts=("T1_nonlinear",))
    study = replace(
        study,
        bias_correction={
            "corrections": {"female": {"test": {"T1_nonlinear": {"refused": "4 subjects"}}}}
        },
        flags=("T1 test: 3 subject(s) without a volume.",),
    )
    page = write_report(study, tmp_path / "a.html", individual_level=False).read_text("utf-8")
    curves = unpack_json(packed(page, "packed-curves"))
    assert curves["cells"][0]["limits"]["age"] == [40, 90]
    assert all("x" not in view for view in curves["cells"][0]["views"].values())
    assert "4 subjects" not in page and "3 subject" not in page
    assert "fewer than 10 subjects" in page


def test_all_subjects_do_not_give_a_hidden_sex_away(study):
    metrics = study.metrics[study.metrics["predictor"] == "ensemble"].head(2).copy()
    metrics["contrast"], metrics["n"], metrics["sex"] = "T1", [30, 4], ["female", "male"]
    metrics = pd.concat([metrics, metrics.tail(1).assign(sex="all", n=34)], ignore_index=True)
    assert may_be_shown(metrics, individual_level=False).tolist() == [True, False, False]
    assert may_be_shown(metrics, individual_level=True).all()
