"""The nIDP dictionary in its two forms, and what follows for columns."""

import numpy as np
import pandas as pd
import pytest

from utils.association.decoding import DecodingRules, decode_columns
from utils.association.dictionary import (
    NidpDictionary,
    column_groups,
    may_be_redundant,
    read_dictionary,
)
from utils.common.errors import UserError

SHOWCASE = pd.DataFrame(
    {
        "Path": ["UK Biobank > Touchscreen > Alcohol", "UK Biobank > Ethnicity", "A > B", "A > C", "A"],
        "FieldID": [1558, 21000, 20117, 6150, 50],
        "Field": ["Alcohol intake", "Ethnic background", "Drinker", "Vascular", "Standing height"],
        "ValueType": [
            "Categorical single", "Categorical single", "Categorical single",
            "Categorical multiple", "Continuous",
        ],
        "Coding": [100402, 1001, 90, 100605, np.nan],
        "Units": [None, None, None, None, "cm"],
    }
)  # fmt: skip


def test_own_form():
    known = read_dictionary(
        pd.DataFrame(
            {
                "nidp": ["x", "y", "p31"],
                "name": ["An x", None, "Sex"],
                "category": ["A", "B", "C"],
                "kind": ["Continuous", None, "binary"],
                "missing_codes": ["-1, -3", -7.0, None],
                "unit": ["kg", "", ""],
            }
        )
    )
    x = known.facts("x")
    assert (x.name, x.category, x.kind, x.unit) == ("An x", "A", "continuous", "kg")
    assert x.missing_codes == ("-1", "-3") and known.facts("y").missing_codes == ("-7",)
    assert known.facts("31-0.0").name == "Sex"  # by its field
    assert known.facts("z") == read_dictionary(None).facts("x")


def test_showcase_form():
    known = read_dictionary(SHOWCASE)
    alcohol = known.facts("p1558_i2")
    assert (alcohol.name, alcohol.category) == ("Alcohol intake", "Alcohol")
    assert (alcohol.kind, alcohol.coding, alcohol.missing_codes) == (
        "categorical",
        "100402",
        ("-3",),
    )
    assert known.facts("f.21000.0.0").kind == "nominal"  # no order in its coding
    assert known.facts("6150-0.0").kind == "multiple"
    height = known.facts("50-2.0")
    assert (height.kind, height.unit, height.missing_codes) == ("", "cm", ())
    assert known.facts("6150-1").kind == ""  # the indicator of a code is not its field


@pytest.mark.parametrize(
    ("value_type", "kind"), [(22, "multiple"), (21, "categorical"), (31, ""), (11, "")]
)
def test_schema_numbers_of_value_types(value_type, kind):
    table = pd.DataFrame({"field_id": [7], "value_type": [value_type], "encoding_id": [0]})
    facts = read_dictionary(table).facts("p7")
    assert (facts.kind, facts.coding) == (kind, "")


def test_categorical_single_by_its_values():
    known = read_dictionary(SHOWCASE)
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "p1558_i0": rng.choice([1, 2, 3, 4, 5, 6, -3], 200),
            "p21000_i0": rng.choice([1001, 2001, 4], 200),
            "p20117_i0": rng.choice([0, 1], 200),
            "p20117_i1": rng.choice(np.arange(12), 200),
        }
    )
    out = {column.name: column for column in decode_columns(table, known)}
    assert [out[name].kind for name in table] == ["ordinal", "nominal", "binary", "nominal"]
    assert out["p1558_i0"].n_missing_codes == int((table["p1558_i0"] == -3).sum())
    assert out["p21000_i0"].levels == ("4", "1001", "2001")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"nidp": ["x"], "kind": ["real"]}, "kind 'real'; a kind is one of continuous"),
        ({"name": ["x"]}, "no column 'nidp'; columns found: name"),
        ({"FieldID": [3]}, "no column 'nidp'"),
    ],
)
def test_mistakes_are_named(table, message):
    with pytest.raises(UserError, match=message):
        read_dictionary(pd.DataFrame(table))


def test_columns_of_a_multiple_choice_field_stay_together():
    columns = [
        "a",
        "p20002_i0_a0",
        "b",
        "p20002_i1_a0",
        "41270-A00",
        "41270-A01",
        "6150-0.0",
        "p31",
    ]
    assert column_groups(columns, NidpDictionary()) == [
        ("a",),
        ("p20002_i0_a0", "p20002_i1_a0"),
        ("b",),
        ("41270-A00",),
        ("41270-A01",),
        ("6150-0.0",),
        ("p31",),
    ]
    told = read_dictionary(
        pd.DataFrame({"nidp": ["p99", "p20002"], "kind": ["multiple", "nominal"]})
    )
    assert column_groups(["p99_a0", "p99_a1"], told) == [("p99_a0", "p99_a1")]
    assert len(column_groups(["p20002_a0", "p20002_a1"], told)) == 2


def test_secondary_diagnoses_are_not_compared():
    assert not may_be_redundant("p41202") and not may_be_redundant("41204-A00")
    assert may_be_redundant("p41270") and may_be_redundant("bmi")


def choices(table, minimum_cases=1, codes=(), dictionary=None):
    rules = DecodingRules(missing_codes=codes, minimum_cases=minimum_cases)
    return decode_columns(pd.DataFrame(table), dictionary, rules)


def test_codes_become_indicators_across_visits_and_indices():
    field, *codes = choices(
        {
            "p20002_i0_a0": [1065, 1065, np.nan, 1111],
            "p20002_i0_a1": [1111, np.nan, np.nan, 1111],
            "p20002_i1_a0": [np.nan, 99999, np.nan, 1065],
        }
    )
    assert (field.name, field.kind, field.reason) == ("p20002", "multiple", "tested_as_indicators")
    np.testing.assert_array_equal(field.values, [2, 2, np.nan, 2])
    found = {column.name: column.values.tolist() for column in codes}
    assert found == {
        "p20002=1065": [1, 1, 0, 1],
        "p20002=1111": [1, 0, 0, 1],
        "p20002=99999": [0, 1, 0, 0],
    }
    assert {column.source for column in codes} == {"p20002"}


def test_rare_codes_get_no_indicator():
    cells = ["I10"] * 10 + ["E11"] * 9 + [None] * 5
    assert [c.name for c in choices({"41270-0.0": cells}, 10)] == ["p41270", "p41270=I10"]
    assert [c.name for c in choices({"41270-0.0": cells}, 11)] == ["p41270"]


@pytest.mark.parametrize("cell", ["I10|E11", '["I10","E11"]', "['I10', 'E11']"])
def test_several_codes_in_a_cell(cell):
    _, *codes = choices({"p41270": [cell, "I10", None]})
    found = {column.name: column.values.tolist() for column in codes}
    assert found == {"p41270=E11": [1, 0, 0], "p41270=I10": [1, 1, 0]}


def test_codes_of_missing_answers_are_no_choices():
    field, *codes = choices(
        {"6150-0.0": [1, -3, -7], "6150-0.1": [4, np.nan, np.nan]}, codes=(-3.0,)
    )
    assert [column.name for column in codes] == ["p6150=-7", "p6150=1", "p6150=4"]
    assert field.n_missing_codes == 1
    big, *_ = choices({"p20003_i0_a0": [1140861958.0, np.nan]})[1:]
    assert big.name == "p20003=1140861958"
    assert [c.name for c in choices({"p6150_i0": [np.nan, np.nan]})] == ["p6150"]


def test_indicators_of_funpack_are_read_as_they_are():
    (dated,) = choices({"41270-A00": [0.0, 2010.5, 2011.2, np.nan]})
    assert dated.kind == "binary"
    np.testing.assert_array_equal(dated.values, [0, 1, 1, np.nan])
    (given,) = choices({"20002-1065": [0, 1, 1, 0]})
    assert given.kind == "binary" and given.values.tolist() == [0, 1, 1, 0]
