"""Families and blocks of exchangeability out of the table of confounds."""

import numpy as np
import pandas as pd
import pytest

from utils.association.confound_labels import take_labels
from utils.association.confound_rules import ConfoundRules
from utils.common.errors import UserError

TABLE = pd.DataFrame(
    {
        "motion": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
        "pedigree": ["F2", "F1", None, "F1", "", "F3"],
        "site": [11025, 11027, 11025, 11027, 11025, 11025],
    }
)


def test_families_are_numbered_and_who_has_none_is_one():
    rest, labels = take_labels(TABLE, family_column="pedigree")
    assert list(rest.columns) == ["motion", "site"]
    assert labels.blocks is None
    np.testing.assert_array_equal(labels.family, [1, 0, 3, 0, 4, 2])
    assert labels.notes == (
        "family column 'pedigree': 5 families of 6 subjects, 2 subjects without a label",
    )


def test_families_do_not_depend_on_the_order_of_the_rows():
    order = [3, 5, 0, 1]
    _, given = take_labels(TABLE.iloc[[0, 1, 3, 5]], "pedigree")
    _, shuffled = take_labels(TABLE.iloc[order], "pedigree")
    by_row = dict(zip([0, 1, 3, 5], given.family))
    np.testing.assert_array_equal(shuffled.family, [by_row[k] for k in order])


@pytest.mark.parametrize("dtype", ["int64", "float64", "Int64", "string", "category"])
def test_numbers_as_labels_whatever_their_type(dtype):
    _, labels = take_labels(TABLE.assign(site=TABLE["site"].astype(dtype)), "", "site")
    np.testing.assert_array_equal(labels.blocks, [0, 1, 0, 1, 0, 0])


def test_blocks_leave_the_confounds_unless_the_rules_name_them():
    rest, labels = take_labels(TABLE, "pedigree", "site")
    assert list(rest.columns) == ["motion"]
    assert "'site' gives the blocks of permutation and is no confound" in labels.notes[-1]
    for rules in (ConfoundRules(site_column="site"), ConfoundRules(terms="motion*site")):
        rest, labels = take_labels(TABLE, "pedigree", "site", rules)
        assert list(rest.columns) == ["motion", "site"] and len(labels.notes) == 1
        np.testing.assert_array_equal(labels.blocks, [0, 1, 0, 1, 0, 0])


def test_one_column_can_be_both():
    full = TABLE.assign(pedigree=["F1", "F1", "F2", "F2", "F3", "F3"])
    rest, labels = take_labels(full, "pedigree", "pedigree")
    assert "pedigree" not in rest
    np.testing.assert_array_equal(labels.family, labels.blocks)


def test_nothing_named_changes_nothing():
    rest, labels = take_labels(TABLE)
    assert rest is TABLE and labels.family is None and labels.blocks is None
    assert take_labels(None)[0] is None


@pytest.mark.parametrize(
    ("table", "family", "blocks", "message"),
    [
        (
            TABLE,
            "pedigre",
            "",
            r"family column: no such column .*'pedigre' \(did you mean pedigree\?\)",
        ),
        (TABLE, "", "Site", r"permutation blocks: no such column .*did you mean site"),
        (None, "pedigree", "", "family column: pedigree named, but there is no table of confounds"),
        (TABLE, "", "pedigree", "'pedigree' is missing for 2 of 6 analysed subjects"),
        (TABLE, "", "motion", "every subject has a value of its own in 'motion'"),
    ],
)
def test_labels_that_cannot_be_used(table, family, blocks, message):
    with pytest.raises(UserError, match=message):
        take_labels(table, family, blocks)
