"""-m ensemble: combine the contrasts, correct for the age bias, write deltas and the metrics table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from utils.common.errors import UserError
from utils.common.files import write_json
from utils.common.messages import say
from utils.common.randomness import generator
from utils.common.tables import write_table
from utils.evaluation.correction_words import correction_sentences
from utils.evaluation.metrics import paired_mae_difference
from utils.evaluation.metrics_table import metrics_table, row_of_predictor, rows_of_cell
from utils.evaluation.sex_deltas import (
    COMBINED,
    FITTED_ON,
    DeltaRules,
    SexDeltas,
    SplitPredictions,
)
from utils.experiment.experiment import Cell, Experiment
from utils.experiment.export import export_safe_metrics, write_summary_table
from utils.experiment.reliability import network_reliability, retest_reliability
from utils.experiment.results import PERSON_SPLITS, read_metrics, read_predictions


def run(experiment: Experiment) -> None:
    """Fit on validation, freeze, apply to every split that was tested."""
    rows = cell_rows(experiment)
    if not rows:
        raise UserError("no cell was tested yet; run -m test first.")
    combined = Combined()
    for sex in experiment.settings.sexes:
        combine_sex(experiment, sex, combined)
    persons = pd.concat(combined.persons, ignore_index=True)
    rows += combination_rows(experiment, persons, {_place(row) for row in rows})
    write_records(experiment, combined, persons)
    write_tables(experiment, combined, rows)
    write_reliability(experiment, combined)
    tell(experiment, combined, rows)


@dataclass
class Combined:
    """What the sexes come to: what was fitted and its records, deltas by split, and a row a person."""

    fitted: dict[str, SexDeltas] = field(default_factory=dict)
    deltas: dict[str, list[pd.DataFrame]] = field(default_factory=dict)
    persons: list[pd.DataFrame] = field(default_factory=list)
    corrections: dict[str, Any] = field(default_factory=dict)
    combinations: dict[str, Any] = field(default_factory=dict)


def combine_sex(experiment: Experiment, sex: str, combined: Combined) -> None:
    """Fit one sex on validation and apply it to its splits; contrasts that were not tested are left out."""
    cells = [cell for cell in experiment.grid if cell.sex == sex and is_tested(experiment, cell)]
    if not cells:
        return
    splits = {name: split_predictions(experiment, cells, name) for name in PERSON_SPLITS}
    fitted = combined.fitted[sex] = fit_sex(experiment, sex, cells, splits[FITTED_ON])
    combined.combinations[sex] = {name: c.to_dict() for name, c in fitted.combinations.items()}
    for name, split in splits.items():
        if split is None:
            continue
        table, record = fitted.apply(split, name)
        combined.deltas.setdefault(name, []).append(table)
        combined.corrections.setdefault(sex, {})[name] = record
        combined.persons.append(person_predictions(experiment, fitted, split, name, cells))


def is_tested(experiment: Experiment, cell: Cell) -> bool:
    """Whether a cell has predictions of any split."""
    return any(experiment.cell_paths(cell).predictions(split).is_file() for split in PERSON_SPLITS)


def write_records(experiment: Experiment, combined: Combined, persons: pd.DataFrame) -> None:
    """What was fitted, so that it can be applied and checked again."""
    chosen = experiment.settings.deltas
    write_json(
        {
            "method": chosen.bias_correction,
            "fitted_on": FITTED_ON,
            "cross_fit": chosen.cross_fit,
            "corrections": combined.corrections,
        },
        experiment.paths.bias_correction,
    )
    write_json(
        {
            "chosen": chosen.combination,
            "fitted_on": FITTED_ON,
            "combinations": combined.combinations,
            "combination_against_best_contrast": against_best_contrast(experiment, persons),
        },
        experiment.paths.combination,
    )


def write_tables(experiment: Experiment, combined: Combined, rows: list[dict[str, Any]]) -> None:
    """The deltas of each split, and the metrics of everything (without small groups in summary/)."""
    paths, persons_shown = experiment.paths, experiment.individual_level
    for name, tables in combined.deltas.items():
        write_table(pd.concat(tables, ignore_index=True), paths.deltas(name))
    metrics = metrics_table(rows, long_deltas(combined), experiment.settings.deltas.combination)
    write_table(metrics, paths.metrics_table)
    safe = metrics if persons_shown else export_safe_metrics(metrics)
    write_summary_table(safe, paths.summary_metrics, persons_shown)
    weights = [f.weights_table() for f in combined.fitted.values() if f.combines]
    if weights:
        write_summary_table(pd.concat(weights), paths.combination_weights, persons_shown)
    say(f"deltas written to {', '.join(str(paths.deltas(name)) for name in combined.deltas)}")


def long_deltas(combined: Combined) -> pd.DataFrame:
    """The deltas of all sexes and splits, with a column split."""
    parts = [pd.concat(tables).assign(split=name) for name, tables in combined.deltas.items()]
    return pd.concat(parts, ignore_index=True)


def write_reliability(experiment: Experiment, combined: Combined) -> None:
    """Agreement of the networks of each cell, and of first and second scans where there are any."""
    paths = experiment.paths
    made = {paths.reliability: network_reliability(experiment)}
    if experiment.settings.deltas.retest:
        made[paths.test_retest] = retest_reliability(
            experiment, combined.fitted, long_deltas(combined)
        )
    for path in (paths.reliability, paths.test_retest):
        table = made.get(path)
        if table is None or table.empty:
            path.unlink(missing_ok=True)  # of an earlier run with other networks or scans
            continue
        write_summary_table(table, path, experiment.individual_level)
        say(f"reliability of deltas written to {path}")


def cell_rows(experiment: Experiment) -> list[dict[str, Any]]:
    """Metrics of the tested cells; a cell of the grid that was not tested is a problem."""
    rows = []
    for cell in experiment.grid:
        found = [read_metrics(experiment, cell, split) for split in PERSON_SPLITS]
        if not any(found):
            experiment.problem(f"{cell.name} was not tested and is missing from the deltas.")
        for metrics in found:
            rows += rows_of_cell(metrics) if metrics else []
    return rows


def split_predictions(
    experiment: Experiment, cells: list[Cell], split: str
) -> SplitPredictions | None:
    """The predictions of a sex in one split, contrasts side by side."""
    tables = [read_predictions(experiment, cell, split) for cell in cells]
    if all(table is None for table in tables):
        return None
    return SplitPredictions.from_tables(tables)


def fit_sex(
    experiment: Experiment, sex: str, cells: list[Cell], validation: SplitPredictions | None
) -> SexDeltas:
    """Combination and bias correction of one sex; without validation both are refused with a reason."""
    chosen = experiment.settings.deltas
    contrasts = [cell.contrast.name for cell in cells]
    rules = DeltaRules(
        chosen.combination,
        chosen.bias_correction,
        chosen.cross_fit,
        chosen.allow_in_sample,
        chosen.bootstrap_weights,
    )
    fitted = SexDeltas(sex, contrasts, rules)
    if validation is None:
        validation = SplitPredictions([], np.zeros(0), np.zeros((0, len(cells))), [])
    return fitted.fit(validation, generator(experiment.settings.training.seed, "combination", sex))


def person_predictions(
    experiment: Experiment,
    fitted: SexDeltas,
    split: SplitPredictions,
    name: str,
    cells: list[Cell],
) -> pd.DataFrame:
    """A row a subject: each contrast, each combination, and what the mean-age model says."""
    table = pd.DataFrame({"age_years": split.ages_years, "sex": fitted.sex, "split": name})
    for c, contrast in enumerate(fitted.contrasts):
        table[contrast] = split.predicted_years[:, c]
    for method in fitted.combinations:
        table[f"{COMBINED} {method}"] = fitted.combined_years(split, method)
    return table.assign(null=training_mean_age(experiment, cells))


def training_mean_age(experiment: Experiment, cells: list[Cell]) -> float:
    """The mean-age model of a sex: the mean over its tested cells (equal where the lists are)."""
    means = []
    for cell in cells:
        for split in PERSON_SPLITS:
            metrics = read_metrics(experiment, cell, split)
            if metrics:
                means.append(metrics["training_mean_age_years"])
    return float(np.mean(means)) if means else float("nan")


def combination_rows(
    experiment: Experiment, persons: pd.DataFrame, tested: set[tuple[str, str, str]]
) -> list[dict[str, Any]]:
    """Metrics of the combinations by sex, and of everything with the sexes together ("all").

    A contrast that was not tested in every sex has no row of all subjects.
    """
    settings = experiment.settings
    names = [column for column in persons if column not in ("age_years", "sex", "split", "null")]
    groups = [(sex, persons["sex"] == sex) for sex in settings.sexes]
    if len(settings.sexes) > 1:
        groups.append(("all", pd.Series(True, index=persons.index)))
    rows = []
    for name in names:
        contrast, _, method = name.partition(" ")
        for sex, of_sex in groups:
            if not method and sex != "all":
                continue  # the cells' own rows
            for split in PERSON_SPLITS:
                part = persons[of_sex & (persons["split"] == split)]
                untested = not method and any(
                    (name, s, split) not in tested for s in settings.sexes
                )
                if part.empty or untested:
                    continue
                rng = generator(settings.training.seed, "bootstrap", name, sex, split)
                rows.append(
                    row_of_predictor(
                        {
                            "contrast": contrast,
                            "sex": sex,
                            "split": split,
                            "predictor": method or "ensemble",
                        },
                        part[name].to_numpy(float),
                        part["age_years"].to_numpy(float),
                        part["null"].to_numpy(float),
                        rng,
                        settings.mapping.bootstrap_resamples,
                    )
                )
    return rows


def against_best_contrast(experiment: Experiment, persons: pd.DataFrame) -> dict[str, Any] | None:
    """Is the chosen combination better than the contrast that is best on validation, on test?"""
    combined = f"{COMBINED} {experiment.settings.deltas.combination}"
    validation, test = (persons[persons["split"] == split] for split in PERSON_SPLITS)
    if combined not in persons or validation.empty or test.empty:
        return None
    contrasts = [cell.contrast.name for cell in experiment.grid if cell.contrast.name in persons]
    errors = {c: (validation[c] - validation["age_years"]).abs().mean() for c in contrasts}
    errors = {c: error for c, error in errors.items() if np.isfinite(error)}
    if not errors:
        return None
    best = min(errors, key=lambda contrast: errors[contrast])
    difference = paired_mae_difference(
        test[combined].to_numpy(float),
        test[best].to_numpy(float),
        test["age_years"].to_numpy(float),
        generator(experiment.settings.training.seed, "bootstrap", "paired"),
        experiment.settings.mapping.bootstrap_resamples,
    )
    return {"best_contrast_on_validation": best, "mae_difference_years": difference}


def _place(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["contrast"], row["sex"], row["split"]


def tell(experiment: Experiment, combined: Combined, rows: list[dict[str, Any]]) -> None:
    """The combination's accuracy, refusals with their reasons, and what else to know before a delta is used."""
    chosen = experiment.settings.deltas
    for row in rows:
        if (row["contrast"], row["predictor"]) == (COMBINED, chosen.combination) and row["n"]:
            errors = f"MAE {row['mae_years']:.2f} y (mean age: {row['null_mae_years']:.2f} y)"
            who = f"{COMBINED} ({row['predictor']}) {row['sex']} {row['split']}"
            say(f"{who}: n {row['n']}, {errors}")
    for sex, methods in combined.combinations.items():
        reason = methods.get(chosen.combination, {}).get("reason")
        if reason:
            say(f"combination {sex}: {reason}.")
    if chosen.bias_correction == "none":
        return
    if FITTED_ON in combined.deltas:
        fitted = "the corrections were fitted on these subjects; use those of another split."
        say(f"{FITTED_ON} deltas are in-sample: {fitted}")
    for sex, splits in combined.corrections.items():
        last = next(reversed(splits))
        for sentence in correction_sentences(splits[last]):
            say(f"{sex}, {last}: {sentence}")
