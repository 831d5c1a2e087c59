"""Who is analysed: the subjects that deltas, nIDPs and confounds have in common, with counts of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.association.recognition import by_subject, describe_id_form
from utils.common.errors import UserError


@dataclass(frozen=True)
class MatchedSubjects:
    """The common subjects in one order (sorted ids).

    deltas: their rows. nidp_rows: where each of them stands in the table of nIDPs (S,). confounds: indexed by subject,
    or None. counts: subjects in each table, in common, and in one alone.
    """

    subject_ids: list[str]
    deltas: pd.DataFrame
    nidp_rows: NDArray[np.intp]
    confounds: pd.DataFrame | None
    counts: dict[str, int]

    def only(self, chosen: NDArray[np.bool_]) -> MatchedSubjects:
        """Some of the subjects (S,)."""
        ids = [identifier for identifier, kept in zip(self.subject_ids, chosen) if kept]
        return MatchedSubjects(
            ids,
            self.deltas[self.deltas["subject_id"].isin(set(ids))].reset_index(drop=True),
            self.nidp_rows[chosen],
            None if self.confounds is None else self.confounds[chosen],
            {**self.counts, "analysed": len(ids)},
        )


def match_subjects(
    deltas: pd.DataFrame, nidp_ids: Sequence[str], confounds: pd.DataFrame | None
) -> MatchedSubjects:
    """Keep the subjects that all given tables have.

    Parameters
    ----------
    deltas : DataFrame
        subject_id, sex, contrast, age_years, delta_years.
    nidp_ids : sequence of str
        The subjects of the table of nIDPs, each once, in its order.
    confounds : DataFrame or None
        A row a subject, with a subject column.

    Raises
    ------
    UserError
        No subject in common: counts and the forms of the ids are given, never an id.
    """
    confounds = None if confounds is None else by_subject(confounds, "confounds")
    of_deltas, of_nidps = set(deltas["subject_id"]), set(nidp_ids)
    common = of_deltas & of_nidps
    in_both = len(common)
    counts = {
        "with_delta": len(of_deltas),
        "with_nidps": len(of_nidps),
        "with_delta_and_nidps": in_both,
        "with_delta_without_nidps": len(of_deltas - of_nidps),
        "with_nidps_without_delta": len(of_nidps - of_deltas),
    }
    if confounds is not None:
        common &= set(confounds.index)
        counts["with_confounds"] = len(confounds)
        counts["left_out_without_confounds"] = in_both - len(common)
    counts["analysed"] = len(common)
    if not common:
        raise UserError(_nothing_in_common(of_deltas, nidp_ids, confounds, in_both))
    order = sorted(common)
    return MatchedSubjects(
        order,
        deltas[deltas["subject_id"].isin(common)].reset_index(drop=True),
        pd.Index(nidp_ids).get_indexer(order),
        None if confounds is None else confounds.loc[order],
        counts,
    )


def _nothing_in_common(
    of_deltas: set[str], nidp_ids: Sequence[str], confounds: pd.DataFrame | None, in_both: int
) -> str:
    """The message of an empty match: how many, which form of ids, what to try."""
    parts = [
        f"deltas: {len(of_deltas)} subjects ({describe_id_form(of_deltas)})",
        f"nIDPs: {len(nidp_ids)} subjects ({describe_id_form(nidp_ids)})",
    ]
    advice = "check that both come from the same study and the same pseudonyms"
    stripped = {identifier.lstrip("0") for identifier in of_deltas}
    if in_both:
        assert confounds is not None
        parts.append(f"confounds: {len(confounds)} subjects ({describe_id_form(confounds.index)})")
        advice = (
            f"{in_both} subjects have deltas and nIDPs; none of them is in the table of confounds"
        )
    elif stripped & {identifier.lstrip("0") for identifier in nidp_ids}:
        advice = (
            "they match without leading zeros: one table lost them (read as numbers); restore them"
        )
    return f"no subject is in all tables. {'; '.join(parts)}. What to do: {advice}."
