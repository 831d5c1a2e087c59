"""The association analysis from tables to results: plan, scan, correct for many tests, look twice at hits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict

import pandas as pd

from utils.association.analyses import COMPARED, DISCOVERY, REPLICATION, Analysis
from utils.association.blocks import Block, BlockResult, BlockStore, Part
from utils.association.deltas_table import recognise_deltas
from utils.association.families import add_corrections, add_hierarchy
from utils.association.hits import recheck_hits
from utils.association.inference.contrast_comparison import (
    compare_contrasts,
    compare_hit_counts,
    partial_correlation,
)
from utils.association.inference.effective_tests import effective_columns
from utils.association.inference.rank_correlation import ranks_by_column
from utils.association.inference.replication import replicate
from utils.association.inference.sex_meta_analysis import sex_meta_analysis
from utils.association.phenotype_tables import table_in_memory
from utils.association.results import (
    COLUMNS,
    AssociationResult,
    add_constant,
    add_dictionary,
    analysis_rows,
    joined,
)
from utils.association.rules import AssociationRules
from utils.association.scanning import BlockScan, Scanned
from utils.association.study import Study, plan_study
from utils.association.summaries import category_summary, contrast_summary, summarise
from utils.common.errors import UserError

# Wraps blocks in a progress bar.
Shown = Callable[[Iterable[Block]], Iterable[Block]]
NOTHING_KEPT = BlockStore()


def associate(
    deltas: pd.DataFrame,
    nidps: pd.DataFrame,
    dictionary: pd.DataFrame | None = None,
    confounds: pd.DataFrame | None = None,
    rules: AssociationRules | None = None,
) -> AssociationResult:
    """Partial correlation of every delta with every nIDP given age, age squared and the confounds, by sex.

    Parameters
    ----------
    deltas : DataFrame
        This program's deltas or predictions, or another tool's table (see `recognise_deltas`).
    nidps : DataFrame
        A subject column and a column for each nIDP; empty cells are missing.
    dictionary : DataFrame, optional
        nidp, category, and optionally kind; or UK Biobank's own.
    confounds : DataFrame, optional
        A subject column and confounds; text columns are categories. Subjects without a row are left out.
    rules : AssociationRules, optional
        Defaults where not given.

    Returns
    -------
    AssociationResult
        table: one row for every sex, contrast and nIDP, tested or with a reason (columns: `results.COLUMNS`), in the
        order of sexes, contrasts and nIDPs. fates: what became of every nIDP. summary: counts, families, thresholds.

    Raises
    ------
    UserError
        A table is not understood, no subject is in all tables, or no nIDP can be tested; counts say why.
    """
    study = plan_study(
        recognise_deltas(deltas),
        table_in_memory(nidps),
        dictionary,
        confounds,
        rules or AssociationRules(),
    )
    return conclude(study, scan_study(study))


def scan_study(
    study: Study, store: BlockStore = NOTHING_KEPT, part: Part | None = None, shown: Shown = iter
) -> Scanned:
    """Scan the blocks of a part (all, without one) in every analysis; what the store has is not done again."""
    blocks = study.blocks if part is None else part.share(study.blocks)
    return BlockScan(study, store).scan(blocks, shown)


def conclude(
    study: Study, scanned: Scanned, reliability: pd.DataFrame | None = None
) -> AssociationResult:
    """From the scan of all blocks to tables, corrections and counts; `reliability` as for `recheck_hits`."""
    rules, whole = study.rules, [a for a in study.analyses if not a.half]
    table = _rows(study, scanned, whole)
    fates = _fates(scanned, whole)
    _require_a_test(table, study)
    families = add_corrections(
        table,
        rules.family,
        rules.alpha,
        scanned.maxima,
        {analysis.name: list(analysis.contrasts) for analysis in whole},
    )
    hierarchy = add_hierarchy(table, rules.alpha)
    add_constant(table, "split_id", rules.split_id)
    add_constant(table, "correction_id", rules.correction_id)
    table = table[list(COLUMNS)]
    tables = {
        "by_contrast": contrast_summary(table, rules.alpha),
        "by_category": category_summary(table, rules.alpha),
    }
    summary = {
        "subjects": study.matched.counts,
        "recognised": study.recognised,
        "notes": [*study.notes, *scanned.notes],
        "analyses": [_described(analysis, fates) for analysis in whole],
        "n_redundant": len(study.redundancy.represented),
        "rules": asdict(rules),
        **summarise(table, families, rules.alpha),
        "hierarchical": hierarchy,
    }
    if study.redundancy.represented:
        tables["represented"] = study.redundancy.table()
    if {"female", "male"} <= {analysis.sex for analysis in whole}:
        tables["sexes_combined"] = sex_meta_analysis(table)
    if rules.replication:
        tables["replicated"], summary["replication"] = _replication(study, scanned)
    if rules.compared_contrasts:
        tables["contrasts_compared"] = compared = _comparison(study, scanned)
        summary["comparison"] = compare_hit_counts(table, compared, alpha=rules.alpha)
    if rules.recheck_hits:
        tables["rechecked"], summary["rechecks"] = recheck_hits(
            study, scanned.results, table, reliability
        )
    return AssociationResult(table, fates, summary, tables)


def _rows(study: Study, scanned: Scanned, analyses: Sequence[Analysis]) -> pd.DataFrame:
    """The table of these analyses before anything is corrected."""
    tables = []
    for analysis in analyses:
        result = BlockResult.joined(scanned.results[analysis.name])
        tables.append(
            analysis_rows(
                analysis.sex,
                analysis.contrasts,
                result.fates,
                result.statistics,
                study.rules.phenotypes,
            )
        )
    table = joined(tables)
    add_dictionary(table, study.dictionary)
    return table


def _fates(scanned: Scanned, analyses: Sequence[Analysis]) -> pd.DataFrame:
    """What became of every nIDP, sexes below each other."""
    tables = []
    for analysis in analyses:
        fates = [vars(fate) for result in scanned.results[analysis.name] for fate in result.fates]
        table = pd.DataFrame(fates).rename(columns={"sex": "only_sex"})
        table.insert(0, "sex", analysis.sex)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _described(analysis: Analysis, fates: pd.DataFrame) -> dict:
    of_sex = fates[fates["sex"] == analysis.sex]
    counts = {"n_nidps_kept": int(of_sex["kept"].sum()), "n_nidps": len(of_sex)}
    effective = {}
    if len(analysis.contrasts) > 1 and len(analysis.subjects) > len(analysis.contrasts):
        effective = {"effective_contrasts": effective_columns(analysis.predictors).as_record()}
    return analysis.described() | counts | effective


def _replication(study: Study, scanned: Scanned) -> tuple[pd.DataFrame, dict]:
    """Discovery in one half by Bonferroni over its family, replication in the other; the discoveries alone."""
    halves = []
    for half in (DISCOVERY, REPLICATION):
        analyses = [a for a in study.analyses if a.half == half]
        if not analyses:
            raise UserError(f"replication: no subject is left in the half for {half}.")
        table = _rows(study, scanned, analyses)
        contrasts = {a.sex: list(a.contrasts) for a in analyses}
        add_corrections(table, study.rules.family, study.rules.alpha, {}, contrasts)
        halves.append(table)
    found = replicate(halves[0], halves[1], alpha=study.rules.alpha)
    return found.table[found.table["discovery"]].reset_index(drop=True), found.summary


def _comparison(study: Study, scanned: Scanned) -> pd.DataFrame:
    """Two contrasts nIDP by nIDP on the subjects who have both, in the sexes that have them."""
    analyses = [a for a in study.analyses if a.half == COMPARED]
    correlations = {}
    for analysis in analyses:
        deltas = analysis.predictors
        if study.rules.statistic == "spearman":
            deltas = ranks_by_column(deltas)
        correlations[analysis.sex] = partial_correlation(
            deltas[:, 0], deltas[:, 1], analysis.confounds.values
        )
    first, second = study.rules.compared_contrasts
    rows = _rows(study, scanned, analyses)
    return compare_contrasts(rows, first, second, correlations, study.rules.alpha)


def _require_a_test(table: pd.DataFrame, study: Study) -> None:
    """Stop when nothing was tested: a run without results must not end as if it had some."""
    if (table["reason"] == "").any():
        return
    rules, counts = study.rules, study.matched.counts
    counted = table["reason"].value_counts()
    reasons = ", ".join(f"{reason}: {n}" for reason, n in counted.items() if n)
    raise UserError(
        f"none of {table['column'].nunique()} nIDPs could be tested in {counts['analysed']} analysed subjects "
        f"({counts['with_delta']} with a delta, {counts['with_nidps']} with nIDPs). Rows by reason: {reasons}. "
        f"Needed: at least {rules.phenotypes.minimum_n} subjects and {rules.minimum_df} degrees of freedom a pair, "
        f"{rules.phenotypes.minimum_class} subjects in each class of a binary nIDP."
    )
