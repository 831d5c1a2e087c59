"""The study in facts: what the report's methods paragraph, flags and provenance are made of."""

from __future__ import annotations

from typing import Any

import pandas as pd

from datasets.subjects import families_in_two_splits
from figures.tables import StudyTables, sex_word
from utils.common.files import read_json
from utils.common.provenance import text_hash, versions
from utils.common.tables import read_table
from utils.experiment.experiment import Experiment
from utils.experiment.results import (
    PERSON_SPLITS,
    read_deltas,
    read_history,
    read_metrics,
    read_predictions,
)
from utils.experiment.training_facts import preprocessing_phrase, training_facts
from utils.settings.reader import resolved_ini
from utils.settings.schema import EVALUATION_SECTIONS, TRAINING_SECTIONS

COMBINATION_WORDS = {
    "ridge": "ridge stacking",
    "nonnegative": "stacking with non-negative weights",
    "elastic_net": "elastic-net stacking",
    "inverse_variance": "mean weighted by inverse error variance",
    "gls": "generalised least squares mean",
}


def study_tables(experiment: Experiment) -> StudyTables:
    """Everything the figures and the report show; parts that were not made are None."""
    paths, settings = experiment.paths, experiment.settings
    metrics = read_table(paths.metrics_table) if paths.metrics_table.is_file() else None
    associations = pd.read_parquet(paths.associations) if paths.associations.is_file() else None
    summary = read_json(paths.associations_record) if associations is not None else None
    if summary is not None:
        rules = recorded_rules(experiment, summary)
        summary = {**summary, "family": family_phrase(rules["family"]), "alpha": rules["alpha"]}
    dictionary = settings.association.dictionary
    deltas = read_deltas(experiment)
    return StudyTables(
        experiment=settings.name,
        description=description(experiment, summary, deltas),
        metrics=metrics,
        predictions=_predictions(experiment),
        cell_flags=_cell_flags(experiment),
        deltas=deltas,
        history=read_history(experiment),
        associations=associations,
        association_summary=summary,
        dictionary=read_table(settings.path(dictionary)) if dictionary else None,
        bias_correction=read_json(paths.bias_correction)
        if paths.bias_correction.is_file()
        else None,
        provenance=provenance(experiment),
        flags=tuple(flags(experiment)),
    )


def recorded_rules(experiment: Experiment, summary: dict[str, Any]) -> dict[str, Any]:
    """The rules that the associations were made by, also after the settings changed; older records hold none."""
    settings = experiment.settings.association
    now = {
        "family": settings.family,
        "alpha": settings.alpha,
        "statistic": "pearson",
        "degrees_of_freedom": "rank",
        "permutations": 0,
        "phenotypes": {"transform": "inverse_normal" if settings.inverse_normal else "none"},
    }
    return now | summary.get("rules", {})


def family_phrase(family: str) -> str:
    """The declared family of tests in words."""
    return {
        "per_contrast": "each contrast and sex by itself",
        "per_sex": "each sex by itself, its contrasts and nIDPs together",
    }.get(family, "all contrasts, nIDPs and sexes together")


def provenance(experiment: Experiment) -> dict[str, Any]:
    """Versions, settings and hashes; neither times nor ids."""
    pair = [resolved_ini(experiment.settings, s) for s in (TRAINING_SECTIONS, EVALUATION_SECTIONS)]
    return {
        "versions": versions(),
        "settings_sha256": text_hash("".join(pair)),
        "split_sha256": None if experiment.deltas_given else experiment.split_hash,
        "settings.ini": pair[0],
        "settings_eval.ini": pair[1],
    }


def flags(experiment: Experiment) -> list[str]:
    """What a reader should not overlook: collapsed networks, failed subjects, missing cells."""
    if experiment.deltas_given:
        return []
    found = []
    if families_in_two_splits(experiment.subjects):
        found.append("Members of one family stand in different splits.")
    for sex in _replaced_combinations(experiment):
        found.append(
            f"Too few validation subjects for the combination of {sex_word(sex)} "
            f"({experiment.settings.deltas.combination}): it is the plain mean there; combination.json says why."
        )
    for cell in experiment.grid:
        metrics = [read_metrics(experiment, cell, split) for split in PERSON_SPLITS]
        if not any(metrics):
            found.append(f"{cell.name} was not tested.")
        for entry in filter(None, metrics):
            if entry["n_failed"]:
                found.append(
                    f"{cell.name} {entry['split']}: {_count(entry['n_failed'])} subject(s) without a "
                    "usable volume."
                )
        last = next((entry for entry in reversed(metrics) if entry), None)
        for network in last["networks"] if last else []:
            if network["collapsed"]:
                averaged = "averaged in because all did" if network["averaged"] else "not averaged"
                found.append(f"{cell.name} network {network['network']} collapsed; {averaged}.")
    return found


def description(
    experiment: Experiment, summary: dict[str, Any] | None, deltas: pd.DataFrame | None
) -> dict[str, Any]:
    """Facts for the methods paragraph (keys as in `figures.methods`)."""
    if experiment.deltas_given:
        facts: dict[str, Any] = {"deltas_given": True, "software": versions()}
        facts["predictors_given"] = bool(experiment.settings.association.predictors)
    else:
        facts = _study_facts(experiment, deltas)
    return facts if summary is None else facts | _association_facts(experiment, summary)


def _association_facts(experiment: Experiment, summary: dict[str, Any]) -> dict[str, Any]:
    rules = recorded_rules(experiment, summary)
    facts = {
        "n_nidps": max(analysis["n_nidps_kept"] for analysis in summary["analyses"]),
        "confounds": summary["analyses"][0]["confounds"],
        "family": summary["family"],
        "n_families": len(summary["families"]),
        "n_tests": summary["n_tested"],
        "alpha": summary["alpha"],
        "statistic": rules["statistic"],
        "degrees_of_freedom": rules["degrees_of_freedom"],
        "n_permutations": rules["permutations"],
    }
    if rules["phenotypes"]["transform"] == "inverse_normal":
        facts["nidp_transform"] = "rank-based inverse normal scores (Blom)"
    return facts


def _study_facts(experiment: Experiment, deltas: pd.DataFrame | None) -> dict[str, Any]:
    settings = experiment.settings
    data, training, network = settings.data, settings.training, settings.network
    facts: dict[str, Any] = {
        "simulated": experiment.simulated,
        "contrasts": [contrast.name for contrast in experiment.contrasts],
        "counts": _counts(experiment),
        "families_kept_together": bool((experiment.subjects["family"] != "").any())
        and not families_in_two_splits(experiment.subjects),
        "preprocessing": preprocessing_phrase(data),
        "network": network.network,
        "n_networks": training.ensemble_size,
        **training_facts(experiment),
        "seed": training.seed,
        "software": versions(),
    }
    if settings.mapping.bootstrap_resamples:
        facts["intervals"] = "95 % bootstrap intervals over subjects"
    rates = (network.dropout_rate_1, network.dropout_rate_2, network.dropout_rate_3)
    if any(rates):
        facts["dropout"] = ", ".join(f"{rate:g}" for rate in rates) + " before the last layers"
    if len(experiment.contrasts) > 1:
        facts["combination"] = _combination_phrase(experiment)
    if deltas is not None and deltas["corrected_delta_years"].notna().any():
        facts["correction"] = settings.deltas.bias_correction
    return facts


def _replaced_combinations(experiment: Experiment) -> list[str]:
    """Sexes whose combination is not the chosen one, for the reason that combination.json gives."""
    path = experiment.paths.combination
    by_sex = read_json(path)["combinations"] if path.is_file() else {}
    chosen = {sex: c.get(experiment.settings.deltas.combination) for sex, c in by_sex.items()}
    return [sex for sex, combination in chosen.items() if (combination or {}).get("reason")]


def _combination_phrase(experiment: Experiment) -> str:
    """How contrasts were combined: as chosen, but for the sexes where that was not possible."""
    replaced = _replaced_combinations(experiment)
    chosen = experiment.settings.deltas.combination
    if chosen == "mean" or len(replaced) == len(experiment.settings.sexes):
        return "mean"
    whom = " and ".join(sex_word(sex) for sex in replaced)
    return COMBINATION_WORDS[chosen] + (f"; the plain mean for {whom}" if replaced else "")


def _predictions(experiment: Experiment) -> pd.DataFrame | None:
    parts = []
    for cell in experiment.grid:
        for split in PERSON_SPLITS:
            table = read_predictions(experiment, cell, split)
            if table is not None:
                where = {"contrast": cell.contrast.name, "sex": cell.sex, "split": split}
                parts.append(table.assign(**where))
    return pd.concat(parts, ignore_index=True) if parts else None


def _cell_flags(experiment: Experiment) -> pd.DataFrame | None:
    """The flags of metrics_<split>.json; of metrics written before there were any, none."""
    rows = []
    for cell in experiment.grid:
        for split in PERSON_SPLITS:
            metrics = read_metrics(experiment, cell, split) or {}
            where = {"contrast": cell.contrast.name, "sex": cell.sex, "split": split}
            for flag in metrics.get("flags", []):
                told = {key: flag[key] for key in ("name", "reason", "n_subjects", "of_n_subjects")}
                rows.append(where | told)
    return pd.DataFrame(rows) if rows else None


def _counts(experiment: Experiment) -> dict[str, dict[str, int]]:
    subjects = experiment.subjects
    counts: dict[str, dict[str, int]] = {}
    for sex in experiment.settings.sexes:
        chosen = subjects if sex == "both" else subjects[subjects["sex"] == sex]
        found = chosen["split"].value_counts()
        splits = ("train", "validation", "test")
        counts[sex] = {split: int(found[split]) for split in splits if split in found}
    return counts


def _count(n: int) -> str:
    return "fewer than 10" if n < 10 else str(n)
