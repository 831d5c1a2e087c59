"""Predictors other than deltas: a table with subject, age, sex and a column a predictor, tested like deltas."""

from __future__ import annotations

import numpy as np
import pandas as pd

from utils.association.deltas_table import (
    AGE_NAMES,
    COLUMNS,
    SEX_COLUMNS,
    DeltasTable,
    as_numbers,
    complete_rows,
    read_ages,
)
from utils.association.recognition import SUBJECT_NAMES, as_subject_ids, find_column, read_sex
from utils.common.errors import UserError


def recognise_predictors(
    table: pd.DataFrame, source: str = "the table of predictors"
) -> DeltasTable:
    """Every column besides subject, age and sex is a predictor (latent phenotypes, scores of another program).

    Parameters
    ----------
    table : DataFrame
        One row a subject.
    source : str
        What to call the table in messages.

    Returns
    -------
    DeltasTable
        `contrast` is the name of the predictor, `delta_years` its value in its own unit.

    Raises
    ------
    UserError
        No subject, no age, no predictor, a predictor that is not numbers, or a subject on several rows.
    """
    subject = find_column(table.columns, SUBJECT_NAMES)
    age = find_column(table.columns, AGE_NAMES)
    sex = find_column(table.columns, SEX_COLUMNS)
    for found, what, names in ((subject, "subject", SUBJECT_NAMES), (age, "age", AGE_NAMES)):
        if found is None:
            raise UserError(
                f"{source}: no column was recognised as the {what}; names accepted: {', '.join(names)}."
            )
    predictors = [str(name) for name in table.columns if name not in (subject, age, sex)]
    if not predictors:
        raise UserError(f"{source}: holds no column besides subject, age and sex.")
    notes: list[str] = []
    rows = pd.DataFrame({"subject_id": as_subject_ids(table[str(subject)]), "sex": "both"})
    if sex:
        told, said = read_sex(table[sex])
        rows["sex"] = told.to_numpy()
        notes.extend([said] if said else [])
    rows["age_years"] = read_ages(table[str(age)], source, notes)
    values = np.column_stack([as_numbers(table[name], source) for name in predictors])
    long = rows.loc[rows.index.repeat(len(predictors))].reset_index(drop=True)
    long["contrast"] = np.tile(np.array(predictors, dtype=object), len(rows))
    long["delta_years"] = values.ravel()
    recognised = {
        "subject_id": str(subject), "age_years": str(age), "sex": sex or "not in the table",
        "predictors": f"{len(predictors)} columns",
    }  # fmt: skip
    return DeltasTable(complete_rows(long[list(COLUMNS)], notes, source), recognised, tuple(notes))
