"""The formula of confounds: what is read, patsy's column spaces, what is refused and how, and arbitrary text."""

import re

import numpy as np
import pandas as pd
import patsy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.association.confound_formula import names_in, parse_formula
from utils.association.confounds import ConfoundRules, build_confounds
from utils.common.errors import UserError

COLUMNS = ["a", "b", "site", "head motion", "25741-2.0", "age"]


def read(text, columns=tuple(COLUMNS)):
    return [str(term) for term in parse_formula(text, columns)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", COLUMNS),
        (" . ", COLUMNS),
        ("a", ["a"]),
        ("+ a + b", ["a", "b"]),
        ("a+b+a", ["a", "b"]),
        ("a^2", ["a^2"]),
        ("a + a ^ 3", ["a", "a^3"]),
        ("a:b", ["a:b"]),
        ("a:b + b:a", ["a:b"]),
        ("a*b", ["a", "b", "a:b"]),
        ("a*b:site", ["a", "b:site", "a:b:site"]),
        ("a*b*site", ["a", "b", "site", "a:b", "a:site", "b:site", "a:b:site"]),
        ("a*b - a:b", ["a", "b"]),
        (". - `age`", COLUMNS[:-1]),
        ("- a", COLUMNS[1:]),
        ("-a - b + a:b", [*COLUMNS[2:], "a:b"]),
        ("`head motion`^2 + `25741-2.0`", ["head motion^2", "25741-2.0"]),
        ("age + sex:a", ["age", "sex:a"]),
        ("age:`age`", ["age:age"]),
        ("- a + a", [*COLUMNS[1:], "a"]),
    ],
)
def test_terms_of_a_formula(text, expected):
    assert read(text) == expected


def test_bare_age_is_the_subjects_and_quoted_age_the_tables():
    own, column = parse_formula("age + `age`", COLUMNS)
    assert own.is_minimal and not column.is_minimal and column.is_linear


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a +", "expected the name of a column at the end"),
        ("a + + b", r"expected the name of a column.* at character 5 \('\+'\)"),
        ("a b", r"expected '\+', '-', '\*' or ':' at character 3 \('b'\)"),
        ("(a + b):site", r"expected the name of a column.* at character 1 \('\('\)"),
        ("a ~ b", r"expected '\+', '-', '\*' or ':' at character 3 \('~'\)"),
        ("a**2", r"expected the name of a column.* at character 3"),
        ("1 + a", r"a number \(the constant is always there; names of digits need backticks\) at character 1"),
        ("a - 1", r"a number \(the constant is always there"),
        ("25741-2.0", "names of digits need backticks"),
        ("a^1", "expected a power from 2 to 4 at character 3"),
        ("a^5", "expected a power from 2 to 4"),
        ("a^b", "expected a power from 2 to 4"),
        ("a^", "expected a power from 2 to 4 at the end"),
        ("a^2^2", r"expected '\+', '-', '\*' or ':' at character 4"),
        ("`a", "a backtick that is not closed or holds nothing at character 1"),
        ("`` + a", "a backtick that is not closed or holds nothing"),
        (".:a", r"'\.' stands alone; write the columns out, before at character 2"),
        (".^2", r"'\.' stands alone"),
        ("a:.", r"expected the name of a column.* at character 3"),
        ("a:a", r"a column multiplied by itself \(its square is written name\^2\) at character 1"),
        ("a*a^2", "a column multiplied by itself"),
        ("a*b*site*`head motion`*age", "a product of more than 4 columns, at character 1"),
        ("sex^2", "sex has no powers"),
        ("a - b", "'b' is taken away but is not there; take away only what the formula has"),
        ("a - sex", "'sex' is taken away but is not there; age and sex are always there"),
        (". - age", "'age' is taken away but is not there; age and sex are always there"),
        ("- a - a", "'a' is taken away but is not there"),
        ("import('os')", "expected '\\+', '-', '\\*' or ':' at character 7"),
    ],
)  # fmt: skip
def test_what_is_not_in_the_grammar_is_said_with_its_place(text, message):
    with pytest.raises(UserError, match=message) as error:
        read(text)
    assert str(error.value).startswith(f"confound terms '{text.strip()}': ")


def test_unknown_names_are_all_named_with_the_nearest():
    with pytest.raises(UserError) as error:
        read("Head_Motion + mution:a", ["a", "head motion", "motion"])
    assert "'Head_Motion' (did you mean head motion?)" in str(error.value)
    assert "'mution' (did you mean motion?)" in str(error.value)
    assert "Columns: a, head motion, motion." in str(error.value)
    with pytest.raises(UserError, match="x named, but there is no table of confounds"):
        read("x", [])


@given(st.text(alphabet="ab.:*^+-`~()123 |agesx_é\n", max_size=30) | st.text(max_size=30))
@settings(max_examples=400, deadline=None)
def test_any_text_is_read_or_refused_with_a_sentence(text):
    try:
        terms = parse_formula(text, COLUMNS)
    except UserError as error:
        assert str(error).endswith(".") and "\n" not in str(error)
    else:
        assert len({term.key for term in terms}) == len(terms)
    names_in(text)


# --- the columns: patsy as the oracle ---------------------------------------------------------------------------------

RNG = np.random.default_rng(3)
N = 240


def _standard(x):
    return (x - x.mean()) / x.std()


DATA = {
    "a": _standard(RNG.normal(size=N)),
    "b": _standard(RNG.exponential(size=N)),
    "c": _standard(RNG.integers(0, 4, N).astype(float)),
    "f": RNG.choice(["u", "v", "w"], N, p=[0.5, 0.3, 0.2]).astype(object),
    "g": RNG.choice(["x", "y"], N).astype(object),
    "h": RNG.choice(["p", "q", "r", "s"], N).astype(object),
}
AGE = _standard(RNG.uniform(45, 82, N))
SEX = RNG.choice(["female", "male"], N).astype(object)


def projection(design):
    left, singular, _ = np.linalg.svd(design, full_matrices=False)
    basis = left[:, singular > 1e-9 * singular[0]]
    return basis @ basis.T, basis.shape[1]


def with_constant(values):
    return np.column_stack([np.ones(len(values)), values])


def patsy_design(formula, pooled, age):
    formula = re.sub(r"(\w+)\^(\d)", r"I(\1**\2)", formula)
    formula = re.sub(r"(^|\+ )\.", r"\1" + " + ".join(DATA), formula)
    ages = {"quadratic": ["age", "I(age**2)"], "linear": ["age"], "none": []}[age]
    terms = [*ages, *(["sex", *(f"sex:{a}" for a in ages)] if pooled else [])]
    whole = " + ".join([*terms, formula]) or "1"
    return np.asarray(patsy.dmatrix(whole, {**DATA, "age": AGE, "sex": SEX}))


FORMULAS = [
    "a", "a + b + c", "f", "f + g + h", "a^2", "a + a^2 + a^3", "b^4", "a:b", "a*b", "a*b*c", "a:f", "a*f", "f:g",
    "f*g", "f:h", "f*g*h", "f:g:h", "f + f:g", "g + f:g", "a + a:f", "f + a:f", "a:f + b:f", "a:f + a:g", "a*f + b*f",
    "a^2:f", "a^2*f", "a + a^2 + f + a:f + a^2:f", "a:b:f", "a*b*f - a:b:f", "f*g - f", "f*g*h - g:h",
    "age:f", "age*f", "age^2:f", "age*a", "age:a:f", "a*f + age^2*g", ".", ". + a^2 + a:f", ". - f",
]  # fmt: skip


@pytest.mark.parametrize("formula", FORMULAS)
def test_the_columns_span_what_patsys_span(formula):
    z = build_confounds(AGE, None, pd.DataFrame(DATA), ConfoundRules(terms=formula), one_sex=True)
    expected, rank = projection(patsy_design(formula, False, "quadratic"))
    found, found_rank = projection(with_constant(z.values))
    assert found_rank == rank == z.rank + 1
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("age", ["quadratic", "linear", "none"])
@pytest.mark.parametrize(
    "formula",
    ["a", "sex:a", "sex*a", "sex:f", "sex*f*a", "age:sex + a", "age^2 + a", "age^2:sex:g", "sex:a^2",
     "age + age^2 + f"],
)  # fmt: skip
def test_pooled_sexes_span_what_patsys_span(formula, age):
    rules = ConfoundRules(terms=formula, age_terms=age)
    z = build_confounds(AGE, SEX, pd.DataFrame(DATA), rules)
    expected, rank = projection(patsy_design(formula, True, age))
    found, found_rank = projection(with_constant(z.values))
    assert found_rank == rank == z.rank + 1
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_formula_in_one_sex_is_the_formula_without_sex():
    table = pd.DataFrame({**DATA, "gender": SEX})
    z = build_confounds(
        AGE, None, table, ConfoundRules(terms="sex:a + sex*f + gender:b"), one_sex=True
    )
    expected = build_confounds(AGE, None, table, ConfoundRules(terms="a + f + a + b"), one_sex=True)
    assert set(z.names) == set(expected.names)
    assert "confound 'sex': a sex term, dropped in a sex-specific analysis" in z.notes
    assert "confound term 'gender:b': 'b' in a sex-specific analysis" in z.notes


def test_columns_bear_the_names_of_what_they_are():
    rules = ConfoundRules(terms="a + b^2 + f + a:f + f:g + age:a + age:sex:a")
    z = build_confounds(AGE, SEX, pd.DataFrame(DATA), rules)
    for name in (
        "confound:a", "confound:b^2", "confound:f=v", "confound:a x f=w", "confound:f=u x g=x",
        "confound:age x a", "confound:age x sex=male x a",
    ):  # fmt: skip
        assert name in z.names or name.replace("g=x", "g=y") in z.names
    assert z.minimal == (0, 1, 2, 3, 4)
    assert "confound term 'b^2' stands without b; products are of standardised columns" in z.notes
    assert not any("'a:f'" in note for note in z.notes)  # a and f are both there


def test_a_square_does_not_depend_on_the_units():
    """Year 2016.3 and its square are collinear to seven digits; of the standardised year they are not."""
    year = 2014.0 + 6.0 * RNG.random(N)
    rules = ConfoundRules(terms="year + year^2")
    given, shifted = (
        build_confounds(AGE, None, pd.DataFrame({"year": y}), rules, one_sex=True)
        for y in (year, year * 365.25 - 7e5)
    )
    assert np.linalg.cond(given.values - given.values.mean(0)) < 1e3
    assert given.rank == shifted.rank == 4
    np.testing.assert_allclose(
        projection(with_constant(given.values))[0],
        projection(with_constant(shifted.values))[0],
        atol=1e-7,
    )


def test_terms_without_meaning_are_refused():
    with pytest.raises(UserError, match="'f\\^2' is a power of a categorical column"):
        build_confounds(AGE, None, pd.DataFrame(DATA), ConfoundRules(terms="a + f^2"), one_sex=True)
    with pytest.raises(UserError, match="sex is not known for all analysed subjects"):
        build_confounds(AGE, None, pd.DataFrame(DATA), ConfoundRules(terms="sex:a"))


def test_only_levels_that_meet_give_columns():
    nested = pd.DataFrame(
        {"scanner": np.arange(N) % 3, "software": [f"v{k % 12}" for k in range(N)]}
    )
    rules = ConfoundRules(terms="scanner:software", categorical=("scanner",))
    z = build_confounds(AGE, None, nested, rules, one_sex=True)
    assert sum(" x " in name for name in z.names) == 12  # of 36 pairs of levels
    assert z.rank == 2 + 11


def test_a_slip_with_many_levels_is_refused_before_memory_fills():
    n = 1200
    rng = np.random.default_rng(0)
    table = pd.DataFrame({name: [f"L{k}" for k in rng.integers(0, 90, n)] for name in "uvw"})
    with pytest.raises(
        UserError, match="they give more than 5,000 columns; products of categorical"
    ):
        rules = ConfoundRules(terms="u:v + v:w + u:w + u:v:w + age:u:v + age:v:w + age^3:u:v")
        build_confounds(rng.uniform(45, 82, n), None, table, rules, one_sex=True)


WORDS = [*"abfg.++-*::", "age", "sex", "`a`", "^2", "^3", "when", "gaps"]
TABLE = pd.DataFrame(DATA).iloc[:60].assign(
    when=pd.date_range("2016-01-01", periods=60),
    gaps=pd.array([None, 1, 2, 3, 4, 9] * 10, dtype="Int64"),
)  # fmt: skip


@given(
    st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join), st.sampled_from(["one", "pooled"]),
    st.sampled_from([(), ("*",)]), st.sampled_from([0.0, 0.5, 0.99]),
)  # fmt: skip
@settings(max_examples=250, deadline=None)
def test_any_sequence_of_words_gives_a_complete_matrix_or_a_sentence(text, sexes, star, pca):
    rules = ConfoundRules(terms=text, site_column="f", site_wise=star, squares=star, pca=pca)
    sex = None if sexes == "one" else SEX[:60]
    try:
        z = build_confounds(AGE[:60], sex, TABLE, rules, one_sex=sexes == "one")
    except UserError:
        return
    assert np.isfinite(z.values).all() and z.values.shape == (60, len(z.names))
    assert len(set(z.names)) == len(z.names) and 0 < z.rank <= len(z.names)
    assert {z.names[k] for k in z.minimal} >= {"age", "age_squared"}
    assert (np.ptp(z.values, axis=0) > 0).all()
