"""The confound matrix Z: age and sex terms, and the terms of the user's table.

What is done to a column (filled, coded, replaced, dropped) is said in the notes, by column.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.association.confound_columns import ConfoundColumn, read_column, refuse_unusable
from utils.association.confound_formula import Factor, Term
from utils.association.confound_reduction import advise, principal_components, rank_of
from utils.association.confound_rules import ConfoundRules
from utils.association.confound_selection import (
    distinct_terms,
    requested_terms,
    site_wise_names,
    subject_terms,
    table_names,
    with_squares,
)
from utils.association.confound_terms import (
    AGE,
    AGE_SQUARED,
    SEX,
    Labelled,
    Variable,
    age_variable,
    refuse_too_many_columns,
    sex_variable,
    table_variable,
    term_columns,
    terms_without_margin,
)
from utils.common.errors import UserError
from utils.common.text import listed

__all__ = ["ConfoundMatrix", "ConfoundRules", "build_confounds"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ConfoundMatrix:
    """Z of one analysis: values (S, K) complete, without the constant; names of its columns; notes.

    minimal: which columns are age and sex terms, for the same analysis with the fewest confounds beside the full one.
    rank: dimensions spanned beside the constant; less than K where columns repeat others, which the scan allows.
    n_columns_read: columns of the user's table among the terms. n_before_reduction: K before principal components.
    """

    values: Array
    names: tuple[str, ...]
    notes: tuple[str, ...]
    minimal: tuple[int, ...] = ()
    rank: int = 0
    n_columns_read: int = 0
    n_before_reduction: int = 0

    @property
    def minimal_values(self) -> Array:
        """(S, M): age and sex terms alone."""
        return self.values[:, list(self.minimal)]


def build_confounds(
    age_years: Array,
    sex: NDArray | None,
    table: pd.DataFrame | None,
    rules: ConfoundRules,
    one_sex: bool = False,
) -> ConfoundMatrix:
    """Z for one analysis.

    Age and age squared are in Z unless the rules say otherwise: a linear age-bias correction of the delta then cannot
    change an association. They are built from age with mean 0 and SD 1 (the same space as raw age and its square,
    without the collinearity). With `sex`, sex, sex x age and sex x age squared are added. A confound is filled with
    its median (of the site, where a site column is named; text: its most frequent level).

    Parameters
    ----------
    age_years : (S,) float
        Complete.
    sex : (S,) "female"/"male" or None
        Given when sexes are analysed together; None in a sex-specific analysis or where sex is not known.
    table : DataFrame or None
        The user's confounds, rows as in `age_years`.
    rules : ConfoundRules
        Terms, limits, reduction.
    one_sex : bool
        A sex-specific analysis: sex terms, and confounds that no subject of this sex has, are dropped with a note.

    Returns
    -------
    ConfoundMatrix
        Complete columns, with notes.

    Raises
    ------
    UserError
        A formula that is not understood, an unknown column, or confounds that are missing in too many subjects or are
        text with too many levels; all such columns are named.
    """
    table = pd.DataFrame(index=range(len(age_years))) if table is None else table
    table = table.set_axis([str(name) for name in table.columns], axis=1)
    if not table.columns.is_unique:
        repeated = table.columns[table.columns.duplicated()].unique()
        raise UserError(f"the table of confounds has columns twice: {listed(repeated)}.")
    terms, notes = requested_terms(list(table.columns), rules, one_sex)
    if sex is None and any(SEX in term.factors for term in terms):
        raise UserError(
            "confound terms: they name sex, but sex is not known for all analysed subjects; leave it out, or name a "
            "column of the table of confounds (in backticks if it is called sex)."
        )
    read = _read_columns(table, terms, rules, one_sex)
    empty = {name for name, column in read.items() if column.is_empty}
    notes += [note for name, column in read.items() if name not in empty for note in column.notes]
    notes += [f"confound '{name}': no value in this sex, dropped" for name in sorted(empty)]
    terms = [
        term for term in terms if not any(f.of_table and f.name in empty for f in term.factors)
    ]
    terms = with_squares(terms, read, rules)
    variables = _variables(age_years, sex, terms, read, rules)
    terms = distinct_terms([*subject_terms(rules.age_terms, sex is not None), *terms])
    notes += [*_notes_on_age(terms), *terms_without_margin(terms, {term.key for term in terms})]
    labelled, minimal, said = _columns_of(terms, variables, read, rules)
    return _as_matrix(
        len(age_years), labelled, minimal, len(table_names(terms)), [*notes, *said], rules
    )


def _read_columns(
    table: pd.DataFrame, terms: list[Term], rules: ConfoundRules, one_sex: bool
) -> dict[str, ConfoundColumn]:
    """The columns that the terms use, and the site, which fills the gaps of the others."""
    site = rules.site_column
    names = list(dict.fromkeys([*table_names(terms), *([site] if site else [])]))
    rules = replace(rules, categorical=(*rules.categorical, site)) if site else rules
    refuse_unusable(table[names], rules, one_sex)
    sites = None
    if site:
        sites, _ = _sites(read_column(site, table[site], rules))
    return {name: read_column(name, table[name], rules, sites) for name in names}


def _sites(column: ConfoundColumn) -> tuple[NDArray[np.intp] | None, list[str]]:
    """The number of each subject's site, and the names of the sites by falling size; None where nobody has one."""
    if not column.levels:
        return None, []
    numbers = np.argmax([values for _, values in column.levels], axis=0)
    return numbers, [name for name, _ in column.levels]


def _variables(
    age_years: Array,
    sex: NDArray | None,
    terms: list[Term],
    read: dict[str, ConfoundColumn],
    rules: ConfoundRules,
) -> dict[Factor, Variable]:
    """What every name of the terms stands for."""
    variables = {AGE: age_variable(age_years)}
    if sex is not None:
        variables[SEX] = sex_variable(sex)
    names = table_names(terms)
    sites: NDArray[np.intp] | None = None
    site_names: list[str] = []
    split: set[str] = set()
    if rules.site_wise:
        sites, site_names = _sites(read[rules.site_column])
        split = site_wise_names(names, read, rules)
    transformed = {f.name for t in terms for f in t.factors if len(t.factors) > 1 or f.power > 1}
    for name in names:
        variables[Factor(name)] = table_variable(
            read[name], sites if name in split else None, site_names, alone=name not in transformed
        )
    return variables


def _notes_on_age(terms: list[Term]) -> list[str]:
    """What an association means without age, or without its square, among the confounds."""
    model = {term.key for term in terms}
    if frozenset({AGE}) not in model:
        return [
            "age is not among the confounds: associations hold what delta and nIDP share through age, and depend on "
            "the bias correction of the delta"
        ]
    if frozenset({AGE_SQUARED}) not in model:
        return [
            "age squared is not among the confounds: a curved age bias of the delta stays in the associations"
        ]
    return []


def _columns_of(
    terms: list[Term],
    variables: dict[Factor, Variable],
    read: dict[str, ConfoundColumn],
    rules: ConfoundRules,
) -> tuple[list[Labelled], list[bool], list[str]]:
    """All columns of the terms with their labels, which of them are minimal, and notes."""
    model = {term.key for term in terms}
    labelled: list[Labelled] = []
    minimal: list[bool] = []
    notes: list[str] = []
    marked: set[str] = set()
    for term in terms:
        built = term_columns(term, variables, model)
        if not built and len(term.factors) > 1:
            notes.append(f"confound term '{term}': zero in this analysis, dropped")
        for name in table_names([term]):
            missing = read[name].missing
            if name not in marked and missing.sum() > rules.indicator_above * len(missing):
                built.append((f"confound:{name} is missing", missing.astype(float)))
            marked.add(name)
        labelled += built
        minimal += [term.is_minimal] * len(built)
        refuse_too_many_columns(len(labelled), "they give")
    return labelled, minimal, notes


def _as_matrix(
    n_subjects: int,
    labelled: list[Labelled],
    minimal: list[bool],
    n_columns_read: int,
    notes: list[str],
    rules: ConfoundRules,
) -> ConfoundMatrix:
    """Varying columns side by side, reduced where asked, with advice."""
    names = np.array(_distinct([name for name, _ in labelled]), dtype=object)
    always = np.array(minimal, dtype=bool)
    values = (
        np.column_stack([column for _, column in labelled])
        if labelled
        else np.empty((n_subjects, 0))
    )
    varying = np.ptp(values, axis=0) > 0 if values.size else np.zeros(values.shape[1], dtype=bool)
    notes += [f"{name}: constant in this analysis, dropped" for name in names[~varying]]
    values, names, always = values[:, varying], names[varying], always[varying]
    n_before = values.shape[1]
    reduced = rules.pca > 0.0 and not always.all()
    if reduced:
        scores = principal_components(values[:, ~always], rules.pca)
        notes.append(
            f"confounds: {int((~always).sum()):,} columns reduced to {scores.shape[1]:,} principal components "
            f"({rules.pca:.4g} of their variance); age and sex terms stay as they are"
        )
        components = [f"pc{k + 1}" for k in range(scores.shape[1])]
        values = np.column_stack([values[:, always], scores])
        names = np.array([*names[always], *components], dtype=object)
        always = np.arange(len(names)) < always.sum()
    rank = rank_of(values)
    if rank < len(names):
        notes.append(
            f"confounds: {len(names):,} columns span {rank:,} dimensions; columns that repeat others change nothing "
            "(degrees of freedom are counted by rank)"
        )
    advice = advise(n_subjects, rank, reduced=reduced)
    return ConfoundMatrix(
        values,
        tuple(names.tolist()),
        (*notes, advice) if advice else tuple(notes),
        tuple(np.flatnonzero(always).tolist()),
        rank,
        n_columns_read,
        n_before,
    )


def _distinct(names: list[str]) -> list[str]:
    """Labels, each once: one that occurs again bears a number."""
    out: list[str] = []
    taken = set(names)
    seen: set[str] = set()
    for name in names:
        label, number = name, 2
        while label in seen or (label != name and label in taken):
            label, number = f"{name} ({number})", number + 1
        seen.add(label)
        out.append(label)
    return out
