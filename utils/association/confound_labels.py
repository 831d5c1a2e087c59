"""Columns of the confounds that are no confounds: the family of a subject, and the block within which to permute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.association.confound_columns import label_text
from utils.association.confound_formula import names_in, refuse_unknown
from utils.association.confound_rules import ConfoundRules
from utils.common.errors import UserError

Numbers = NDArray[np.intp]


@dataclass(frozen=True)
class SubjectLabels:
    """Numbers of each subject's family and block of exchangeability, (S,) from 0; None where no column is named.

    Subjects of one family stay on one side of a split. Subjects of one block may change places in a permutation.
    """

    family: Numbers | None
    blocks: Numbers | None
    notes: tuple[str, ...] = ()


def take_labels(
    table: pd.DataFrame | None,
    family_column: str = "",
    permutation_blocks: str = "",
    rules: ConfoundRules | None = None,
) -> tuple[pd.DataFrame | None, SubjectLabels]:
    """Read families and blocks, and take their columns out of the table before it becomes the confound matrix.

    A column that gives the blocks stays in the table as well where the rules name it as site column or in their terms:
    the scanner is often both.

    Parameters
    ----------
    table : DataFrame or None
        The user's confounds, a row an analysed subject.
    family_column, permutation_blocks : str
        Columns of the table; "" where there are none.
    rules : ConfoundRules, optional
        Which columns are confounds.

    Returns
    -------
    (DataFrame or None, SubjectLabels)
        The table without label columns, and the labels. A subject without family is a family of its own.

    Raises
    ------
    UserError
        No such column, a subject without block, or blocks of one subject each.
    """
    named = [name for name in (family_column, permutation_blocks) if name]
    if not named:
        return table, SubjectLabels(None, None)
    columns = [] if table is None else [str(name) for name in table.columns]
    refuse_unknown([family_column] if family_column else [], columns, "family column")
    refuse_unknown(
        [permutation_blocks] if permutation_blocks else [], columns, "permutation blocks"
    )
    assert table is not None  # a table without columns would have been refused
    by_name = dict(zip(columns, table.columns))
    notes: list[str] = []
    family = blocks = None
    if family_column:
        family = _families(table[by_name[family_column]], family_column, notes)
    if permutation_blocks:
        blocks = _blocks(table[by_name[permutation_blocks]], permutation_blocks)
    rules = rules or ConfoundRules()
    confounds = {rules.site_column, *names_in(rules.terms)}
    taken = [name for name in named if name == family_column or name not in confounds]
    if permutation_blocks in taken and permutation_blocks != family_column:
        notes.append(
            f"'{permutation_blocks}' gives the blocks of permutation and is no confound; name it as site column or in "
            "the terms to have both"
        )
    rest = table.drop(columns=[by_name[name] for name in dict.fromkeys(taken)])
    return rest, SubjectLabels(family, blocks, tuple(notes))


def _families(column: pd.Series, name: str, notes: list[str]) -> Numbers:
    """Numbers of the families; each subject without one is given a number that nobody else has."""
    numbers, missing = _numbered(column)
    n_named = int(numbers.max(initial=-1)) + 1
    numbers[missing] = n_named + np.arange(int(missing.sum()))
    n_families = n_named + int(missing.sum())
    said = f", {int(missing.sum())} subjects without a label" if missing.any() else ""
    notes.append(f"family column '{name}': {n_families} families of {len(numbers)} subjects{said}")
    return numbers


def _blocks(column: pd.Series, name: str) -> Numbers:
    numbers, missing = _numbered(column)
    if missing.any():
        raise UserError(
            f"permutation blocks: '{name}' is missing for {int(missing.sum())} of {len(numbers)} analysed subjects; "
            "a subject without a block can change places with nobody and with anybody. Fill the column."
        )
    if len(numbers) > 1 and int(numbers.max()) + 1 == len(numbers):
        raise UserError(
            f"permutation blocks: every subject has a value of its own in '{name}', so nothing could be permuted; "
            "subjects of one block share a value."
        )
    return numbers


def _numbered(column: pd.Series) -> tuple[Numbers, NDArray[np.bool_]]:
    """Numbers of the labels in their sorted order, whatever the order of the rows; -1 and True where missing."""
    text = label_text(column)
    missing = text.isna().to_numpy(dtype=bool)
    levels = sorted(set(text[~missing]))
    return pd.Categorical(text, categories=levels).codes.astype(np.intp), missing
