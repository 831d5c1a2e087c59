"""Partial Spearman: scipy and pingouin, monotone transformations, and ranks of whole columns."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from utils.association.inference.rank_correlation import partial_spearman, ranks_by_column
from utils.association.inference.shared_rows import SharedRows

REFERENCE = json.loads(
    (Path(__file__).parents[2] / "reference" / "recheck_reference.json").read_text()
)["spearman"]


def shared_rows(confounds):
    return SharedRows.of(np.arange(len(confounds)), np.asarray(confounds, float))


@pytest.mark.parametrize("case", REFERENCE)
def test_recorded_pingouin_numbers(case):
    delta, nidp = np.array(case["delta"]), np.array(case["nidp"])[:, None]
    found = partial_spearman(delta, nidp, shared_rows(case["confounds"]))
    assert found.r[0] == pytest.approx(case["r"], abs=1e-12)
    assert 10 ** -found.nlog10p[0] == pytest.approx(case["p"], rel=1e-9)


@pytest.mark.parametrize("ties", [False, True])
def test_without_confounds_it_is_spearman(ties):
    rng = np.random.default_rng(1)
    d, y = rng.normal(size=80), rng.normal(size=(80, 2))
    if ties:
        d, y = np.round(d), np.round(y)
    found = partial_spearman(d, y, shared_rows(np.empty((80, 0))))
    for column in range(2):
        expected = stats.spearmanr(d, y[:, column])
        assert found.r[column] == pytest.approx(expected.statistic, abs=1e-13)
        assert found.nlog10p[column] == pytest.approx(-np.log10(expected.pvalue), rel=1e-9)


def test_increasing_transformations_do_not_matter():
    rng = np.random.default_rng(2)
    z = rng.normal(size=(120, 3))
    d, y = rng.normal(size=120), rng.normal(size=(120, 4)) + z[:, :1]
    first = partial_spearman(d, y, shared_rows(z))
    other = partial_spearman(np.exp(d), y**3, shared_rows(z))
    np.testing.assert_allclose(other.r, first.r, atol=1e-14)


def test_one_wild_value_moves_it_little():
    rng = np.random.default_rng(3)
    d, y = rng.normal(size=500), rng.normal(size=(500, 1))
    first = partial_spearman(d, y, shared_rows(np.empty((500, 0)))).r[0]
    y[np.argmax(d)] = 1e6
    assert abs(partial_spearman(d, y, shared_rows(np.empty((500, 0)))).r[0] - first) < 0.02


def test_a_side_without_variety_is_nan():
    found = partial_spearman(np.arange(20.0), np.full((20, 1), 3.0), shared_rows(np.empty((20, 0))))
    assert np.isnan(found.r[0]) and np.isnan(found.nlog10p[0])


def test_ranks_of_columns_keep_missing_values_and_layout():
    values = np.array([[3.0, np.nan], [1.0, 5.0], [3.0, 2.0], [np.nan, np.nan]])
    expected = [[2 / 3, np.nan], [1 / 6, 0.75], [2 / 3, 0.25], [np.nan, np.nan]]
    found = ranks_by_column(values)
    np.testing.assert_allclose(found, expected)
    assert found.T.flags.c_contiguous
    assert np.isnan(ranks_by_column(np.full((3, 1), np.nan))).all()


def test_column_ranks_are_exact_when_complete_and_close_when_missing_at_random():
    rng = np.random.default_rng(4)
    z = rng.normal(size=(3000, 3))
    d = rng.normal(size=(3000, 1)) + z[:, :1]
    y = np.exp(rng.normal(size=(3000, 1)) + 0.2 * d - z[:, 1:2])
    shared = shared_rows(z)

    def by_columns(rows):
        ranked = [shared_rows(z[rows]).residuals(ranks_by_column(v)[rows][:, 0]) for v in (d, y)]
        return (ranked[0] @ ranked[1]) / np.sqrt((ranked[0] @ ranked[0]) * (ranked[1] @ ranked[1]))

    everyone = np.arange(3000)
    assert by_columns(everyone) == pytest.approx(
        partial_spearman(d[:, 0], y, shared).r[0], abs=1e-13
    )
    d[rng.random(3000) < 0.3] = np.nan
    rows = np.flatnonzero(np.isfinite(d[:, 0]))
    exact = partial_spearman(d[rows, 0], y[rows], shared_rows(z[rows])).r[0]
    assert by_columns(rows) == pytest.approx(exact, abs=2e-3)
