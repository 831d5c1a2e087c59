"""From terms to columns: powers and products of standardised numbers, categories by their levels, both by site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utils.association.confound_columns import ConfoundColumn
from utils.association.confound_formula import Factor, Term
from utils.association.site_wise import split_by_site
from utils.common.errors import UserError
from utils.common.text import shown

Array = NDArray[np.float64]
Labelled = tuple[str, Array]

AGE, AGE_SQUARED, SEX = Factor("age", 1, False), Factor("age", 2, False), Factor("sex", 1, False)
# More columns than this are no confounds but a slip in the formula (a product of two columns of many levels).
MOST_COLUMNS = 5_000
_NAMES = {
    frozenset({AGE}): "age",
    frozenset({AGE_SQUARED}): "age_squared",
    frozenset({SEX}): "sex",
    frozenset({SEX, AGE}): "sex_x_age",
    frozenset({SEX, AGE_SQUARED}): "sex_x_age_squared",
}


@dataclass(frozen=True)
class Variable:
    """What a name in the formula stands for.

    linear: columns of the name alone. parts: columns that go into powers and products where a category needs no more
    than its contrasts. full: the same where it needs all levels; for numbers as `parts`.
    """

    linear: tuple[Labelled, ...]
    parts: tuple[Labelled, ...]
    full: tuple[Labelled, ...]
    is_categorical: bool


def age_variable(age_years: Array) -> Variable:
    """Age with mean 0 and SD 1: the same space as raw age and its powers, without the collinearity."""
    column = (("age", standardised(age_years)),)
    return Variable(column, column, column, is_categorical=False)


def sex_variable(sex: NDArray) -> Variable:
    """Sex: the standardised indicator of men as contrast, both indicators where a product needs all levels."""
    male = (np.asarray(sex) == "male").astype(float)
    contrast = (("sex=male", standardised(male)),)
    return Variable(
        contrast, contrast, (("sex=female", 1.0 - male), ("sex=male", male)), is_categorical=True
    )


def table_variable(
    column: ConfoundColumn,
    sites: NDArray[np.intp] | None,
    site_names: Sequence[str],
    alone: bool = False,
) -> Variable:
    """A column of the table; with `sites` (S,) it is built once for each site; `alone`: in no power or product.

    Alone a number stays as it was given (the scan standardises); in powers and products it has mean 0 and SD 1, so
    that x and x^2 are not nearly collinear and a product does not depend on the units of its parts.
    """
    if column.is_categorical:
        contrasts = column.levels[1:]
        return Variable(contrasts, contrasts, column.levels, is_categorical=True)
    if sites is not None:
        by_site = split_by_site(column.values, sites)
        built = tuple(
            (f"{column.name}[{name}]", values) for name, values in zip(site_names, by_site)
        )
        return Variable(built, built, built, is_categorical=False)
    given = ((column.name, column.values),)
    scaled = given if alone else ((column.name, standardised(column.values)),)
    return Variable(given, scaled, scaled, is_categorical=False)


def term_columns(
    term: Term, variables: Mapping[Factor, Variable], model: set[frozenset[Factor]]
) -> list[Labelled]:
    """The columns of one term, with labels; those that are zero everywhere are left out.

    A category enters a product by its contrasts where the product without it is in the model (or is the constant),
    and by all its levels otherwise: the columns then span the same space as the product with all levels, whatever
    level is the reference.

    Parameters
    ----------
    term : Term
        A product of factors.
    variables : mapping
        What each factor of power 1 stands for.
    model : set of term keys
        All terms of the matrix.

    Raises
    ------
    UserError
        A power of a category, or too many columns.

    Source: the rule by which S and R code factors (Chambers and Hastie 1992, Statistical Models in S; not re-read).
    What is checked is that the spaces are those of patsy, for the formulas of the tests.
    """
    columns: list[Labelled] | None = None
    for factor in term.factors:
        variable = variables[Factor(factor.name, 1, factor.of_table)]
        if variable.is_categorical and factor.power > 1:
            raise UserError(
                f"confound terms: '{shown(str(factor))}' is a power of a categorical column, which has none; "
                "use the column itself, or declare it continuous."
            )
        rest = term.key - {factor}
        options = variable.parts if not rest or rest in model else variable.full
        if len(term.factors) == 1 and factor.power == 1:
            options = variable.linear
        if factor.power > 1:
            options = tuple((f"{name}^{factor.power}", v**factor.power) for name, v in options)
        columns = list(options) if columns is None else _products(columns, options, term)
    assert columns is not None  # a term has a factor
    if term.key in _NAMES:
        return [(_NAMES[term.key], values) for _, values in columns]
    if term.is_minimal:
        return columns
    return [(f"confound:{name}", values) for name, values in columns]


def _products(left: list[Labelled], right: tuple[Labelled, ...], term: Term) -> list[Labelled]:
    """Each column of one side with each of the other; levels that never meet give nothing."""
    out = []
    for first, a in left:
        for second, b in right:
            product = a * b
            if product.any():
                out.append((f"{first} x {second}", product))
                refuse_too_many_columns(len(out), f"the term '{shown(str(term))}' alone gives")
    return out


def refuse_too_many_columns(n_columns: int, what: str) -> None:
    """Stop before memory fills with the product of two columns of many levels."""
    if n_columns > MOST_COLUMNS:
        raise UserError(
            f"confound terms: {what} more than {MOST_COLUMNS:,} columns; products of categorical columns have a "
            "column for each pair of levels."
        )


def terms_without_margin(terms: Sequence[Term], model: set[frozenset[Factor]]) -> list[str]:
    """Notes about powers and products whose parts are not in the model: their test would depend on where 0 lies."""
    notes = []
    for term in terms:
        lacking = [part for part in _margins(term) if part.key not in model]
        if lacking:
            notes.append(
                f"confound term '{term}' stands without {', '.join(f'{part}' for part in lacking)}; products are "
                "of standardised columns"
            )
    return notes


def _margins(term: Term) -> list[Term]:
    """The terms with one factor taken away, or to the power below."""
    out = []
    for position, factor in enumerate(term.factors):
        before, after = term.factors[:position], term.factors[position + 1 :]
        if factor.power > 1:
            lower = Factor(factor.name, factor.power - 1, factor.of_table)
            out.append(Term((*before, lower, *after)))
        elif len(term.factors) > 1:
            out.append(Term((*before, *after)))
    return out


def standardised(values: Array) -> Array:
    """Mean 0 and SD 1; a constant column is only centred."""
    centred = np.asarray(values, dtype=float) - np.mean(values)
    sd = float(np.std(centred))
    return centred / sd if sd > 0 else centred
