"""Which terms an analysis has: the formula's, the site and the squares that the rules add, less what one sex lacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from utils.association.confound_columns import SEX_NAMES, ConfoundColumn
from utils.association.confound_formula import (
    Factor,
    Term,
    linear,
    names_in,
    parse_formula,
    refuse_unknown,
)
from utils.association.confound_rules import ALL_CONTINUOUS, ConfoundRules
from utils.association.confound_terms import AGE, AGE_SQUARED, SEX
from utils.association.recognition import normalised_name
from utils.common.errors import UserError
from utils.common.text import listed


def requested_terms(
    columns: list[str], rules: ConfoundRules, one_sex: bool
) -> tuple[list[Term], list[str]]:
    """Terms of the formula, named squares, the site where site-wise confounds need it, less sex in one sex; notes."""
    notes: list[str] = []
    for names, where in (
        ((rules.site_column,) if rules.site_column else (), "site column"),
        (rules.site_wise, "site-wise confounds"),
        (rules.squares, "squares of confounds"),
        (rules.continuous, "continuous confounds"),
    ):
        refuse_unknown([name for name in names if name != ALL_CONTINUOUS], columns, where)
    terms = list(parse_formula(rules.terms, columns))
    terms += [Term((Factor(name, 2),)) for name in rules.squares if name != ALL_CONTINUOUS]
    _refuse_site_wise_without_term(terms, rules)
    site = rules.site_column
    if rules.site_wise and linear(site) not in terms and site not in names_in(rules.terms):
        notes.append(f"confound '{site}': added, since site-wise confounds need their site")
        terms.append(linear(site))
    if one_sex:
        terms = _without_sex(terms, notes)
    return distinct_terms(terms), notes


def distinct_terms(terms: Iterable[Term]) -> list[Term]:
    """Each term once, where it first stands."""
    found: dict[frozenset[Factor], Term] = {}
    for term in terms:
        found.setdefault(term.key, term)
    return list(found.values())


def _refuse_site_wise_without_term(terms: list[Term], rules: ConfoundRules) -> None:
    absent = sorted({*rules.site_wise} - {ALL_CONTINUOUS, *table_names(terms)})
    if absent:
        raise UserError(
            f"site-wise confounds: {listed(absent)} not among the terms; add to the terms, or leave out."
        )


def _without_sex(terms: list[Term], notes: list[str]) -> list[Term]:
    """The terms in one sex: sex is the same for all, so that a product with it is the rest of the product."""
    kept = []
    for term in terms:
        rest = Term(tuple(factor for factor in term.factors if not _is_sex(factor)))
        if not rest.factors:
            notes.append(f"confound '{term}': a sex term, dropped in a sex-specific analysis")
        elif rest != term:
            notes.append(f"confound term '{term}': '{rest}' in a sex-specific analysis")
        if rest.factors:
            kept.append(rest)
    return kept


def _is_sex(factor: Factor) -> bool:
    return factor == SEX or (factor.of_table and normalised_name(factor.name) in SEX_NAMES)


def table_names(terms: Iterable[Term]) -> list[str]:
    """Columns of the table that the terms use, each once."""
    return list(dict.fromkeys(f.name for term in terms for f in term.factors if f.of_table))


def subject_terms(age_terms: str, pooled: bool) -> list[Term]:
    """Age, its square, and with pooled sexes sex and its products with them."""
    ages = {"quadratic": [AGE, AGE_SQUARED], "linear": [AGE], "none": []}[age_terms]
    terms = [Term((age,)) for age in ages]
    if pooled:
        terms += [Term((SEX,)), *(Term((SEX, age)) for age in ages)]
    return terms


def with_squares(
    terms: list[Term], read: Mapping[str, ConfoundColumn], rules: ConfoundRules
) -> list[Term]:
    """The terms and, where the rules ask for all squares, that of each linear column with more than two values."""
    if ALL_CONTINUOUS not in rules.squares:
        return terms
    names = [term.factors[0].name for term in terms if term.is_linear]
    squares = [Term((Factor(name, 2),)) for name in names if _has_square(read[name])]
    return distinct_terms([*terms, *squares])


def _has_square(column: ConfoundColumn) -> bool:
    values = column.values
    return not column.is_categorical and bool(
        ((values != values.min()) & (values != values.max())).any()
    )


def site_wise_names(
    names: list[str], read: Mapping[str, ConfoundColumn], rules: ConfoundRules
) -> set[str]:
    """Which of the terms' columns are built once for each site."""
    numbers = {name for name in names if not read[name].is_categorical}
    if ALL_CONTINUOUS in rules.site_wise:
        return numbers
    chosen = set(rules.site_wise) & set(names)
    categorical = sorted(chosen - numbers)
    if categorical:
        raise UserError(
            f"site-wise confounds: {listed(categorical)} categorical; write {rules.site_column}:{categorical[0]} in "
            "the terms instead."
        )
    return chosen
