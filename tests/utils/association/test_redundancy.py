"""Redundant nIDPs: FUNPACK's own verdicts, every limit at its edge, and a search that misses no pair."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import utils.association.redundancy_candidates as candidates
from utils.association.decoding import DecodedColumn
from utils.association.phenotypes import PhenotypeRules, prepare_phenotypes, why_untestable
from utils.association.redundancy import RedundancyRules, find_redundant
from utils.association.redundancy_candidates import Sketches

REFERENCE = json.loads(
    (Path(__file__).parents[2] / "reference" / "funpack_4_0_1.json").read_text(encoding="utf-8")
)
ALL_COLUMNS = PhenotypeRules(minimum_n=2, minimum_class=1, dominance=1.1)


def found(columns, rules=None, phenotypes=ALL_COLUMNS, block=4, memory_bytes=2_000_000_000):
    """The redundancy of columns of values that are named 0, 1, ..."""
    decoded = [
        DecodedColumn(str(k), "continuous", np.array(x, dtype=float)) for k, x in enumerate(columns)
    ]
    blocks = [decoded[start : start + block] for start in range(0, len(decoded), block)]
    n = len(decoded[0].values)
    return find_redundant(
        blocks, lambda part: list(part), n, phenotypes, rules or RedundancyRules(), memory_bytes
    )


def representatives(redundancy):
    return {name: found.represented_by for name, found in redundancy.represented.items()}


def brute_force(columns, limit):
    """All pairs with |r| > limit over at least 51 subjects that have both, by NumPy."""
    pairs = set()
    for i in range(len(columns)):
        for j in range(i + 1, len(columns)):
            both = np.isfinite(columns[i]) & np.isfinite(columns[j])
            x, y = columns[i][both], columns[j][both]
            spread = both.sum() >= 51 and np.ptp(x) > 0 and np.ptp(y) > 0
            if spread and abs(np.corrcoef(x, y)[0, 1]) > limit:
                pairs.add((i, j))
    return pairs


@pytest.mark.parametrize("case", REFERENCE["redundancy"])
def test_what_funpack_drops(case):
    # duplicate > 1: that rule is ours. No chains in these tables, where the two differ on purpose.
    rules = RedundancyRules(duplicate=2.0)
    ours = representatives(found(case["columns"], rules))
    assert sorted([int(a), int(b)] for a, b in ours.items()) == case["dropped"]


def test_the_cases_say_something():
    dropped = [len(case["dropped"]) for case in REFERENCE["redundancy"]]
    assert min(dropped) < max(dropped) and sum(dropped) > 10


def alike(n, r, seed=0):
    """Two columns whose correlation is r to rounding."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    x = (x - x.mean()) / x.std()
    e = rng.normal(size=n)
    e -= e.mean() + x * (e @ x) / n
    e /= e.std()
    return x, r * x + np.sqrt(1 - r**2) * e


@pytest.mark.parametrize(
    ("r", "redundant"), [(0.9901, True), (0.9899, False), (-0.9901, True), (-0.9899, False)]
)
def test_limit_of_correlation(r, redundant):
    assert representatives(found(alike(400, r))) == ({"1": "0"} if redundant else {})


def with_missing(n, n_first, n_second, n_both):
    """Two equal rows of whole numbers with so many missing values each, and both."""
    x = np.tile(np.arange(10.0), n // 10)
    y = 2 * x + np.where(np.arange(n) % 7 == 0, 0.6, 0.0)  # r about 0.9994
    x[:n_first] = np.nan
    y[n_first - n_both : n_first - n_both + n_second] = np.nan
    return x, y


@pytest.mark.parametrize(
    ("n_both", "redundant"), [(40, True), (28, True), (27, False), (20, False)]
)
def test_limit_of_missingness(n_both, redundant):
    # phi = (400 n_both - 100^2) / (100 * 300); n_both = 40 gives 0.2, not above; so 41 is the first
    x, y = with_missing(400, 100, 100, n_both + 13)
    phi = np.corrcoef(np.isnan(x), np.isnan(y))[0, 1]
    assert bool(representatives(found([x, y]))) == redundant == (abs(phi) > 0.2)


def test_missing_apart_counts_as_missing_together():
    x, y = with_missing(400, 140, 140, 0)  # r of missingness -0.54, as FUNPACK takes its size
    assert representatives(found([x, y])) == {"1": "0"}


def test_duplicates_go_whatever_is_missing():
    rng = np.random.default_rng(2)
    x = rng.normal(size=500)
    y = 3 - 2 * x
    x[rng.random(500) < 0.3] = np.nan
    y[rng.random(500) < 0.4] = np.nan
    result = found([x, y])
    assert representatives(result) == {"1": "0"}
    assert abs(result.represented["1"].r_of_missingness) < 0.2
    assert representatives(found([x, y], RedundancyRules(duplicate=2.0))) == {}
    assert representatives(found([x, y], RedundancyRules.named("duplicates"))) == {"1": "0"}
    assert representatives(found(alike(400, 0.995), RedundancyRules.named("duplicates"))) == {}
    assert RedundancyRules.named("none") is None


def test_the_one_with_fewer_missing_represents_and_ties_go_by_order():
    x = np.random.default_rng(3).normal(size=200)
    less = np.where(np.arange(200) < 10, np.nan, x)
    assert representatives(found([less, x, x])) == {"0": "1", "2": "1"}


def test_what_represents_is_never_dropped():
    a, c = alike(1000, 0.975)
    middle = a + c
    middle = (middle - middle.mean()) / middle.std()  # r with each about 0.9937
    assert representatives(found([a, middle, c])) == {
        "1": "0"
    }  # c is left: nothing tested stands for it
    assert representatives(found([middle, a, c])) == {"1": "0", "2": "0"}


def test_too_few_subjects_in_common_say_nothing():
    x = np.random.default_rng(4).normal(size=300)
    first, second = x.copy(), x.copy()
    first[175:] = np.nan
    second[:125] = np.nan  # 50 have both
    assert representatives(found([first, second])) == {}
    first[175] = x[175]  # 51
    assert representatives(found([first, second])) == {"1": "0"}


def test_untestable_columns_represent_nothing():
    x = np.random.default_rng(5).normal(size=200)
    few = np.where(np.arange(200) < 50, x, np.nan)
    rules = PhenotypeRules()
    assert representatives(found([few, x], phenotypes=rules)) == {}
    more = np.where(np.arange(200) < 51, x, np.nan)
    assert representatives(found([more, x], phenotypes=rules)) == {"0": "1"}


def test_kinds_that_are_not_compared():
    x = np.arange(300.0) % 3
    columns = [
        DecodedColumn("a", "nominal", x, ("u", "v", "w")),
        DecodedColumn("b", "nominal", x, ("u", "v", "w")),
        DecodedColumn("c", "ordinal", x, reason="text_not_numbers"),
        DecodedColumn("d", "ordinal", x),
        DecodedColumn("41202-A00", "binary", (x > 0) * 1.0),
        DecodedColumn("41202-A01", "binary", (x > 0) * 1.0),
        DecodedColumn("41270-A01", "binary", (x > 0) * 1.0),
        DecodedColumn("e", "binary", (x == 0) * 1.0),
    ]
    result = find_redundant([columns], lambda b: b, 300, PhenotypeRules(), RedundancyRules())
    assert representatives(result) == {"e": "41270-A01"}


def noisy_table(rng, n, n_columns):
    """Columns in families: some nearly the same, some with outliers, codes or few present values."""
    base = rng.normal(size=(n_columns, n))
    for k in range(1, n_columns):
        if rng.random() < 0.6:
            scale = 10.0 ** rng.integers(-3, 4)
            noise = 10.0 ** rng.uniform(-3, 0)
            base[k] = scale * (base[rng.integers(k)] + noise * base[k]) + 100 * scale * rng.normal()
        if rng.random() < 0.2:
            base[k, rng.integers(n)] = 1e4 * rng.normal()
        if rng.random() < 0.2:
            base[k] = np.round(base[k])
        base[k, rng.random(n) < rng.choice([0.0, 0.1, 0.5, 0.9])] = np.nan
        if np.isfinite(base[k]).sum() < 2:
            base[k] = rng.normal(size=n)
    return base


@pytest.mark.parametrize("seed", range(6))
def test_the_search_misses_no_pair(seed, monkeypatch):
    monkeypatch.setattr(candidates, "SEARCHED_SUBJECTS", 60)
    monkeypatch.setattr(candidates, "COLUMNS_PER_PRODUCT", 16)
    table = noisy_table(np.random.default_rng(seed), 900, 40)
    sketches = Sketches(900)
    for k, x in enumerate(table):
        sketches.add(str(k), x)
    pairs = {(int(a), int(b)) for found in sketches.candidates(0.99, 51) for a, b, _ in found}
    exact = brute_force(table, 0.99)
    assert exact and exact <= pairs
    for found_pairs in sketches.candidates(0.99, 51):
        for a, b, shared in found_pairs:
            assert shared == (np.isfinite(table[a]) & np.isfinite(table[b])).sum()


def test_unrelated_columns_are_not_looked_at_twice():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(200, 8000))
    table[rng.random(table.shape) < 0.2] = np.nan
    sketches = Sketches(8000)
    for k, x in enumerate(table):
        sketches.add(str(k), x)
    assert sum(len(found) for found in sketches.candidates(0.99, 51)) == 0


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), block=st.integers(1, 30), chunk=st.integers(1, 30))
def test_blocks_and_memory_change_nothing(seed, block, chunk):
    table = noisy_table(np.random.default_rng(seed), 200, 20)
    one = found(table, block=20)
    other = found(table, block=block, memory_bytes=chunk * 2 * 8 * 200)
    assert one.table().equals(other.table())
    assert one.same_missing == other.same_missing


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_every_redundant_column_has_a_kept_one_for_it(seed):
    table = noisy_table(np.random.default_rng(seed), 200, 20)
    result = found(table)
    kept = [
        k
        for k in range(20)
        if str(k) not in result.represented
        and not why_untestable(table[k], "continuous", ALL_COLUMNS)
    ]
    for represented in result.represented.values():
        assert int(represented.represented_by) in kept
        assert abs(represented.r) > 0.99 and represented.n_shared >= 51
    pairs = brute_force(table, 0.99999)  # beyond both rules: no two kept ones are duplicates
    assert not [pair for pair in pairs if pair[0] in kept and pair[1] in kept]


def test_a_gross_outlier_that_the_other_has_not_hides_nothing():
    """It sets the scale of its column, on which all other values are the same in single precision."""
    x = np.random.default_rng(7).normal(1300, 10, 200)
    y = 0.01 * x
    y[0], x[0] = -5e6, np.nan
    assert set(found([x, y]).represented) == {"0"}


def test_reasons_and_indicators_of_missingness_in_the_log():
    x = np.random.default_rng(6).normal(size=200)
    x[:30] = np.nan
    columns = [
        DecodedColumn("a", "continuous", x),
        DecodedColumn("b", "continuous", 2 * x),
        DecodedColumn("c", "continuous", np.sin(9 * x)),
    ]
    result = find_redundant([columns], lambda b: b, 200, PhenotypeRules(), RedundancyRules())
    assert result.same_missing == {"b", "c"}
    rules = PhenotypeRules(missingness_indicators=True)
    out = prepare_phenotypes(result.applied(columns), np.arange(200), rules)
    assert [(fate.nidp, fate.kept, fate.reason) for fate in out.fates] == [
        ("a", True, ""),
        ("a:missing", True, ""),
        ("b", False, "redundant_with:a"),
        ("c", True, ""),
    ]
    table = result.table()
    assert table["nidp"].tolist() == ["b"] and table["n_shared"].tolist() == [170]


def test_tables_with_nothing_to_compare():
    assert find_redundant([], lambda b: b, 10, PhenotypeRules(), RedundancyRules()).table().empty
    assert found([np.full(60, np.nan), np.ones(60)]).represented == {}
