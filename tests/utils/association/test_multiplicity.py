"""Bonferroni, BH and BY on logarithms: against statsmodels, with missing p, and far below the smallest double."""

import json
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from utils.association.multiplicity import (
    benjamini_hochberg_nlog10,
    bh_threshold_nlog10,
    bonferroni_nlog10,
    bonferroni_threshold_nlog10,
    probability,
)

REFERENCE = json.loads(
    (Path(__file__).parents[2] / "reference" / "association_reference.json").read_text()
)


def test_bh_and_by_agree_with_statsmodels():
    x = -np.log10(REFERENCE["p"])
    np.testing.assert_allclose(
        probability(benjamini_hochberg_nlog10(x)), REFERENCE["q_bh"], rtol=1e-12
    )
    np.testing.assert_allclose(
        probability(benjamini_hochberg_nlog10(x, any_dependence=True)),
        REFERENCE["q_by"],
        rtol=1e-12,
    )


def test_missing_p_is_no_test_and_keeps_its_place():
    x = -np.log10(REFERENCE["p"])
    gaps = np.insert(x, [0, 7, 40], np.nan)
    kept = np.isfinite(gaps)
    for correct in (bonferroni_nlog10, benjamini_hochberg_nlog10):
        np.testing.assert_array_equal(correct(gaps)[kept], correct(x))
        assert np.isnan(correct(gaps)[~kept]).all()
        assert np.isnan(correct([np.nan, np.nan])).all()


def test_huge_values_keep_their_order():
    x = np.array([5000.0, 1200.0, 0.1, 4000.0])
    q = benjamini_hochberg_nlog10(x)
    np.testing.assert_allclose(q[:2], [5000 - np.log10(4), 1200 - np.log10(4 / 3)])
    assert (probability(q) > 0).all()
    np.testing.assert_allclose(
        bonferroni_nlog10(x), [x_ - np.log10(4) for x_ in x[:2]] + [0, x[3] - np.log10(4)]
    )


@given(st.lists(st.floats(0, 400), min_size=1, max_size=50))
def test_bh_is_between_uncorrected_and_bonferroni_and_monotone(values):
    x = np.array(values)
    q = benjamini_hochberg_nlog10(x)
    assert (q <= x + 1e-12).all() and (q >= bonferroni_nlog10(x) - 1e-12).all()
    assert (np.diff(q[np.argsort(x)]) >= -1e-12).all()


def test_thresholds():
    assert abs(bonferroni_threshold_nlog10(790_989) - 7.1992) < 1e-4  # 57 contrasts x 13,877 nIDPs
    assert bonferroni_threshold_nlog10(0) is None
    x = np.array([6.0, 5.0, 0.2, np.nan])
    assert bh_threshold_nlog10(x, benjamini_hochberg_nlog10(x)) == 5.0
    assert bh_threshold_nlog10([0.1], [0.1]) is None
