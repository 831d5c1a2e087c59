"""Who may change places: within patterns and labels only, uniformly; one of a family; refusals."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.association.inference.exchangeability import exchangeable_rows, unrelated_rows
from utils.common.errors import UserError
from utils.common.randomness import generator


def complete(n_subjects: int, n_contrasts: int = 2) -> np.ndarray:
    return np.ones((n_subjects, n_contrasts), dtype=bool)


def test_without_labels_or_gaps_all_rows_are_one_block():
    rows = exchangeable_rows(complete(30))
    assert (rows.blocks == 0).all() and rows.notes == ()
    np.testing.assert_array_equal(np.sort(rows.order(generator(1))), np.arange(30))


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.integers(0, 5))
def test_an_order_moves_rows_only_within_their_block(labels, seed):
    labels = np.array(labels)
    if (np.bincount(labels) <= 1).all():
        return
    order = exchangeable_rows(complete(labels.size), labels).order(generator("order", seed))
    np.testing.assert_array_equal(labels[order], labels)
    np.testing.assert_array_equal(np.sort(order), np.arange(labels.size))


def test_orders_are_uniform():
    rows = exchangeable_rows(complete(6), ["a", "b", "a", "b", "a", "b"])
    counts = Counter(tuple(rows.order(generator("uniform", k))) for k in range(3600))
    assert len(counts) == 36  # 3! x 3!
    expected = 100.0
    statistic = sum((count - expected) ** 2 / expected for count in counts.values())
    assert statistic < 73  # 0.9998 quantile of chi-square with 35 degrees of freedom


def test_patterns_and_labels_intersect_and_rare_patterns_are_left_out():
    present = complete(100, 3)
    present[:40, 1] = False  # 40 subjects without the second
    present[40:50] = [True, False, False]  # 10 with the first only: rare
    present[50] = False  # no contrast at all
    labels = np.where(np.arange(100) % 2 == 0, "north", "south")
    rows = exchangeable_rows(present, labels)
    assert (rows.blocks[40:51] == -1).all() and len(set(rows.blocks)) == 5
    assert rows.notes == (
        "permutations: 10 subjects are left out of the permuted statistic: their patterns of present contrasts "
        "(1 in all) are each shared by fewer than 20 subjects",
    )
    order = rows.order(generator(3))
    np.testing.assert_array_equal(present[order], present)
    np.testing.assert_array_equal(labels[order], labels)
    np.testing.assert_array_equal(order[40:51], np.arange(40, 51))
    assert (order != np.arange(100)).sum() > 70


def test_a_pattern_shared_by_all_is_kept_however_few_there_are():
    assert (exchangeable_rows(complete(5)).blocks == 0).all()


def test_a_block_of_one_is_noted():
    rows = exchangeable_rows(complete(5), ["a", "a", "b", "a", "c"])
    assert "2 of 3 exchangeability blocks hold one subject each" in rows.notes[0]
    assert rows.order(generator(1))[2] == 2


def test_refusals_are_sentences():
    with pytest.raises(UserError, match="no subject could move: each of the 4 exchangeability"):
        exchangeable_rows(complete(4), ["a", "b", "c", "d"])
    rare = np.array([[True, False]] * 10 + [[False, True]] * 10)
    with pytest.raises(UserError, match="each of the 2 patterns of present contrasts is shared by"):
        exchangeable_rows(rare)
    with pytest.raises(UserError, match="2 of 4 subjects have no label"):
        exchangeable_rows(complete(4), ["a", None, "a", float("nan")])
    with pytest.raises(UserError, match="3 labels for 4 subjects"):
        exchangeable_rows(complete(4), ["a", "a", "b"])
    with pytest.raises(UserError, match="no subject could change places"):
        exchangeable_rows(np.zeros((4, 2), dtype=bool))


def test_a_label_is_needed_only_of_those_who_take_part():
    present = complete(5)
    present[4] = False
    assert (exchangeable_rows(present, ["a", "a", "a", "a", None]).blocks[:4] == 0).all()


@pytest.mark.parametrize(
    ("families", "n_present", "kept"),
    [
        (["f", "f", "g"], [3, 5, 1], [False, True, True]),
        (["f", "f", "f"], [5, 5, 5], [True, False, False]),  # ties: the first
        ([None, "f", "", "f", float("nan")], [1, 1, 1, 2, 1], [True, False, True, True, True]),
        ([7, 8, 7, 8], [0, 9, 1, 9], [False, True, True, False]),
        ([], [], []),
    ],
)
def test_one_of_each_family_with_the_most_values(families, n_present, kept):
    np.testing.assert_array_equal(
        unrelated_rows(families, np.array(n_present, dtype=int)), np.array(kept, dtype=bool)
    )


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), min_size=1, max_size=40))
def test_every_family_keeps_exactly_one(pairs):
    families, n_present = np.array(pairs).T
    kept = unrelated_rows(families, n_present)
    assert sorted(families[kept]) == sorted(set(families))
    for family in set(families):
        members = families == family
        assert n_present[kept & members][0] == n_present[members].max()


def test_families_of_another_length_are_refused():
    with pytest.raises(UserError, match="families: 2 labels for 3 subjects"):
        unrelated_rows(["a", "b"], np.array([1, 2, 3]))
