"""Intraclass correlations: Shrout and Fleiss' example, pingouin's numbers, properties, degenerate tables."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.evaluation.intraclass import NAMES, intraclass_correlations, mean_squares

REFERENCE = Path(__file__).parents[2] / "reference" / "intraclass_reference.json"
CASES = json.loads(REFERENCE.read_text(encoding="utf-8"))["cases"]


def test_shrout_and_fleiss_example():
    """Six targets, four judges: .29, .71 and .62 as published, from mean squares 11.24, 32.49 and 1.02."""
    ratings = np.array(CASES[0]["ratings"])
    m = mean_squares(ratings)
    assert (m.n, m.k) == (6, 4)
    assert [m.subjects, m.ratings, m.error] == pytest.approx([11.24, 32.49, 1.02], abs=0.005)
    found = intraclass_correlations(ratings)
    assert [round(found[name]["value"], 2) for name in NAMES] == [0.29, 0.62, 0.71]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_estimates_and_intervals_are_pingouins(case, name):
    found = intraclass_correlations(case["ratings"])[name]
    assert [found["value"], found["low"], found["high"]] == pytest.approx(case[name], abs=2e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(-50, 50), st.floats(0.1, 20))
def test_units_and_order_do_not_matter(seed, shift, scale):
    rng = np.random.default_rng(seed)
    ratings = rng.normal(size=(30, 1)) + rng.normal(size=(30, 3))
    first = intraclass_correlations(ratings)
    turned = intraclass_correlations(shift + scale * ratings[rng.permutation(30)][:, [2, 0, 1]])
    for name in NAMES:
        assert turned[name] == pytest.approx(first[name], abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_a_shift_of_one_rating_costs_agreement_and_not_consistency(seed):
    rng = np.random.default_rng(seed)
    ratings = 2 * rng.normal(size=(40, 1)) + rng.normal(size=(40, 2))
    first, moved = (
        intraclass_correlations(ratings),
        intraclass_correlations(ratings + np.array([0, 5])),
    )
    assert moved["icc_3_1"] == pytest.approx(first["icc_3_1"])
    assert moved["icc_2_1"]["value"] < first["icc_2_1"]["value"]


def test_the_true_reliability_lies_in_its_interval():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        found = intraclass_correlations(rng.normal(size=(50, 1)) + rng.normal(size=(50, 3)))
        inside += found["icc_3_1"]["low"] < 0.5 < found["icc_3_1"]["high"]
    assert 0.92 < inside / 400 < 0.98


def test_identical_ratings_agree_perfectly_without_an_interval():
    values = np.random.default_rng(0).normal(size=(20, 1)) + 60
    same = intraclass_correlations(np.repeat(values, 3, axis=1))
    assert same == {name: {"value": 1.0, "low": None, "high": None} for name in NAMES}
    shifted = intraclass_correlations(np.column_stack([values, values + 2]))
    assert shifted["icc_3_1"]["value"] == 1.0 and shifted["icc_2_1"]["value"] < 0.5


def test_where_nobody_differs_nothing_is_known():
    none = {name: {"value": None, "low": None, "high": None} for name in NAMES}
    assert intraclass_correlations(np.full((20, 3), 61.0)) == none
    assert intraclass_correlations(np.random.default_rng(0).normal(size=(2, 3))) == none


def test_subjects_with_a_missing_rating_are_left_out():
    ratings = np.random.default_rng(0).normal(size=(30, 3))
    ratings[4, 1] = np.nan
    kept = np.delete(ratings, 4, axis=0)
    assert intraclass_correlations(ratings) == intraclass_correlations(kept)


def test_misuse_is_named():
    with pytest.raises(ValueError, match=r"at least two columns are needed, not \(20, 1\)"):
        mean_squares(np.zeros((20, 1)))
    with pytest.raises(ValueError, match="at least two subjects with all ratings"):
        mean_squares(np.zeros((1, 3)))
