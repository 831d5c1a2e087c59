"""Codes of missing answers, and codings put in order."""

import numpy as np
import pandas as pd
import pytest

from utils.association.decoding import DecodingRules, decode_column
from utils.association.dictionary import NidpFacts
from utils.association.missing_codes import (
    Coding,
    is_code,
    is_text_code,
    parse_codes,
    parse_number_codes,
    recoded,
    ukb_codings,
)
from utils.common.errors import UserError


def values_of(series, kind="", codes=(), table_codes=(), coding="", recode=False):
    facts = NidpFacts(kind=kind, missing_codes=tuple(codes), coding=coding)
    out = decode_column("x", pd.Series(series), facts, DecodingRules(tuple(table_codes), recode))
    return out, out.values


def test_codes_are_read_from_text():
    assert parse_codes("-1, -3; 99|X") == ("-1", "-3", "99", "X")
    assert parse_number_codes("-1, -3, -818") == (-1.0, -3.0, -818.0)
    assert parse_codes("") == parse_number_codes(" ") == ()
    with pytest.raises(UserError, match="holds 'X', which is not a number"):
        parse_number_codes("-1, X")


def test_codes_of_the_table_reach_classes_alone():
    classes, x = values_of([0, 1, 2, -1, -3] * 4, table_codes=(-1.0, -3.0))
    assert (classes.kind, classes.n_missing_codes) == ("ordinal", 8)
    np.testing.assert_array_equal(x[:5], [0, 1, 2, np.nan, np.nan])
    temperature = np.r_[np.linspace(-5, 20, 26), -1.0]
    number, x = values_of(temperature, table_codes=(-1.0, -3.0))
    assert (number.kind, number.n_missing_codes) == ("continuous", 0)
    np.testing.assert_array_equal(x, temperature)


def test_kind_is_that_of_the_answers():
    out, x = values_of([1, 2, -1, -3], table_codes=(-1.0, -3.0))
    assert out.kind == "binary"
    np.testing.assert_array_equal(x, [0, 1, np.nan, np.nan])
    answers = [*range(10), -1, -3]  # ten answers are ordinal, twelve values would not be
    assert values_of(answers, table_codes=(-1.0, -3.0))[0].kind == "ordinal"
    assert values_of([*range(11), -1, -3], table_codes=(-1.0,))[0].kind == "continuous"


def test_told_continuous_keeps_the_codes_of_the_table():
    out, x = values_of([1, 2, -1], kind="continuous", table_codes=(-1.0,))
    np.testing.assert_array_equal(x, [1, 2, -1])
    assert values_of([1, 2, -1], kind="ordinal", table_codes=(-1.0,))[0].n_missing_codes == 1
    assert out.n_missing_codes == 0


def test_codes_of_the_dictionary_reach_every_kind():
    out, x = values_of(np.r_[np.arange(30.0), -818.0], codes=["-818"])
    assert (out.kind, out.n_missing_codes) == ("continuous", 1)
    assert np.isnan(x[-1]) and x[:-1].tolist() == list(range(30))
    text, x = values_of(["9", "X", "1", "2", "3"], codes=["9", "X"])
    assert (text.kind, text.n_missing_codes) == ("ordinal", 2)
    words, x = values_of(["a", "b", "E"], codes=["E"])
    assert (words.levels, words.n_missing_codes) == (("a", "b"), 1)
    days = ["1900-01-01", "2001-01-01", "2002-01-01", "2003-01-01"]
    dates, x = values_of(days, codes=["1900-01-01"])
    assert dates.n_missing_codes == 1
    np.testing.assert_array_equal(x, [np.nan, 2001, 2002, 2003])


def test_a_code_as_text_and_as_number_is_the_same():
    text = pd.Series(["-3", "-3.0", "3", None, "nan"], dtype="string")
    assert is_text_code(text, ["-3"]).tolist() == [True, True, False, False, False]
    assert is_text_code(text, []).tolist() == [False] * 5
    assert is_code(np.array([-3.0, np.nan, 3.0]), ["-3", "X", "nan"]).tolist() == [
        True,
        False,
        False,
    ]


# Facts of codings as the FMRIB configuration of FUNPACK 1.8.0 lists them.
@pytest.mark.parametrize(
    ("coding", "missing"),
    [
        ("13", ("-1", "-3")),
        ("17", ("-1",)),
        ("42", ("-313", "-818")),
        ("221", ("9", "X")),
        ("272", ("1900-01-01",)),
        ("514", ("-818", "-313", "-121")),
        ("1010", ("-11", "-13", "-21", "-23")),
        ("100291", ("-1", "-3")),
        ("100479", ("-1", "-3", "7")),
        ("100699", ("1", "99")),
    ],
)
def test_missing_codes_of_ukb_codings(coding, missing):
    assert ukb_codings()[coding].missing == missing


@pytest.mark.parametrize(
    ("coding", "before", "after"),
    [
        ("29", [0, 1, 9], [0, 1, 0]),
        ("487", [5, -1], [5, 31]),
        ("946", [2, -1001], [2, 0.5]),
        ("511", [3, 7, -999], [3, 7, 8]),
        ("530", [3, 7, -999], [3, 7, 2]),
        ("530", [0, 7, -999], [0, 7, 0]),
        ("18", [1, 2, 1], [2, 1, 2]),  # at once: nothing is exchanged back
        ("489", [9, 0, 1], [0, 1, 2]),
        ("100298", [3, -10], [3, 0.5]),
        ("100360", [1, 2, 3, np.nan], [3, 2, 1, np.nan]),
        ("511", [-999.0], [np.nan]),  # nothing to be above of
        ("13", [4, 5], [4, 5]),
    ],
)
def test_recoding(coding, before, after):
    np.testing.assert_array_equal(
        recoded(np.array(before, dtype=float), ukb_codings()[coding]), after
    )


def test_recoding_is_asked_for():
    assert values_of([1, 2, 3, -10], coding="100298")[1].tolist() == [1, 2, 3, -10]
    assert values_of([1, 2, 3, -10], coding="100298", recode=True)[1].tolist() == [1, 2, 3, 0.5]
    x = np.array([1.0, 2.0])
    assert recoded(x, Coding()) is x


def test_every_coding_of_the_table_is_whole():
    assert len(ukb_codings()) > 300
    for coding in ukb_codings().values():
        for raw, new in coding.recoded:
            assert np.isfinite(raw) and (new in ("above", "below") or np.isfinite(float(new)))
