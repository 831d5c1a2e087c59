"""Making a split: shares, strata, families, and the same seed the same split."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.splits import make_split
from datasets.subjects import subjects_hash
from utils.common.errors import UserError
from utils.common.randomness import generator

FRACTIONS = (0.6, 0.1, 0.3)


def people(n: int, seed: int, family_share: float = 0.0) -> pd.DataFrame:
    draw = generator("people", n, seed)
    in_family = draw.random(n) < family_share
    numbers = draw.integers(0, max(n // 4, 1), n)
    return pd.DataFrame(
        {
            "subject_id": [f"s{i:05d}" for i in range(n)],
            "age_years": draw.uniform(45, 82, n),
            "sex": draw.choice(["female", "male"], n),
            "family": [f"f{k}" if inside else "" for k, inside in zip(numbers, in_family)],
        }
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(n=st.integers(30, 400), seed=st.integers(0, 10_000), family_share=st.sampled_from([0, 0.4]))
def test_shares_strata_and_families(n, seed, family_share):
    table = people(n, seed, family_share)
    split = make_split(table, FRACTIONS, 5.0, seed)
    joined = split.merge(table, on="subject_id")
    assert sorted(split["subject_id"]) == sorted(table["subject_id"])
    families = joined[joined["family"] != ""].groupby("family")["split"].nunique()
    assert (families == 1).all()
    largest = (
        max(joined[joined["family"] != ""].groupby("family").size().max(), 1)
        if len(families)
        else 1
    )
    for name, share in zip(("train", "validation", "test"), FRACTIONS):
        assert abs((split["split"] == name).sum() - share * n) <= largest + 1
    if not family_share:  # each sex and age band is divided alike
        bands = joined.groupby(["sex", (joined["age_years"] // 5).astype(int)])
        for _, band in bands:
            for name, share in zip(("train", "validation", "test"), FRACTIONS):
                assert abs((band["split"] == name).sum() - share * len(band)) < 2.5


def test_same_seed_same_split_whatever_the_order_of_the_table():
    table = people(200, 1, 0.3)
    shuffled = table.sample(frac=1, random_state=1)
    first = make_split(table, FRACTIONS, 5.0, 4)
    assert first.equals(make_split(shuffled, FRACTIONS, 5.0, 4))
    other = make_split(table, FRACTIONS, 5.0, 5)
    assert not first.equals(other)
    pairs = first["split"] + ":" + first["subject_id"]
    assert subjects_hash(pairs) != subjects_hash(other["split"] + ":" + other["subject_id"])


def test_no_age_no_split_and_too_few_are_refused():
    table = people(30, 2)
    table.loc[:4, "age_years"] = np.nan
    split = make_split(table, FRACTIONS, 5.0, 0)
    assert len(split) == 25 and not set(table["subject_id"][:5]) & set(split["subject_id"])
    table.loc[2:, "age_years"] = np.nan
    with pytest.raises(UserError, match=r"0 subject\(s\) with an age: too few"):
        make_split(table, FRACTIONS, 5.0, 0)


def test_a_family_that_is_called_like_a_subject_is_not_that_subject():
    table = people(60, 3)
    table.loc[0, "family"] = "s00001"  # the id of the next subject, who has no family
    split = make_split(table, FRACTIONS, 5.0, 0).set_index("subject_id")["split"]
    alone = make_split(table.assign(family=""), FRACTIONS, 5.0, 0).set_index("subject_id")["split"]
    assert len(split) == len(alone) == 60
    counts = split.value_counts()
    assert counts.to_dict() == {"train": 36, "validation": 6, "test": 18}
