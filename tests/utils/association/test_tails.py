"""-log10 p against mpmath, against scipy where scipy still has digits, and at its edges."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from utils.association.tails import nlog10p_from_t

REFERENCE = Path(__file__).parents[2] / "reference" / "association_reference.json"


def test_agrees_with_mpmath_to_fourteen_digits():
    cases = json.loads(REFERENCE.read_text())["nlog10p"]
    t, df, expected = (np.array([case[k] for case in cases]) for k in ("t", "df", "nlog10p"))
    np.testing.assert_allclose(nlog10p_from_t(t, df), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("df", [5, 73, 2000])
def test_agrees_with_scipy_and_is_smooth_where_the_formulas_meet(df):
    t = np.linspace(0.01, 30, 400)
    ours = nlog10p_from_t(t, df)
    np.testing.assert_allclose(ours, -np.log10(2 * stats.t.sf(t, df)), rtol=1e-11)
    assert (np.diff(ours) > 0).all()


def test_never_infinite_and_symmetric():
    t = np.array([1e3, 1e6, 1e12, 1e200, 1e300])
    for df in (1.0, 50.0, 40_000.0, 1e7):
        values = nlog10p_from_t(t, df)
        assert np.isfinite(values).all()
        assert (np.diff(values) > 0).all()
        np.testing.assert_array_equal(values, nlog10p_from_t(-t, df))


def test_edges():
    assert nlog10p_from_t(0.0, 10.0) == 0.0
    assert np.isnan(nlog10p_from_t([np.nan, 1.0, 1.0, np.inf], [10.0, 0.5, np.nan, 10.0])).all()
    assert nlog10p_from_t(np.ones((2, 1)), np.full(3, 9.0)).shape == (2, 3)
