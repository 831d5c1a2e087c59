"""-m split: a frozen split of the subject table, stratified by age and sex, families together."""

from __future__ import annotations

import sys

from datasets.splits import make_split
from datasets.subjects import read_id_list, read_subject_table, subjects_hash
from utils.common.errors import UserError
from utils.common.files import write_json
from utils.common.messages import say
from utils.common.paths import move_aside
from utils.common.tables import write_table
from utils.experiment.experiment import Experiment


def run(experiment: Experiment) -> None:
    """Write splits.csv and its record; an existing split is kept unless --yes is given."""
    settings, paths = experiment.settings, experiment.paths
    if not settings.data.subjects:
        raise UserError("-m split: set [DATA] subjects to a table of all subjects first.")
    if paths.splits.exists():
        if not experiment.options.yes:
            raise UserError(
                f"{paths.splits}: a split was made already and stays frozen. --yes makes another one "
                "and moves this one aside; networks trained on it are then no longer comparable."
            )
        for path in (paths.splits, paths.splits_record):
            say(f"moved aside: {move_aside(path, paths.previous)}")
    table = read_subject_table(settings.path(settings.data.subjects))
    if settings.data.exclude:
        excluded = read_id_list(settings.path(settings.data.exclude))
        table = table[~table["subject_id"].isin(excluded)]
    plan = settings.split
    split = make_split(table, plan.fractions, plan.stratum_years, plan.split_seed)
    counts = split["split"].value_counts()
    write_table(split, paths.splits)
    write_json(
        {
            "split_hash": subjects_hash(split["split"] + ":" + split["subject_id"]),
            "seed": plan.split_seed,
            "fractions": plan.fractions,
            "stratum_years": plan.stratum_years,
            "n": {name: int(counts.get(name, 0)) for name in ("train", "validation", "test")},
            "n_without_age": int(table["age_years"].isna().sum()),
        },
        paths.splits_record,
    )
    described = split.merge(table, on="subject_id", suffixes=("", "_table"))
    grouped = described.groupby(["split", "sex"])["age_years"]
    summary = grouped.agg(n="size", mean_age_years="mean", sd_age_years="std").round(2)
    summary.reset_index().to_csv(sys.stdout, index=False)
    say(f"split written to {paths.splits}")
