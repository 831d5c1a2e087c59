"""-m associate: the deltas of this experiment, or any table of predictions, against nIDPs."""

from __future__ import annotations

import pandas as pd

from utils.association.analysis import AssociationRules, associate
from utils.association.phenotypes import PhenotypeRules
from utils.association.results import AssociationResult
from utils.common.errors import UserError
from utils.common.files import write_json
from utils.common.messages import say
from utils.common.provenance import versions
from utils.common.tables import read_table
from utils.experiment.experiment import Experiment
from utils.experiment.export import write_summary_table


def run(experiment: Experiment) -> None:
    """Read the tables, test every delta against every nIDP, write all of it and the significant part."""
    settings = experiment.settings.association
    if not settings.nidps:
        if experiment.options.mode == "study":
            say("no nIDPs are set ([ASSOCIATION] nidps); associations are left out.")
            return
        raise UserError("-m associate: set [ASSOCIATION] nidps to the table of nIDPs.")
    try:
        result = scan(experiment)
    except UserError as error:
        if experiment.options.mode != "study":
            raise
        experiment.problem(f"no associations: {error}")  # the report is made all the same
        return
    write_results(experiment, result)
    tell(experiment, result)


def scan(experiment: Experiment) -> AssociationResult:
    """Read deltas, nIDPs, dictionary and confounds, and test every pair."""
    settings = experiment.settings.association
    deltas, pooled = read_deltas(experiment)
    return associate(
        deltas=deltas,
        nidps=read_table(experiment.settings.path(settings.nidps)),
        dictionary=_optional_table(experiment, settings.dictionary),
        confounds=_optional_table(experiment, settings.confounds),
        rules=association_rules(experiment, pooled),
    )


def read_deltas(experiment: Experiment) -> tuple[pd.DataFrame, bool]:
    """The table of deltas, and whether its subjects' sexes were pooled in one set of networks."""
    settings = experiment.settings
    if settings.association.predictions:
        return read_table(settings.path(settings.association.predictions)), False
    path = experiment.paths.deltas(settings.association.split)
    if not path.is_file():
        raise UserError(
            f"{path}: no deltas yet; run -m ensemble first, or set [ASSOCIATION] predictions to a "
            "table made elsewhere."
        )
    table = read_table(path)
    if settings.sexes != ("both",):
        return table, False
    sexes = experiment.subjects.set_index("subject_id")["sex"]  # pooled networks, sex in the model
    known = table["subject_id"].map(sexes).fillna("")
    return table.assign(sex=known.where(known != "", "both")), True


def association_rules(experiment: Experiment, pooled: bool) -> AssociationRules:
    """The rules of [ASSOCIATION]."""
    settings = experiment.settings.association
    return AssociationRules(
        phenotypes=PhenotypeRules(
            minimum_n=settings.minimum_n,
            minimum_class=settings.minimum_class_count,
            dominance=settings.dominance,
            transform="inverse_normal" if settings.inverse_normal else "none",
        ),
        family=settings.family,
        sexes="pooled" if pooled else "separate",
        alpha=settings.alpha,
        split_id=(settings.predictions and "given table") or settings.split,
        correction_id="" if settings.predictions else experiment.settings.deltas.bias_correction,
    )


def write_results(experiment: Experiment, result: AssociationResult) -> None:
    """Everything, the significant part, what became of each nIDP, and the record."""
    paths, persons = experiment.paths, experiment.individual_level
    write_summary_table(result.table, paths.associations, persons)
    threshold = experiment.settings.association.alpha
    significant = result.table[result.table["q_bh"] <= threshold]
    order = significant["nlog10p"].sort_values(ascending=False, kind="stable").index
    readable = rounded(significant.loc[order])
    write_summary_table(readable, paths.associations_significant, persons, decimals=None)
    write_summary_table(result.fates, paths.phenotype_fates, persons)
    write_json({**result.summary, "versions": versions()}, paths.associations_record)


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Eight decimals; a q keeps six digits however small it is, so that it never becomes 0."""
    digits = {q: table[q].map("{:.6g}".format).astype(float) for q in ("q_bh", "q_by")}
    return table.round(8).assign(**digits)


def tell(experiment: Experiment, result: AssociationResult) -> None:
    """What was tested, what was found, what was not tested and why."""
    summary = result.summary
    notes = [note for analysis in summary["analyses"] for note in analysis["notes"]]
    for note in dict.fromkeys([*summary["notes"], *notes]):
        say(f"  {note}")
    say(
        f"associations: {summary['n_tested']:,} tests, {summary['n_untested']:,} rows without one; "
        f"significant: {summary['n_bonferroni']} by Bonferroni, {summary['n_bh']} by "
        f"Benjamini-Hochberg (alpha {experiment.settings.association.alpha:g}, family: "
        f"{experiment.settings.association.family})"
    )
    unique = summary["unique_nidps"]
    say(
        f"  unique nIDPs (unit: {unique['unit']}): {unique['bonferroni']['union']} by Bonferroni, "
        f"{unique['bh']['union']} by Benjamini-Hochberg"
    )
    for reason, count in summary["untested_by_reason"].items():
        say(f"  not tested, {reason}: {count} rows")
    say(f"  written to {experiment.paths.associations}")


def _optional_table(experiment: Experiment, text: str) -> pd.DataFrame | None:
    return read_table(experiment.settings.path(text)) if text else None
