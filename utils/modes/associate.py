"""-m associate: the deltas of this experiment, or any table of predictions, against nIDPs."""

from __future__ import annotations

from dataclasses import asdict, replace

import pandas as pd

from utils.association.analysis import conclude, scan_study
from utils.association.blocks import BlockStore, Part
from utils.association.confounds import ConfoundRules
from utils.association.decoding import DecodingRules
from utils.association.deltas_table import DeltasTable, recognise_deltas
from utils.association.missing_codes import parse_number_codes
from utils.association.phenotype_tables import open_phenotypes
from utils.association.phenotypes import PhenotypeRules
from utils.association.predictor_table import recognise_predictors
from utils.association.results import AssociationResult
from utils.association.rules import AssociationRules
from utils.association.study import Study, plan_study
from utils.common.errors import UserError
from utils.common.messages import progress, say
from utils.common.provenance import file_hash, text_hash, versions
from utils.common.tables import read_table
from utils.experiment.experiment import Experiment
from utils.experiment.export import write_summary_record, write_summary_table


def run(experiment: Experiment) -> None:
    """Read the tables, test every delta against every nIDP, write all of it and the significant part."""
    settings = experiment.settings.association
    if not settings.nidps:
        if experiment.options.mode == "study":
            say("no nIDPs are set ([ASSOCIATION] nidps); associations are left out.")
            return
        raise UserError("-m associate: set [ASSOCIATION] nidps to the table of nIDPs.")
    try:
        associate(experiment)
    except UserError as error:
        if experiment.options.mode != "study":
            raise
        experiment.problem(f"no associations: {error}")  # the report is made all the same


def associate(experiment: Experiment) -> None:
    """Plan, scan the blocks of this part, and when all blocks are done conclude and write."""
    settings = experiment.settings
    part = Part.from_text(settings.association.part)
    deltas, pooled = read_predictors(experiment)
    rules = association_rules(experiment, pooled)
    dictionary = _optional_table(experiment, settings.association.dictionary)
    confounds = _optional_table(experiment, settings.association.confounds)
    path = settings.path(settings.association.nidps)
    scratch = experiment.paths.association_blocks
    # Last of the tables: a wide text table is converted first, which takes minutes.
    with open_phenotypes(path, settings.association.memory_gb, scratch) as phenotypes:
        study = plan_study(deltas, phenotypes, dictionary, confounds, rules)
        blocks = study.blocks if part is None else part.share(study.blocks)
        store = BlockStore(scratch, key_of(experiment, study))
        scanned = scan_study(study, store, part, show)
        if store.n_found:
            n_results = len(blocks) * len(study.analyses)
            say(f"  {store.n_found} of {n_results} results of blocks were there already")
        if part is not None:
            say(
                f"part {part.number} of {part.of}: its {len(blocks)} of {len(study.blocks)} blocks are done; when "
                "all parts are, the same command without part puts them together."
            )
            return
        result = conclude(study, scanned, reliability_of_deltas(experiment))
    write_results(experiment, result)
    store.clear()
    tell(experiment, result)


def show(blocks):
    """A progress bar over blocks of nIDPs."""
    return progress(blocks, description="associations", unit="block")


def key_of(experiment: Experiment, study: Study) -> str:
    """A hash of everything that the scan depends on: results of other tables or settings are never used."""
    settings = experiment.settings
    names = ("nidps", "dictionary", "confounds")
    files = {name: getattr(settings.association, name) for name in names}
    hashes = {name: file_hash(settings.path(text)) for name, text in files.items() if text}
    deltas = pd.util.hash_pandas_object(study.matched.deltas, index=False).to_numpy()
    # What is decided after the scan does not make its results others.
    of_scan = replace(study.rules, family="all", alpha=0.05, recheck_hits=0, quality_column="")
    content = {
        "files": hashes,
        "deltas": text_hash(deltas.tobytes().hex()),
        "rules": asdict(of_scan),
        "versions": versions(),
    }
    return text_hash(repr(content))[:24]


def read_predictors(experiment: Experiment) -> tuple[DeltasTable, bool]:
    """The predictors, and whether their subjects' sexes were pooled in one set of networks."""
    settings = experiment.settings
    if settings.association.predictors:
        path = settings.path(settings.association.predictors)
        return recognise_predictors(read_table(path), str(path)), False
    if settings.association.predictions:
        path = settings.path(settings.association.predictions)
        return recognise_deltas(read_table(path), str(path)), False
    path = experiment.paths.deltas(settings.association.split)
    if not path.is_file():
        raise UserError(
            f"{path}: no deltas yet; run -m ensemble first, or set [ASSOCIATION] predictions to a "
            "table made elsewhere."
        )
    table = read_table(path)
    if settings.sexes != ("both",):
        return recognise_deltas(table, str(path)), False
    sexes = experiment.subjects.set_index("subject_id")["sex"]  # pooled networks, sex in the model
    known = table["subject_id"].map(sexes).fillna("")
    table = table.assign(sex=known.where(known != "", "both"))
    return recognise_deltas(table, str(path)), True


def reliability_of_deltas(experiment: Experiment) -> pd.DataFrame | None:
    """ICC(2,k) of the corrected deltas over the networks of each cell; None for deltas made elsewhere."""
    settings, path = experiment.settings.association, experiment.paths.reliability
    if settings.predictions or settings.predictors or not path.is_file():
        return None
    table = read_table(path)
    chosen = (table["split"] == settings.split) & (table["quantity"] == "corrected_delta")
    names = {"icc_2_k": "value", "icc_2_k_low": "low", "icc_2_k_high": "high"}
    return table.loc[chosen, ["contrast", "sex", *names]].rename(columns=names)


def association_rules(experiment: Experiment, pooled: bool) -> AssociationRules:
    """The rules of [ASSOCIATION]."""
    settings = experiment.settings.association
    site_wise = settings.site_wise
    given = settings.predictors or settings.predictions
    return AssociationRules(
        phenotypes=PhenotypeRules(
            minimum_n=settings.minimum_n,
            minimum_class=settings.minimum_class_count,
            dominance=settings.dominance,
            transform="inverse_normal" if settings.inverse_normal else "none",
            missingness_indicators=settings.missingness_indicators,
        ),
        confounds=ConfoundRules(
            terms=settings.confound_terms,
            age_terms=settings.age_terms,
            site_column=settings.site_column,
            site_wise=(site_wise,) if isinstance(site_wise, str) else site_wise,
            pca=settings.confound_pca,
            outlier_sd=settings.confound_outlier_sd,
        ),
        family=settings.family,
        sexes="pooled" if pooled else "separate",
        alpha=settings.alpha,
        statistic=settings.statistic,
        degrees_of_freedom=settings.degrees_of_freedom,
        permutations=settings.permutations,
        seed=experiment.settings.training.seed,
        permutation_blocks=settings.permutation_blocks,
        family_column=settings.family_column,
        replication=settings.replication,
        recheck_hits=settings.recheck_hits,
        quality_column=settings.quality_column,
        compared_contrasts=settings.compare_contrasts,
        redundancy=settings.redundancy,
        decoding=DecodingRules(
            missing_codes=parse_number_codes(settings.missing_codes),
            recode=settings.recode,
            minimum_cases=settings.minimum_class_count,
        ),
        memory_gb=settings.memory_gb,
        split_id="given table" if given else settings.split,
        correction_id="" if given else experiment.settings.deltas.bias_correction,
    )


def write_results(experiment: Experiment, result: AssociationResult) -> None:
    """Everything, the significant part, the further tables, what became of each nIDP, and the record."""
    paths, persons = experiment.paths, experiment.individual_level
    write_summary_table(result.table, paths.associations, persons)
    threshold = experiment.settings.association.alpha
    significant = result.table[result.table["q_bh"] <= threshold]
    order = significant["nlog10p"].sort_values(ascending=False, kind="stable").index
    readable = rounded(significant.loc[order])
    write_summary_table(readable, paths.associations_significant, persons, decimals=None)
    for name, path in {
        "by_contrast": paths.associations_by_contrast,
        "by_category": paths.associations_by_category,
        "sexes_combined": paths.associations_sexes_combined,
        "replicated": paths.associations_replicated,
        "rechecked": paths.associations_rechecked,
        "contrasts_compared": paths.contrasts_compared,
        "represented": paths.nidps_represented,
    }.items():
        if name in result.tables:
            write_summary_table(result.tables[name], path, persons)
        else:
            path.unlink(missing_ok=True)  # of an earlier run with other settings
    write_summary_table(result.fates, paths.phenotype_fates, persons)
    record = {**result.summary, "versions": versions()}
    write_summary_record(record, paths.associations_record, persons)


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Eight decimals; a p or q keeps six digits however small it is, so that it never becomes 0."""
    small = [name for name in ("q_bh", "q_by", "p_fwer_perm") if name in table]
    digits = {name: table[name].map("{:.6g}".format).astype(float) for name in small}
    return table.round(8).assign(**digits)


def tell(experiment: Experiment, result: AssociationResult) -> None:
    """What was tested, what was found, what was not tested and why."""
    summary, settings = result.summary, experiment.settings.association
    notes = [f"{a['sex']}: {note}" for a in summary["analyses"] for note in a["notes"]]
    for note in dict.fromkeys([*summary["notes"], *notes]):
        say(f"  {note}")
    if 0 < settings.permutations < 1 / settings.alpha - 1:
        say(
            f"  permutations: p of {settings.permutations} are at least {1 / (settings.permutations + 1):.2g}, "
            f"so that none can pass alpha = {settings.alpha:g}; 1,000 are usual"
        )
    hits = summary["hits"]
    permuted = f", {hits['fwer']['rows']} by permutation (max-T)" if "fwer" in hits else ""
    say(
        f"associations: {summary['n_tested']:,} tests, {summary['n_untested']:,} rows without one; "
        f"significant: {summary['n_bonferroni']} by Bonferroni{permuted}, {summary['n_bh']} by "
        f"Benjamini-Hochberg (alpha {settings.alpha:g}, family: {settings.family})"
    )
    unique, hierarchical = summary["unique_nidps"], summary["hierarchical"]
    say(
        f"  unique nIDPs (unit: {unique['unit']}): {unique['bonferroni']['union']} by Bonferroni, "
        f"{hierarchical['n_units_selected']} by the hierarchical test (false discovery rate over nIDPs)"
    )
    for reason, count in summary["untested_by_reason"].items():
        if not reason.startswith("redundant_with"):
            say(f"  not tested, {reason}: {count} rows")
    if summary["n_redundant"]:
        say(
            f"  {summary['n_redundant']} nIDPs are represented by another one; nidps.csv says which"
        )
    if "replication" in summary:
        found = summary["replication"]
        say(
            f"  replication: {found['n_replicated']} of {found['n_discoveries_tested']} discoveries; "
            f"{found['n_same_sign']} have the same sign"
        )
    say(f"  written to {experiment.paths.associations}")


def _optional_table(experiment: Experiment, text: str) -> pd.DataFrame | None:
    return read_table(experiment.settings.path(text)) if text else None
