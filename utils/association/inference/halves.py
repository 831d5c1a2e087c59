"""Two disjoint sets of subjects, one to discover and one to replicate: drawn at random, or given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.common.errors import UserError
from utils.common.randomness import generator


def random_halves(
    subject_ids: Sequence[str], families: Sequence[object] | None, *words: int | str
) -> NDArray[np.bool_]:
    """Which subjects discover; the others replicate.

    Depends on the ids, who belongs together and the words (seed words of `utils.common.randomness`), not on the order
    of the subjects nor on how families are called. A family stays on one side. Families are dealt out from the largest
    to the single subjects, each to the side that is smaller so far, so the halves differ by at most one wherever single
    subjects can level them.

    Parameters
    ----------
    subject_ids : (S,) text
    families : (S,) or None
        A name for each subject's family; missing or empty: a family of one. None: nobody is related.
    words : int or text
        What the draw is a function of, e.g. 7, "halves".

    Returns
    -------
    (S,) bool

    Raises
    ------
    ValueError
        A subject occurs twice, or there are not as many families as subjects.
    """
    ids = np.array([str(subject) for subject in subject_ids], dtype=object)
    if len(set(ids)) < len(ids):
        raise ValueError(
            f"{len(ids) - len(set(ids))} subjects occur twice among those to be halved"
        )
    units, unit_of = np.unique(_unit_names(ids, families), return_inverse=True)
    sizes = np.bincount(unit_of, minlength=len(units))
    draws = generator(*words, "halves of subjects")
    order = draws.permutation(len(units))
    order = order[np.argsort(-sizes[order], kind="stable")]
    ties = draws.random(len(units)) < 0.5
    discovers = np.zeros(len(units), dtype=bool)
    lead = 0  # discovering minus replicating subjects so far
    for unit in order:
        discovers[unit] = lead < 0 or (lead == 0 and ties[unit])
        lead += sizes[unit] if discovers[unit] else -sizes[unit]
    return discovers[unit_of]


def _unit_names(ids: NDArray, families: Sequence[object] | None) -> NDArray[np.str_]:
    """The first id of each subject's family, its own where it has none."""
    if families is None:
        return ids.astype(str)
    given, own = pd.Series(list(families), dtype=object), pd.Series(ids, dtype=object)
    if len(given) != len(ids):
        raise ValueError(f"{len(given)} families for {len(ids)} subjects")
    known = _is_known(given)
    first = own[known].groupby(given[known].astype(str)).transform("min")
    return own.where(~known, first).to_numpy(dtype=object).astype(str)


def _is_known(families: pd.Series) -> pd.Series:
    return families.notna() & (families.astype(str).str.strip() != "")


@dataclass(frozen=True)
class GivenHalves:
    """discovery, replication: (S,) bool, disjoint; subjects without a value are in neither. names: the two values."""

    discovery: NDArray[np.bool_]
    replication: NDArray[np.bool_]
    names: tuple[str, str]


def given_halves(column: pd.Series) -> GivenHalves:
    """The two sets of subjects that a two-valued column tells apart; the first value in order discovers.

    Raises
    ------
    UserError
        The column has not exactly two values.
    """
    present = _is_known(column)
    values = pd.unique(column[present])
    if len(values) != 2:
        raise UserError(
            f"column {column.name!r} has {len(values)} different values; discovery and replication need one with "
            "exactly two, and the first of them (in order) discovers."
        )
    try:
        first, second = sorted(values)
    except TypeError:  # a number and a text
        first, second = sorted(values, key=str)
    return GivenHalves(
        (present & (column == first)).to_numpy(dtype=bool),
        (present & (column == second)).to_numpy(dtype=bool),
        (str(first), str(second)),
    )


def families_on_both_sides(
    discovery: NDArray[np.bool_], replication: NDArray[np.bool_], families: Sequence[object]
) -> int:
    """How many families have members on both sides; such a replication is partly of the same genes and homes."""
    given = pd.Series(list(families), dtype=object)
    known = _is_known(given).to_numpy()
    first = set(given[known & discovery].astype(str))
    return len(first & set(given[known & replication].astype(str)))
