"""Corrections on logarithms: against statsmodels and R, with missing p, and far below the smallest double."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.association.inference.multiplicity import (
    benjamini_hochberg_nlog10,
    bh_threshold_nlog10,
    bonferroni_nlog10,
    bonferroni_threshold_nlog10,
    hochberg_nlog10,
    holm_nlog10,
    probability,
)
from utils.association.inference.null_share import LAMBDAS, null_share, storey_nlog10

REFERENCE = json.loads(
    (Path(__file__).parents[2] / "reference" / "association_reference.json").read_text()
)

FROM_R = json.loads(
    (Path(__file__).parents[2] / "reference" / "inference_reference.json").read_text()
)
OF_R = {
    "bonferroni": bonferroni_nlog10,
    "holm": holm_nlog10,
    "hochberg": hochberg_nlog10,
    "BH": benjamini_hochberg_nlog10,
    "BY": lambda x: benjamini_hochberg_nlog10(x, any_dependence=True),
}
OF_STATSMODELS = {
    "bonferroni": "bonferroni", "holm": "holm", "hochberg": "simes-hochberg", "BH": "fdr_bh", "BY": "fdr_by",
}  # fmt: skip


@pytest.mark.parametrize("method", OF_R)
@pytest.mark.parametrize("case", range(len(FROM_R["adjusted"])))
def test_adjusted_p_agree_with_r(method, case):
    p = np.array(FROM_R["adjusted"][case]["p"], dtype=float)
    expected = np.array(FROM_R["adjusted"][case][method], dtype=float)
    np.testing.assert_allclose(probability(OF_R[method](-np.log10(p))), expected, rtol=1e-12)


@pytest.mark.parametrize("method", OF_R)
@pytest.mark.parametrize("n", [1, 2, 7, 500])
def test_adjusted_p_agree_with_statsmodels(method, n):
    from statsmodels.stats.multitest import multipletests

    p = np.random.default_rng(n).uniform(size=n) ** 5
    p[: n // 3] = np.round(p[: n // 3], 2) + 0.001  # ties
    expected = multipletests(p, method=OF_STATSMODELS[method])[1]
    np.testing.assert_allclose(probability(OF_R[method](-np.log10(p))), expected, rtol=1e-11)


@pytest.mark.parametrize("case", FROM_R["null_share"], ids=lambda c: f"{c['n']}-{c['share']}")
def test_storey_agrees_with_bioconductors_qvalue(case):
    u = np.arange(1, case["n"] + 1) * 0.6180339887498949 % 1
    p = np.where(
        np.arange(1, case["n"] + 1) <= round(case["share"] * case["n"]), u ** case["power"], u
    )
    q, share = storey_nlog10(-np.log10(p))
    np.testing.assert_allclose(share.by_lambda, case["pi0_by_lambda"], rtol=1e-12)
    # R finds the smoothing with three degrees of freedom to four digits.
    np.testing.assert_allclose(share.pi0, case["pi0"], rtol=2e-5)
    np.testing.assert_allclose(probability(q[:10]), case["q_of_first_ten"], rtol=2e-5)


def test_the_smoother_is_scipys_smoothing_spline():
    from scipy.interpolate import make_smoothing_spline
    from scipy.optimize import brentq

    def hat(a):  # the smoother's matrix, a column a unit vector
        return np.column_stack(
            [make_smoothing_spline(LAMBDAS, e, lam=a)(LAMBDAS) for e in np.eye(19)]
        )

    a = np.exp(brentq(lambda x: np.trace(hat(np.exp(x))) - 3.0, -12, 5))
    p = np.random.default_rng(8).uniform(size=5000)
    p[:2000] **= 3
    share = null_share(-np.log10(p))
    expected = make_smoothing_spline(LAMBDAS, share.by_lambda, lam=a)(LAMBDAS)[-1]
    assert share.pi0 == pytest.approx(expected, rel=1e-6)


def test_storey_says_when_its_share_is_unstable():
    rng = np.random.default_rng(0)
    p = rng.uniform(size=400_000)
    assert null_share(-np.log10(p)).is_stable
    few = null_share(-np.log10(p[:200]))
    assert "200 tests are few" in few.notes[0] and not few.is_stable
    falling = null_share(-np.log10(p**2))
    assert any("p is not flat there" in note for note in falling.notes)
    rising = null_share(-np.log10(1 - p**2))  # p piled up near 1
    assert rising.pi0 == 1.0 and any("far above 1" in note for note in rising.notes)
    none_left = null_share(np.full(2000, 30.0))
    assert none_left.pi0 == 1.0 and any("q takes 1 instead" in note for note in none_left.notes)
    assert none_left.pi1 == 1.0 and rising.pi1 == 0.0


def test_a_p_equal_to_lambda_is_not_above_it():
    by_lambda = null_share(-np.log10(LAMBDAS)).by_lambda
    np.testing.assert_allclose(by_lambda, np.arange(18, -1, -1) / (19 * (1 - LAMBDAS)))


def test_storey_without_tests_and_with_missing_ones():
    q, share = storey_nlog10([np.nan, np.nan])
    assert np.isnan(q).all() and np.isnan(share.pi0) and share.notes == ("there are no tests",)
    x = -np.log10(np.random.default_rng(1).uniform(size=3000) ** 1.5)
    gaps = np.insert(x, [0, 1500], np.nan)
    q, share = storey_nlog10(gaps)
    assert share.n_tests == 3000 and np.isnan(q[[0, 1501]]).all()
    kept = np.isfinite(gaps)
    np.testing.assert_array_equal(q[kept], storey_nlog10(x)[0])
    np.testing.assert_allclose(q[kept], benjamini_hochberg_nlog10(x) - np.log10(share.pi0))


@given(st.lists(st.floats(0, 2000), min_size=1, max_size=40))
def test_family_wise_steps_stand_in_their_order(values):
    x = np.array(values)
    bonferroni, holm, hochberg = bonferroni_nlog10(x), holm_nlog10(x), hochberg_nlog10(x)
    bh = benjamini_hochberg_nlog10(x)
    for weaker, stronger in ((bonferroni, holm), (holm, hochberg), (hochberg, bh)):
        assert (weaker <= stronger + 1e-9).all()
    for steps in (holm, hochberg):
        assert (np.diff(steps[np.argsort(x)]) >= -1e-9).all()


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
    for correct in OF_R.values():
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
