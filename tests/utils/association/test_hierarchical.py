"""Selection of nIDPs by Simes and tests within: against statsmodels nIDP by nIDP, by hand, and by its properties."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from utils.association.inference.hierarchical import COLUMNS, hierarchical_tests
from utils.association.inference.row_keys import matched_rows, row_codes


def table_of(p, columns):
    return pd.DataFrame({"nlog10p": -np.log10(np.array(p, dtype=float)), "column": columns})


def random_table(seed, n_units=40, effects=8):
    rng = np.random.default_rng(seed)
    column = rng.integers(0, n_units, 400)
    p = rng.uniform(size=400)
    p[column < effects] **= rng.integers(1, 12, (column < effects).sum())
    p[rng.random(400) < 0.1] = np.nan
    return table_of(p, np.array([f"nidp{k}" for k in column], dtype=object))


def by_hand(table, alpha):
    """The same three steps, nIDP by nIDP, with statsmodels."""
    tested = table.dropna()
    p = (10 ** -tested["nlog10p"]).groupby(tested["column"], sort=False)
    simes = {name: min(np.sort(v) * len(v) / np.arange(1, len(v) + 1)) for name, v in p}
    chosen = multipletests(list(simes.values()), alpha, method="fdr_bh")
    selected = {name for name, passes in zip(simes, chosen[0]) if passes}
    level = alpha * len(selected) / len(simes)
    rejected = pd.Series(False, index=table.index)
    for name, values in p:
        if name in selected:
            rejected[values.index] = multipletests(values, level, method="fdr_bh")[0]
    return simes, dict(zip(simes, chosen[1])), selected, rejected


@pytest.mark.parametrize("seed", range(8))
def test_three_steps_agree_with_statsmodels(seed):
    table = random_table(seed)
    simes, q, selected, rejected = by_hand(table, 0.05)
    result = hierarchical_tests(table, 0.05)
    units = result.units.set_index("column")
    np.testing.assert_allclose(
        10 ** -units["nlog10p_simes"], pd.Series(simes)[units.index], rtol=1e-10
    )
    np.testing.assert_allclose(10 ** -units["nlog10q_nidp"], pd.Series(q)[units.index], rtol=1e-10)
    assert set(units.index[units["nidp_selected"]]) == selected
    pd.testing.assert_series_equal(result.rows["rejected_within"], rejected, check_names=False)
    assert result.summary["n_rejected_within"] == rejected.sum() == units["n_rejected"].sum()
    assert list(result.rows.columns) == list(COLUMNS)


def test_hand_worked():
    # a: Simes min(.01*3, .02*3/2, .3) = .03; b: .9; c: .001; d: none. BH over 3: c .003, a .045, b .9.
    table = table_of([0.01, 0.9, 0.001, 0.02, np.nan, 0.3], ["a", "b", "c", "a", "d", "a"])
    result = hierarchical_tests(table, 0.05)
    np.testing.assert_allclose(10 ** -result.units["nlog10p_simes"], [0.03, 0.9, 0.001])
    np.testing.assert_allclose(10 ** -result.units["nlog10q_nidp"], [0.045, 0.9, 0.003])
    assert result.summary == {
        "unit": "column", "alpha": 0.05, "n_units": 3, "n_units_selected": 2,
        "level_within": pytest.approx(0.05 * 2 / 3), "n_tests": 5, "n_rejected_within": 3,
    }  # fmt: skip
    # within a at .0333: .01 <= .0333/3 passes; .02 <= .0333*2/3 passes; .3 does not.
    assert result.rows["rejected_within"].tolist() == [True, False, True, True, False, False]
    assert np.isnan(result.rows["nlog10p_simes"][4])


@given(st.lists(st.tuples(st.integers(0, 6), st.floats(0, 500)), min_size=1, max_size=60))
def test_a_selected_nidp_has_a_rejection_and_no_other_has(rows):
    columns, nlog10p = zip(*rows)
    table = pd.DataFrame({"nlog10p": nlog10p, "column": [f"n{c}" for c in columns]})
    units = hierarchical_tests(table, 0.05).units
    assert ((units["n_rejected"] > 0) == units["nidp_selected"]).all()


def test_the_order_of_rows_and_the_kind_of_text_do_not_matter():
    table = random_table(3)
    expected = hierarchical_tests(table).rows
    shuffled = table.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(hierarchical_tests(shuffled).rows.sort_index(), expected)
    as_category = table.assign(column=pd.Categorical(table["column"]))
    pd.testing.assert_frame_equal(hierarchical_tests(as_category).rows, expected)


def test_indicators_of_one_column_are_one_nidp_and_the_unit_is_named():
    table = table_of([0.001, 0.8, 0.9, 0.7], ["job", "job", "job", "other"])
    table["nidp"] = ["job=1", "job=2", "job=3", "other"]
    assert hierarchical_tests(table).summary["n_units"] == 2
    by_level = hierarchical_tests(table, unit="nidp")
    assert by_level.summary["n_units"] == 4 and by_level.summary["unit"] == "nidp"


def test_no_tests_and_p_far_below_the_smallest_double():
    empty = hierarchical_tests(table_of([np.nan, np.nan], ["a", "b"]))
    assert empty.summary["n_units"] == 0 and not empty.rows["rejected_within"].any()
    huge = pd.DataFrame({"nlog10p": [4000.0, 900.0, 0.1], "column": ["a", "a", "b"]})
    result = hierarchical_tests(huge)
    np.testing.assert_allclose(result.units["nlog10p_simes"], [4000 - np.log10(2), 0.1])
    assert result.rows["rejected_within"].tolist() == [True, True, False]


def test_false_discoveries_among_selected_nidps_stay_at_alpha():
    rng = np.random.default_rng(5)
    columns = np.repeat([f"n{k:03d}" for k in range(100)], 10)
    shares = []
    for _ in range(200):
        shared = rng.normal(size=(100, 1))  # correlated tests within a nIDP
        z = np.sqrt(0.5) * shared + np.sqrt(0.5) * rng.normal(size=(100, 10))
        z[:20] += 3.5
        from scipy.stats import norm

        units = hierarchical_tests(table_of(norm.sf(z).ravel(), columns), 0.1).units
        chosen = units["nidp_selected"].to_numpy()
        shares.append(chosen[20:].sum() / max(chosen.sum(), 1))
    assert np.mean(shares) < 0.1


def test_rows_are_matched_by_what_they_are_about():
    first = pd.DataFrame({"contrast": ["x", "y", "x"], "nidp": ["b", "a", "a"]})
    second = pd.DataFrame(
        {"contrast": pd.Categorical(["z", "x", "y"], ["y", "x", "z"]), "nidp": ["a", "a", "a"]}
    )
    rows = matched_rows(*row_codes([first, second], ("contrast", "nidp")))
    assert [r.tolist() for r in rows] == [[1, 2], [2, 1]]
    with pytest.raises(ValueError, match="1 rows occur twice"):
        matched_rows(np.array([1, 1]), np.array([1]))
    with pytest.raises(ValueError, match="needs a value in column 'nidp'"):
        row_codes([first.assign(nidp=["a", None, "b"])], ("nidp",))
