"""Family-wise p from maxima: counting by hand, the tail's clamps, thresholds that agree with p, refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.association.inference.family_wise import FamilyWise, family_wise
from utils.association.inference.generalised_pareto import ParetoTail
from utils.common.randomness import generator


def gumbel_maxima(n: int, n_tests: int = 500, seed: int = 1) -> np.ndarray:
    """Maxima of -log10 p over independent tests."""
    return -np.log10(generator("maxima", seed).beta(1, n_tests, size=n))


@pytest.mark.parametrize(
    ("observed", "count"), [(0.0, 4), (1.0, 4), (1.5, 3), (2.0, 3), (3.9, 1), (4.0, 1), (4.1, 0)]
)
def test_counted_p_by_hand(observed, count):
    found = family_wise([3.0, 1.0, 4.0, 2.0])
    assert found.tail is None
    assert float(found.p(observed)) == (1 + count) / 5
    assert float(found.nlog10(observed)) == pytest.approx(-np.log10((1 + count) / 5), abs=1e-15)


def test_single_precision_of_the_maxima_makes_no_false_excess():
    assert float(family_wise([2.0]).p(2.0 * (1 + 1e-6))) == 1.0
    assert float(family_wise([2.0]).p(2.0 * (1 + 1e-4))) == 0.5


def test_missing_stays_missing_and_infinite_is_the_smallest_p():
    found = family_wise([1.0, 2.0, 3.0])
    p = found.p([[np.nan, np.inf], [0.5, 2.5]])
    np.testing.assert_array_equal(p, [[np.nan, 0.25], [1.0, 0.5]])
    assert np.isnan(found.nlog10(np.nan))


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("n", [19, 99, 250, 5000])
@pytest.mark.parametrize("refine", [True, False])
def test_threshold_is_the_smallest_that_passes(alpha, n, refine):
    found = family_wise(gumbel_maxima(n), refine=refine)
    threshold = found.threshold_nlog10(alpha)
    if (n + 1) * alpha < 1:
        assert threshold is None and found.effective_tests(alpha) is None
        return
    assert float(found.p(threshold)) <= alpha * (1 + 1e-9)
    assert float(found.p(threshold * (1 - 3e-5))) > alpha
    assert found.effective_tests(alpha) == pytest.approx(alpha * 10**threshold)


def test_threshold_by_hand():
    found = family_wise(np.arange(1.0, 20.0))  # 19 maxima: p <= 0.05 only above all
    assert found.threshold_nlog10(0.05) == pytest.approx(19.0, rel=2e-5)
    assert found.threshold_nlog10(0.10) == pytest.approx(18.0, rel=2e-5)
    assert found.threshold_nlog10(0.04) is None
    assert found.threshold_nlog10(1.0) == 0.0


@pytest.mark.parametrize("n_tests", [10, 500, 20_000])
def test_effective_tests_of_independent_tests_is_their_number(n_tests):
    found = family_wise(gumbel_maxima(20_000, n_tests))
    # 1 - (1 - p)^M = 0.05 is p = 0.0513 / M: Bonferroni's M is 2.5 % larger than that
    assert found.effective_tests() == pytest.approx(n_tests * 0.975, rel=0.1)


def test_tail_is_between_the_steps_of_counting_and_never_0():
    n = 2000
    found = family_wise(gumbel_maxima(n))
    counted = family_wise(found.maxima, refine=False)
    assert found.tail is not None and counted.tail is None
    beyond = found.maxima[-1] + np.array([0.5, 5.0, 300.0])
    np.testing.assert_allclose(counted.p(beyond), 1 / (n + 1))
    p = found.p(beyond)
    assert p[0] < 1 / (n + 1) and (p[1:] == 1 / (10 * n)).all()
    inner = np.quantile(found.maxima, [0.92, 0.95, 0.98, 0.99])
    np.testing.assert_allclose(found.p(inner), counted.p(inner), rtol=0.15)
    outer = np.quantile(found.maxima, [0.1, 0.5, 0.7, 0.85])
    np.testing.assert_array_equal(found.p(outer), counted.p(outer))  # 0.1 and more: as counted


def test_end_of_a_short_tail_is_clamped():
    found = FamilyWise(np.sort(gumbel_maxima(1000)), ParetoTail(3.0, 0.249, 0.4, 0.5))
    assert found.tail.p(3.0 + 0.4 / 0.5 + 1e-9) == 0.0
    assert float(found.p(9.0)) == found.smallest_p == 1e-4
    assert found.threshold_nlog10(1e-5) is None


@given(st.integers(1000, 1500), st.integers(1, 20))
def test_p_never_rises_with_the_statistic(n, seed):
    found = family_wise(gumbel_maxima(n, seed=seed))
    p = found.p(np.linspace(0, 8, 400))
    assert (np.diff(p) <= 0).all() and (p > 0).all() and (p <= 1).all()


@pytest.mark.parametrize("maxima", [[], [1.0, np.nan], [np.inf]])
def test_maxima_that_are_none_are_refused(maxima):
    with pytest.raises(ValueError, match="maxima must be finite"):
        family_wise(maxima)
