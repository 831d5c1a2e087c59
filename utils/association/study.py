"""What an association study is made of: subjects, analyses, the nIDP table in blocks, and how a block is read."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.association.analyses import Analysis, compared_analyses, plan_analyses
from utils.association.blocks import Block, grid_of
from utils.association.confound_columns import refuse_empty
from utils.association.confound_labels import take_labels
from utils.association.decoding import DecodedColumn, decode_columns
from utils.association.deltas_table import DeltasTable
from utils.association.dictionary import NidpDictionary, column_groups, read_dictionary
from utils.association.inference.exchangeability import unrelated_rows
from utils.association.inference.halves import given_halves, random_halves
from utils.association.matching import MatchedSubjects, match_subjects
from utils.association.phenotype_tables import PhenotypeTable
from utils.association.redundancy import Redundancy, RedundancyRules, find_redundant
from utils.association.rules import AssociationRules
from utils.common.errors import UserError

HALVES = "halves"


@dataclass(frozen=True)
class Study:
    """Everything that is decided before the first block is scanned.

    redundancy: which nIDP columns others represent. recognised, notes: how the tables were read.
    """

    rules: AssociationRules
    matched: MatchedSubjects
    analyses: list[Analysis]
    phenotypes: PhenotypeTable
    dictionary: NidpDictionary
    blocks: list[Block]
    redundancy: Redundancy
    recognised: dict[str, str]
    notes: tuple[str, ...]

    def decoded(self, block: Block) -> list[DecodedColumn]:
        """The columns of a block as numbers, for the matched subjects; redundant ones carry the reason."""
        frame = self.phenotypes.read(block.columns, self.matched.nidp_rows)
        columns = decode_columns(frame, self.dictionary, self.rules.decoding)
        return self.redundancy.applied(columns)


def plan_study(
    deltas: DeltasTable,
    phenotypes: PhenotypeTable,
    dictionary: pd.DataFrame | None,
    confounds: pd.DataFrame | None,
    rules: AssociationRules,
) -> Study:
    """Match the subjects, leave out relatives, form sexes and halves, and find the redundant nIDPs.

    Raises
    ------
    UserError
        A table is not understood, no subject is in all tables, or no sex has both of the contrasts to be compared.
    """
    matched = match_subjects(deltas.table, phenotypes.subject_ids, confounds)
    if not phenotypes.columns:
        raise UserError("the table of nIDPs has no column besides the subject.")
    _require_quality(rules.quality_column, matched.confounds)
    known = read_dictionary(dictionary)
    if matched.confounds is not None:
        refuse_empty(matched.confounds)
    table, labels = take_labels(
        matched.confounds, rules.family_column, rules.permutation_blocks, rules.confounds
    )
    kept, family_notes = _unrelated(labels.family, matched)
    halves, half_notes, table = _halves(matched, table, labels.family, rules)
    matched = replace(matched, confounds=table).only(kept)
    blocks = None if labels.blocks is None else labels.blocks[kept]
    analyses = plan_analyses(
        matched, blocks, None if halves is None else halves[kept], rules.sexes, rules.confounds
    )
    analyses += compared_analyses(analyses, rules.compared_contrasts)
    groups = column_groups(list(phenotypes.columns), known)
    notes = [*deltas.notes, *labels.notes, *family_notes, *half_notes]
    study = Study(
        rules,
        matched,
        analyses,
        phenotypes,
        known,
        grid_of(groups),
        Redundancy(),
        deltas.recognised,
        tuple(notes),
    )
    return replace(study, redundancy=_redundancy(study))


def _require_quality(name: str, confounds: pd.DataFrame | None) -> None:
    """Stop when the measure of image quality is not there or not numbers."""
    if name and (
        confounds is None
        or name not in confounds.columns
        or not pd.api.types.is_numeric_dtype(confounds[name])
    ):
        raise UserError(
            f"quality_column = {name!r}: the table of confounds has no such column of numbers."
        )


def _unrelated(
    family: NDArray[np.intp] | None, matched: MatchedSubjects
) -> tuple[NDArray[np.bool_], list[str]]:
    """One subject of each family: the one with the most contrasts, the first of those with equally many."""
    n = len(matched.subject_ids)
    if family is None:
        return np.ones(n, dtype=bool), []
    n_contrasts = matched.deltas["subject_id"].value_counts().reindex(matched.subject_ids)
    kept = unrelated_rows(family, n_contrasts.to_numpy())
    return kept, [f"relatives: {n - int(kept.sum())} of {n} subjects left out, one a family stays"]


def _halves(
    matched: MatchedSubjects,
    table: pd.DataFrame | None,
    family: NDArray[np.intp] | None,
    rules: AssociationRules,
) -> tuple[NDArray[np.intp] | None, list[str], pd.DataFrame | None]:
    """1 discovers, 0 replicates, -1 neither (S,); notes; the confounds without the column that says so."""
    if not rules.replication:
        return None, [], table
    if rules.replication == HALVES:
        families = None if family is None else family.tolist()
        drawn = random_halves(matched.subject_ids, families, rules.seed, HALVES)
        return drawn.astype(np.intp), [], table
    if table is None or rules.replication not in table.columns:
        raise UserError(
            f'replication = {rules.replication!r}: write "{HALVES}", or the name of a column of the table of '
            "confounds with two values."
        )
    given = given_halves(table[rules.replication])
    sides = np.where(given.discovery, 1, np.where(given.replication, 0, -1))
    note = f"replication: '{given.names[0]}' discovers, '{given.names[1]}' replicates"
    return sides, [note], table.drop(columns=[rules.replication])


def _redundancy(study: Study) -> Redundancy:
    """nIDP columns that another one represents, decided once on all matched subjects."""
    rules = RedundancyRules.named(study.rules.redundancy)
    if rules is None:
        return Redundancy()
    return find_redundant(
        study.blocks,
        study.decoded,
        len(study.matched.subject_ids),
        study.rules.phenotypes,
        rules,
        int(study.rules.memory_gb * 1e9),
    )
