"""Who is analysed: the subjects that deltas, nIDPs and confounds have in common, with counts of the others."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from utils.association.recognition import by_subject, describe_id_form
from utils.common.errors import UserError


@dataclass(frozen=True)
class MatchedTables:
    """Tables of the common subjects, in one order (sorted ids): nidps and confounds are indexed by subject.

    counts: subjects in each table, in common, and in one alone.
    """

    deltas: pd.DataFrame
    nidps: pd.DataFrame
    confounds: pd.DataFrame | None
    counts: dict[str, int]


def match_subjects(
    deltas: pd.DataFrame, nidps: pd.DataFrame, confounds: pd.DataFrame | None
) -> MatchedTables:
    """Keep the subjects that all given tables have.

    Parameters
    ----------
    deltas : DataFrame
        subject_id, sex, contrast, age_years, delta_years.
    nidps, confounds : DataFrame
        A row a subject, with a subject column; confounds may be None.

    Raises
    ------
    UserError
        No subject in common: counts and the forms of the ids are given, never an id.
    """
    nidps = by_subject(nidps, "nIDPs")
    confounds = None if confounds is None else by_subject(confounds, "confounds")
    of_deltas, of_nidps = set(deltas["subject_id"]), set(nidps.index)
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
        raise UserError(_nothing_in_common(of_deltas, nidps, confounds, in_both))
    order = sorted(common)
    return MatchedTables(
        deltas[deltas["subject_id"].isin(common)].reset_index(drop=True),
        nidps.loc[order],
        None if confounds is None else confounds.loc[order],
        counts,
    )


def _nothing_in_common(
    of_deltas: set[str], nidps: pd.DataFrame, confounds: pd.DataFrame | None, in_both: int
) -> str:
    """The message of an empty match: how many, which form of ids, what to try."""
    parts = [
        f"deltas: {len(of_deltas)} subjects ({describe_id_form(of_deltas)})",
        f"nIDPs: {len(nidps)} subjects ({describe_id_form(nidps.index)})",
    ]
    advice = "check that both come from the same study and the same pseudonyms"
    stripped = {identifier.lstrip("0") for identifier in of_deltas}
    if in_both:
        assert confounds is not None
        parts.append(f"confounds: {len(confounds)} subjects ({describe_id_form(confounds.index)})")
        advice = (
            f"{in_both} subjects have deltas and nIDPs; none of them is in the table of confounds"
        )
    elif stripped & {identifier.lstrip("0") for identifier in nidps.index}:
        advice = (
            "they match without leading zeros: one table lost them (read as numbers); restore them"
        )
    return f"no subject is in all tables. {'; '.join(parts)}. What to do: {advice}."
