"""Effective numbers of tests: matrices whose eigenvalues are known, and correlations against pandas."""

import numpy as np
import pandas as pd
import pytest

from utils.association.inference.effective_tests import (
    effective_columns,
    effective_tests,
    pairwise_correlation,
)


def equicorrelated(m, rho):
    """Eigenvalues of m variables that all correlate rho."""
    return np.array([1 + (m - 1) * rho, *([1 - rho] * (m - 1))])


@pytest.mark.parametrize("m", [1, 2, 10, 57])
def test_unrelated_tests_all_count(m):
    for found in (effective_tests(np.ones(m)), effective_tests(np.full(m, 1 - 1e-15))):
        assert (found.li_ji, found.galwey, found.nyholt) == pytest.approx((m, m, m))


@pytest.mark.parametrize("m", [2, 3, 10, 57])
def test_copies_of_one_test_count_once(m):
    eigenvalues = np.linalg.eigvalsh(np.ones((m, m)))  # 0, ... , m but for rounding
    found = effective_tests(eigenvalues)
    assert (found.li_ji, found.nyholt) == pytest.approx((1, 1))
    assert found.galwey == pytest.approx(1, abs=1e-5)


# M, rho, and the three formulas worked by hand.
CASES = [
    (2, 0.5, 1 + 0.5 + 0.5, (np.sqrt(1.5) + np.sqrt(0.5)) ** 2 / 2, 1 + 1 * (1 - 0.5 / 2)),
    (4, 0.5, 1 + 0.5 + 3 * 0.5, (np.sqrt(2.5) + 3 * np.sqrt(0.5)) ** 2 / 4, 1 + 3 * (1 - 1.0 / 4)),
    (10, 0.2, 1 + 0.8 + 9 * 0.8, (np.sqrt(2.8) + 9 * np.sqrt(0.8)) ** 2 / 10, 1 + 9 * (1 - 0.4 / 10)),
    (5, 0.75, 1 + 0 + 4 * 0.25, (2 + 4 * 0.5) ** 2 / 5, 1 + 4 * (1 - 2.8125 / 5)),
]  # fmt: skip


@pytest.mark.parametrize(("m", "rho", "li_ji", "galwey", "nyholt"), CASES)
def test_hand_worked(m, rho, li_ji, galwey, nyholt):
    found = effective_tests(equicorrelated(m, rho))
    assert (found.li_ji, found.galwey, found.nyholt) == pytest.approx((li_ji, galwey, nyholt))


def test_deltas_times_nidps_and_a_record():
    both = effective_tests(equicorrelated(4, 0.5)).times(effective_tests(np.ones(7)))
    assert both.n_tests == 28 and both.li_ji == pytest.approx(21)
    assert set(both.as_record()) == {"n_tests", "li_ji", "galwey", "nyholt"}
    assert effective_tests([]).n_tests == 0


def with_gaps(seed=0, n=300, m=12):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, m)) + rng.normal(size=(n, 1))
    values = values * 10.0 ** rng.integers(-6, 7, m) + 10.0 ** rng.integers(-3, 4, m)
    values[rng.random((n, m)) < 0.3] = np.nan
    return values


@pytest.mark.parametrize("seed", range(4))
def test_pairwise_correlations_agree_with_pandas(seed):
    values = with_gaps(seed)
    np.testing.assert_allclose(
        pairwise_correlation(values), pd.DataFrame(values).corr().to_numpy(), atol=1e-9
    )


def test_complete_columns_give_the_ordinary_correlation():
    values = np.nan_to_num(with_gaps(1))
    np.testing.assert_allclose(pairwise_correlation(values), np.corrcoef(values.T), atol=1e-12)
    eigenvalues = np.linalg.eigvalsh(np.corrcoef(values.T))
    assert effective_columns(values).galwey == pytest.approx(effective_tests(eigenvalues).galwey)


def test_columns_without_spread_are_no_tests_and_strangers_do_not_correlate():
    values = with_gaps(2)
    values[:, 3], values[:, 5] = np.nan, 7.0
    assert effective_columns(values).n_tests == 10
    apart = np.full((40, 2), np.nan)
    apart[:20, 0], apart[20:, 1] = np.arange(20), np.arange(20)
    assert np.isnan(pairwise_correlation(apart)[0, 1])
    assert effective_columns(apart).li_ji == pytest.approx(2)


def test_correlation_makes_fewer_tests():
    rng = np.random.default_rng(3)
    noise, shared = rng.normal(size=(400, 30)), rng.normal(size=(400, 1))
    before = None
    for weight in (0.0, 0.5, 1.0, 3.0):
        found = effective_columns(noise + weight * shared)
        if before is not None:
            assert found.galwey < before.galwey and found.nyholt < before.nyholt
        before = found
