"""Discovery and replication: hand-worked tables, R's exact binomial, simulated truth, and halves of subjects."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.utils.association.association_tables import as_categories, association_table
from utils.association.inference.halves import (
    families_on_both_sides,
    given_halves,
    random_halves,
)
from utils.association.inference.replication import (
    COLUMNS,
    exact_binomial_interval,
    replicate,
)
from utils.common.errors import UserError

FROM_R = json.loads(
    (Path(__file__).parents[2] / "reference" / "inference_reference.json").read_text()
)


@pytest.mark.parametrize("case", FROM_R["exact_binomial"], ids=lambda c: f"{c[0]}-of-{c[1]}")
def test_the_exact_binomial_interval_is_rs(case):
    n_successes, n_trials, low, high = case
    assert exact_binomial_interval(n_successes, n_trials) == pytest.approx((low, high), abs=1e-12)


def test_no_trials_no_interval():
    assert exact_binomial_interval(0, 0) == (None, None)


def test_hand_worked():
    first = association_table([0.30, 0.25, -0.28, 0.01, 0.27], 500)
    second = association_table([0.20, -0.20, -0.05, 0.30, np.nan], 400)
    result = replicate(first, second)
    table, summary = result.table, result.summary
    assert list(table.columns) == list(COLUMNS)
    assert table["discovery"].tolist() == [True, True, True, False, True]
    assert table["same_sign"].tolist() == [True, False, True, True, False]
    assert table["replicated"].tolist() == [True, False, False, False, False]
    assert table["reason"].tolist() == ["", "", "", "", "too_few_subjects"]
    assert summary["n_discoveries"] == 4 and summary["n_discoveries_tested"] == 3
    assert summary["one_sided_threshold_nlog10p"] == pytest.approx(np.log10(3 / 0.05))
    assert summary["n_replicated"] == 1 and summary["n_same_sign"] == 2
    assert summary["same_sign"]["share"] == 2 / 3
    low, high = stats.binomtest(2, 3).proportion_ci(method="exact")
    assert summary["same_sign"]["ci_lo"] == pytest.approx(low)
    assert summary["same_sign"]["ci_hi"] == pytest.approx(high)
    assert summary["unique_nidps"] == {
        "unit": "column of the nIDP table", "discovered": 4, "replicated": 1,
    }  # fmt: skip
    t = 0.20 * np.sqrt(400 / (1 - 0.04))
    assert table["nlog10p_one_sided_b"][0] == pytest.approx(-np.log10(stats.t.sf(t, 400)))
    t = 0.20 * np.sqrt(400 / (1 - 0.04))
    assert table["nlog10p_one_sided_b"][1] == pytest.approx(-np.log10(stats.t.cdf(t, 400)))


def test_bland_altman_is_on_fishers_z_with_known_limits():
    r_a, r_b = np.array([0.1, 0.3, -0.2, 0.05]), np.array([0.12, 0.1, -0.25, 0.05])
    result = replicate(association_table(r_a, 901), association_table(r_b, 401))
    difference = np.arctanh(r_a) - np.arctanh(r_b)
    np.testing.assert_allclose(result.table["z_difference"], difference)
    np.testing.assert_allclose(result.table["z_mean"], (np.arctanh(r_a) + np.arctanh(r_b)) / 2)
    limit = stats.norm.ppf(0.975) * np.sqrt(1 / 900 + 1 / 400)
    np.testing.assert_allclose(result.table["z_limit"], limit)
    agreement = result.summary["bland_altman"]
    assert agreement["mean_difference"] == pytest.approx(difference.mean())
    assert agreement["sd_difference"] == pytest.approx(np.std(difference, ddof=1))
    assert agreement["share_within_limits"] == 0.75
    slope = result.summary["slope"]["all_pairs"]
    assert slope == pytest.approx(stats.linregress(r_a, r_b).slope)


def simulated(seed, effects, df=800):
    """Two tables with the same true Fisher z and independent noise."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(2, len(effects))) / np.sqrt(df - 1)
    return [association_table(np.tanh(effects + e), df) for e in noise]


def test_without_effects_few_replicate_and_signs_are_a_coin():
    n_false, signs = 0, []
    for seed in range(120):
        first, second = simulated(seed, np.zeros(200))
        first["nlog10p_bonf"] = first["nlog10p"]  # p < .05 uncorrected: about ten false discoveries
        summary = replicate(first, second).summary
        n_false += summary["n_replicated"] > 0
        signs.append([summary["n_same_sign"], summary["n_discoveries_tested"]])
    assert n_false <= stats.binom.ppf(0.999, 120, 0.05)
    same, found = np.sum(signs, axis=0)
    assert stats.binomtest(int(same), int(found)).pvalue > 0.001


def test_real_effects_replicate_and_chosen_ones_shrink():
    effects = np.random.default_rng(1).normal(0, 0.08, 4000)
    summary = replicate(*simulated(2, effects)).summary
    slope = summary["slope"]
    assert slope["discoveries"] < 0.95 and slope["all_pairs"] < 0.9
    assert slope["all_pairs_without_noise"] == pytest.approx(1.0, abs=0.03)
    assert slope["reliability_of_z_a"] == pytest.approx(0.0064 / (0.0064 + 1 / 799), abs=0.02)
    assert summary["bland_altman"]["share_within_limits"] == pytest.approx(0.95, abs=0.015)
    assert summary["same_sign"]["share"] > 0.99 and summary["pi1"] > 0.9
    assert "tests are few" in summary["pi1_notes"][0]
    assert abs(summary["bland_altman"]["mean_difference"]) < 0.005


def test_pairs_are_matched_by_name_whatever_their_order():
    effects = np.random.default_rng(3).normal(0, 0.1, 300)
    first, second = simulated(4, effects)
    expected = replicate(first, second)
    shuffled = as_categories(second.sample(frac=1, random_state=5))
    other = replicate(as_categories(first), shuffled)
    assert other.summary == expected.summary
    np.testing.assert_array_equal(other.table["replicated"], expected.table["replicated"])


def test_untested_pairs_are_no_discoveries_and_missing_ones_are_named():
    first = association_table([0.3, np.nan, 0.3], 500, nidp=["a", "b", "c"])
    second = association_table([0.3, 0.3], 500, nidp=["b", "a"])
    result = replicate(first, second)
    assert result.table["nidp"].tolist() == ["a", "c"]
    assert result.table["reason"].tolist() == ["", "not_in_replication"]
    assert result.summary["n_discoveries"] == 2 and result.summary["n_discoveries_tested"] == 1
    with pytest.raises(ValueError, match="1 rows occur twice"):
        replicate(first, pd.concat([second, second.iloc[:1]]))


def test_no_discovery_is_an_answer():
    first, second = simulated(0, np.zeros(20))
    first["nlog10p_bonf"] = 0.0
    summary = replicate(first, second).summary
    assert summary["n_discoveries"] == summary["n_replicated"] == 0
    assert summary["one_sided_threshold_nlog10p"] is None and summary["pi1"] is None
    assert summary["same_sign"] == {"share": None, "ci_lo": None, "ci_hi": None}
    nothing = replicate(first.iloc[:0], second).summary
    assert nothing["n_pairs_compared"] == 0
    assert nothing["bland_altman"]["mean_difference"] is None
    json.dumps([summary, nothing], allow_nan=False)


IDS = [f"{1000 + k}" for k in range(101)]


def test_halves_depend_on_ids_and_words_alone():
    families = [f"f{k // 3}" if k < 40 else "" for k in range(101)]
    mask = random_halves(IDS, families, 7, "halves")
    order = np.random.default_rng(0).permutation(101)
    again = random_halves([IDS[k] for k in order], [families[k] for k in order], 7, "halves")
    np.testing.assert_array_equal(mask[order], again)
    assert (mask != random_halves(IDS, families, 8, "halves")).any()
    renamed = [f"other {family[::-1]}" if family else None for family in families]
    np.testing.assert_array_equal(mask, random_halves(IDS, renamed, 7, "halves"))
    assert (random_halves(IDS, None, 7) == random_halves(IDS, [""] * 101, 7)).all()


@given(st.lists(st.integers(0, 30), min_size=1, max_size=80), st.integers(0, 99))
def test_families_stay_together_and_single_subjects_level_the_halves(families, seed):
    names = [f"family{k}" if k else None for k in families]
    ids = [f"s{k}" for k in range(len(names))]
    mask = random_halves(ids, names, seed)
    assert families_on_both_sides(mask, ~mask, names) == 0
    sizes = pd.Series(names).value_counts()
    largest = int(sizes.max()) if len(sizes) else 1
    difference = abs(2 * int(mask.sum()) - len(ids))
    assert difference <= max(largest, 1)
    if names.count(None) >= largest:
        assert difference == len(ids) % 2


@pytest.mark.parametrize("seed", range(10))
def test_large_families_are_dealt_out_first(seed):
    families = np.repeat([f"f{k}" for k in range(13)], 4).tolist() + [None] * 6
    mask = random_halves([f"s{k}" for k in range(58)], families, seed)
    assert mask.sum() == 29


def test_every_subject_is_as_likely_on_either_side():
    families = ["a"] * 4 + ["b"] * 2 + [""] * 15
    share = np.mean([random_halves(IDS[:21], families, seed) for seed in range(1000)], axis=0)
    assert np.abs(share - 0.5).max() < 4.5 * 0.5 / np.sqrt(1000)


def test_a_family_named_as_a_subject_is_not_that_subject():
    families = [IDS[1], "", IDS[1], np.nan]
    together = {tuple(random_halves(IDS[:4], families, seed)[[0, 2]]) for seed in range(30)}
    apart = {tuple(random_halves(IDS[:4], families, seed)[[0, 1]]) for seed in range(30)}
    assert together == {(True, True), (False, False)} and (True, False) in apart


def test_wrong_halves_are_refused():
    with pytest.raises(ValueError, match="1 subjects occur twice"):
        random_halves(["a", "b", "a"], None, 1)
    with pytest.raises(ValueError, match="2 families for 3 subjects"):
        random_halves(["a", "b", "c"], ["x", "y"], 1)
    for values, n in ((["x", "x"], 1), (["x", "y", "z"], 3), ([None, ""], 0)):
        with pytest.raises(UserError, match=f"column 'half' has {n} different values"):
            given_halves(pd.Series(values, name="half"))


GIVEN = [
    ([2, 10, 2, np.nan], [True, False, True, False], ("2.0", "10.0")),
    (["b", "a", "", None], [False, True, False, False], ("a", "b")),
    ([True, False, False], [False, True, True], ("False", "True")),
    ([3, "a", 3], [True, False, True], ("3", "a")),
]


@pytest.mark.parametrize(("values", "first", "names"), GIVEN)
def test_given_halves(values, first, names):
    halves = given_halves(pd.Series(values, name="half"))
    assert halves.discovery.tolist() == first and halves.names == names
    assert not (halves.discovery & halves.replication).any()
    in_neither = ~(halves.discovery | halves.replication)
    assert in_neither.tolist() == [v in ("", None) or v != v for v in values]
