"""The analyses of a study: for each sex, and each half of a replication, its subjects and what they are tested on.

Where two contrasts are compared, each sex has one more analysis: of these two, on the subjects who have both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.association.confounds import ConfoundMatrix, ConfoundRules, build_confounds
from utils.association.deltas_table import SEX_COLUMNS
from utils.association.matching import MatchedSubjects
from utils.association.recognition import find_column, read_sex
from utils.common.errors import UserError

DISCOVERY, REPLICATION, COMPARED = "discovery", "replication", "compared"


@dataclass(frozen=True)
class Analysis:
    """What one sex (or one half of it) is tested on.

    sex: 'female', 'male' or 'both'. half: '' for all subjects, else 'discovery' or 'replication', or 'compared' for
    two contrasts on the subjects who have both. subjects: positions among the matched subjects (S,). predictors:
    (S, C), NaN where missing. confounds: (S, K), complete. blocks: labels (S,) within which subjects may be exchanged,
    or None. sexes: of each subject where both are analysed together.
    """

    sex: str
    half: str
    subjects: NDArray[np.intp]
    contrasts: tuple[str, ...]
    age_years: NDArray[np.float64]
    predictors: NDArray[np.float64]
    confounds: ConfoundMatrix
    blocks: NDArray | None
    sexes: NDArray | None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For example 'female' or 'female_discovery'."""
        return f"{self.sex}_{self.half}" if self.half else self.sex

    def described(self) -> dict:
        """Counts and confounds, for the record."""
        n_by_contrast = np.isfinite(self.predictors).sum(axis=0).tolist()
        return {
            "sex": self.sex,
            "half": self.half,
            "n_subjects": len(self.subjects),
            "n_by_contrast": dict(zip(self.contrasts, n_by_contrast)),
            "confounds": list(self.confounds.names),
            "notes": [*self.notes, *self.confounds.notes],
        }


def plan_analyses(
    matched: MatchedSubjects,
    blocks: NDArray | None,
    halves: NDArray[np.intp] | None,
    sexes: str,
    rules: ConfoundRules,
) -> list[Analysis]:
    """The analyses by the sex in the table of deltas, or of all together, with the halves of each behind it.

    Parameters
    ----------
    matched : MatchedSubjects
        S subjects.
    blocks : (S,) or None
        Labels within which subjects may be exchanged.
    halves : (S,) int or None
        1 discovers, 0 replicates, -1 is in neither half.
    sexes : str
        'separate' or 'pooled'.
    rules : ConfoundRules
        How confounds are built, for each analysis from its own subjects.
    """
    analyses = []
    for whole in _sex_groups(matched, sexes):
        analyses.append(_analysis(whole, matched, blocks, rules))
        if halves is not None:
            for half, side in ((DISCOVERY, 1), (REPLICATION, 0)):
                part = whole.subset(halves[whole.subjects] == side, half)
                if len(part.subjects):
                    analyses.append(_analysis(part, matched, blocks, rules))
    return analyses


def compared_analyses(analyses: list[Analysis], contrasts: tuple[str, ...]) -> list[Analysis]:
    """Two contrasts on the subjects who have both, for each sex that has them; none where none are named.

    Correlations of two contrasts can only be compared on the same subjects, and contrasts are missing in different
    ones. Confounds stay those of the whole sex.

    Raises
    ------
    UserError
        No sex has deltas of both.
    """
    if not contrasts:
        return []
    found = []
    for analysis in analyses:
        if analysis.half or not set(contrasts) <= set(analysis.contrasts):
            continue
        pair = analysis.predictors[:, [analysis.contrasts.index(name) for name in contrasts]]
        complete = np.isfinite(pair).all(axis=1, keepdims=True)
        pair = np.where(complete, pair, np.nan)
        found.append(replace(analysis, half=COMPARED, contrasts=contrasts, predictors=pair))
    if not found:
        known = ", ".join(dict.fromkeys(c for a in analyses for c in a.contrasts))
        raise UserError(
            f"compare_contrasts = {', '.join(contrasts)}: no sex has deltas of both; contrasts found: {known}."
        )
    return found


@dataclass(frozen=True)
class _Group:
    """Subjects of one sex with their predictors, before confounds are built; `sex_terms` where sexes are pooled."""

    sex: str
    half: str
    subjects: NDArray[np.intp]
    contrasts: tuple[str, ...]
    age_years: NDArray[np.float64]
    predictors: NDArray[np.float64]
    sex_terms: NDArray | None
    notes: tuple[str, ...]

    def subset(self, chosen: NDArray[np.bool_], half: str) -> _Group:
        return replace(
            self,
            half=half,
            subjects=self.subjects[chosen],
            age_years=self.age_years[chosen],
            predictors=self.predictors[chosen],
            sex_terms=None if self.sex_terms is None else self.sex_terms[chosen],
        )


def _analysis(
    group: _Group, matched: MatchedSubjects, blocks: NDArray | None, rules: ConfoundRules
) -> Analysis:
    table = None if matched.confounds is None else matched.confounds.iloc[group.subjects]
    confounds = build_confounds(
        group.age_years, group.sex_terms, table, rules, one_sex=group.sex != "both"
    )
    return Analysis(
        group.sex,
        group.half,
        group.subjects,
        group.contrasts,
        group.age_years,
        group.predictors,
        confounds,
        None if blocks is None else blocks[group.subjects],
        group.sex_terms,
        group.notes,
    )


def _sex_groups(matched: MatchedSubjects, sexes: str) -> Iterator[_Group]:
    deltas = matched.deltas
    contrasts = list(dict.fromkeys(deltas["contrast"]))
    if sexes == "pooled":
        yield _sex_group("both", deltas, contrasts, matched)
        return
    for sex in ("female", "male", "both"):
        of_sex = deltas[deltas["sex"] == sex]
        if len(of_sex):
            present = set(of_sex["contrast"])
            yield _sex_group(sex, of_sex, [c for c in contrasts if c in present], matched)


def _sex_group(
    name: str, deltas: pd.DataFrame, contrasts: list[str], matched: MatchedSubjects
) -> _Group:
    position = pd.Index(matched.subject_ids).get_indexer(deltas["subject_id"])
    subjects, row = np.unique(position, return_inverse=True)
    column = pd.Index(contrasts).get_indexer(deltas["contrast"])
    predictors = np.full((len(subjects), len(contrasts)), np.nan)
    predictors[row, column] = deltas["delta_years"].to_numpy(dtype=float)
    ages = np.full(len(subjects), np.nan)
    ages[row[::-1]] = deltas["age_years"].to_numpy(dtype=float)[::-1]  # the first of a subject
    sex_terms, notes = _sex_of(subjects, matched) if name == "both" else (None, ())
    return _Group(name, "", subjects, tuple(contrasts), ages, predictors, sex_terms, notes)


def _sex_of(
    subjects: NDArray[np.intp], matched: MatchedSubjects
) -> tuple[NDArray | None, tuple[str, ...]]:
    """Sex of pooled subjects, from the deltas or else the confounds; None, with a note, where it is not known."""
    ids = pd.Index(matched.subject_ids)[subjects]
    known = matched.deltas[matched.deltas["sex"] != "both"].drop_duplicates("subject_id")
    sex = known.set_index("subject_id")["sex"].reindex(ids)
    if sex.isna().any() and matched.confounds is not None:
        column = find_column(matched.confounds.columns, SEX_COLUMNS)
        if column is not None:
            told, _ = read_sex(matched.confounds.iloc[subjects][column])
            sex = sex.where(sex.notna(), told.set_axis(sex.index))
    if sex.isna().any():
        n_unknown = int(sex.isna().sum())
        note = (
            f"sex unknown for {n_unknown} of {len(sex)} subjects: no sex terms among the confounds"
        )
        return None, (note,)
    return sex.to_numpy(dtype=object), ()
