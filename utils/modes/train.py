"""-m train: the networks of every cell, from scratch or from where they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from BrainAgeNetworks.precision import set_up_device
from datasets.loaders import CellVolumes
from utils.common.cores import n_cores
from utils.common.errors import UserError
from utils.common.interruption import STOP
from utils.common.messages import say, warn
from utils.common.paths import move_aside
from utils.experiment.checkpoints import CheckpointKeeper
from utils.experiment.checks.quick import quick_check
from utils.experiment.experiment import Cell, Experiment
from utils.experiment.members import (
    build_member,
    is_finished,
    is_retrained,
    numbers,
    report_member,
)
from utils.experiment.pretraining import start_from
from utils.experiment.together import (
    refuse_differences,
    refuse_different_volumes,
    refuse_unshareable,
    share_networks,
    smallest_group,
)
from utils.experiment.training import (
    choose_device,
    loop_plan,
    member_plan,
    network_seed,
    training_record,
    training_step,
)
from utils.experiment.volumes import (
    cell_volumes,
    report_failures,
    scale_factor_of,
    write_volumes_table,
)
from utils.training.member import Member, MemberPlan
from utils.training.processes import Processes, processes
from utils.training.solver import Solver


def run(experiment: Experiment) -> None:
    """Train every cell; a cell that cannot be trained is a problem, not the end of the run."""
    with processes(lambda: choose_device(experiment)) as (here, device):
        set_up_device(device, experiment.settings.training.deterministic)
        with here.together():
            refuse_no_epochs(experiment)
            quick_check(experiment)
            if here.is_first:
                refuse_to_overwrite(experiment)
        experiment.each_cell(lambda cell: train_cell(experiment, cell, here, device), "trained")


def refuse_no_epochs(experiment: Experiment) -> None:
    """`-e 0` is for weights that were given."""
    if experiment.n_epochs == 0 and not experiment.settings.training.use_pre_trained:
        raise UserError("-e 0 validates given weights; set [TRAINING] use_pre_trained, or train.")


def train_cell(experiment: Experiment, cell: Cell, here: Processes, device: torch.device) -> None:
    """Read the subjects, build or restore the networks, fit, and say what came of it."""
    place = f"{experiment.cells.index(cell) + 1} of {len(experiment.cells)}"
    say(f"training {cell.name} (cell {place}) on {device}")
    with here.together():
        train_subjects = with_age(experiment, cell, "train")
        validation_subjects = with_age(experiment, cell, "validation")
        scale_factor = scale_factor_of(experiment, cell, train_subjects)
        train = cell_volumes(experiment, cell, train_subjects, scale_factor)
        validation = cell_volumes(experiment, cell, validation_subjects, scale_factor)
        mean_age_years = float(train.ages_years.mean())
        null_mae_years = float(np.abs(validation.ages_years - mean_age_years).mean())
        plan = member_plan(experiment, cell, mean_age_years, device)
        for volumes in (train, validation):
            plan.target.check_ages(torch.from_numpy(volumes.ages_years))
        record = training_record(
            experiment, cell, scale_factor, train_subjects, plan, null_mae_years
        )
        members = [
            build_member(experiment, cell, plan, number, record) for number in numbers(experiment)
        ]
    refuse_differences(here, record, members)
    if is_finished(experiment, members, null_mae_years):
        say("  trained already")
        for member in members:
            if member.diverged:
                report_member(experiment, cell, member, null_mae_years)
        return
    with here.together():
        refuse_unshareable(experiment, here, train, validation)
        keep_in_memory(experiment, train, validation)
    refuse_different_volumes(here, train, validation)
    say(
        f"  {len(train)} training and {len(validation)} validation subjects, input "
        f"{' x '.join(map(str, cell.contrast.box))}, scale factor {scale_factor:.6g}; the mean age "
        f"alone has a validation MAE of {null_mae_years:.2f} y"
    )
    if here.is_first:
        set_aside(experiment, cell)
    fit(experiment, cell, here, members, train, validation, record)
    for split, volumes in (("train", train), ("validation", validation)):
        report_failures(experiment, cell, split, volumes)
        if here.is_first:
            write_volumes_table(experiment, cell, split, volumes)
    for member in members:
        report_member(experiment, cell, member, null_mae_years)
    again = [member for member in members if is_retrained(experiment, member, null_mae_years)]
    if again:
        retrain(experiment, cell, here, plan, again, (train, validation), record)
    for split, volumes in (("train", train), ("validation", validation)):
        report_faults(experiment, cell, split, volumes)


def refuse_to_overwrite(experiment: Experiment) -> None:
    """`-c 0` over existing weights is refused without --yes."""
    there = [path for cell in experiment.cells for path in begun_before(experiment, cell)]
    if there and not experiment.options.yes:
        raise UserError(
            f"-c 0: {there[0]} holds weights already ({len(there)} such network(s)). Go on with "
            "-c last, or start afresh with -c 0 --yes: the old run is then moved aside."
        )


def set_aside(experiment: Experiment, cell: Cell) -> None:
    """`-c 0 --yes`: move the old run aside, now that the new one can begin."""
    for folder in begun_before(experiment, cell):
        moved = move_aside(folder, experiment.paths.previous / cell.name)
        say(f"  moved the old run aside: {moved}")


def begun_before(experiment: Experiment, cell: Cell) -> list[Path]:
    """Folders of networks that `-c 0` would train from scratch, and that there are."""
    if experiment.options.checkpoint != "0":
        return []
    paths = map(experiment.cell_paths(cell).network, numbers(experiment))
    return [network.folder for network in paths if network.folder.exists()]


def with_age(experiment: Experiment, cell: Cell, split: str) -> pd.DataFrame:
    """Subjects of a split whose age can be used; the others are counted by reason."""
    subjects = experiment.subjects_of(cell.sex, split)
    usable = subjects["age_years"].notna()
    for reason, count in subjects.loc[~usable, "note"].value_counts().items():
        warn(f"{cell.name} {split}: {count} subject(s) left out: {reason}.")
    if not usable.any():
        raise UserError(f"{cell.name}: no subject of the {split} split has an age.")
    return subjects[usable].reset_index(drop=True)


def keep_in_memory(experiment: Experiment, train: CellVolumes, validation: CellVolumes) -> None:
    """Keep volumes that are not prepared in memory if all fit; else they are decompressed in every epoch."""
    both = (train, validation)
    for volumes in both:
        volumes.note_failures()
    if train.prepared and validation.prepared:
        say(f"  volumes come from {train.reader.cache.folder}")  # type: ignore[union-attr]
    elif sum(v.gigabytes_to_keep() for v in both) <= experiment.settings.data.memory_gb:
        for volumes in both:
            volumes.keep_in_memory(n_cores())
    else:
        say_what_prepare_saves(experiment, train, validation)
    for name, volumes in zip(("training", "validation"), both):
        if len(volumes.failures) == len(volumes):
            raise UserError(
                f"none of the {len(volumes)} {name} volumes can be used; the first, "
                f"{volumes.paths[0]}: {volumes.failures[0]}."
            )


def say_what_prepare_saves(
    experiment: Experiment, train: CellVolumes, validation: CellVolumes
) -> None:
    """Volumes are decompressed in every epoch: what that costs, and what is to be done about it."""
    data = experiment.settings.data
    n_unprepared = len(train.unprepared()) + len(validation.unprepared())
    a_volume = train.seconds_a_volume() or validation.seconds_a_volume()
    seconds = a_volume * n_unprepared / max(1, data.num_workers)
    say(
        f"  {n_unprepared} of {len(train) + len(validation)} volumes are not prepared and do not fit into "
        f"memory_gb = {data.memory_gb:g}; they are decompressed in every epoch by num_workers = "
        f"{data.num_workers} threads, about {seconds:.0f} s an epoch. -m prepare takes that long once; after "
        "it reading costs a twentieth."
    )


def report_faults(experiment: Experiment, cell: Cell, split: str, volumes: CellVolumes) -> None:
    """Name every subject that a fault of the machine kept out of a part of the training."""
    for position, reason in sorted(volumes.faults.items()):
        if position not in volumes.failures:
            experiment.problem(
                f"{cell.name} {split}: subject {volumes.subject_ids[position]} could not always be read, "
                f"and was left out then: {volumes.paths[position]} {reason}."
            )


def fit(
    experiment: Experiment,
    cell: Cell,
    here: Processes,
    members: list[Member],
    train: CellVolumes,
    validation: CellVolumes,
    record: dict,
) -> None:
    """Train the members together and keep their checkpoints."""
    share_networks(experiment, here, members)
    keeper = CheckpointKeeper(experiment, cell, record)
    step = replace(training_step(experiment, members[0]), processes=here)
    plan = replace(loop_plan(experiment, cell), smallest_group=smallest_group(experiment, here))
    try:
        with here.ending_all():
            Solver(members, step, keeper).fit(train, validation, plan)
    finally:
        keeper.close()


def retrain(
    experiment: Experiment,
    cell: Cell,
    here: Processes,
    plan: MemberPlan,
    members: list[Member],
    volumes: tuple[CellVolumes, CellVolumes],
    record: dict,
) -> None:
    """Train collapsed networks once more with another seed; the first attempt is moved aside."""
    fresh = []
    keeper = CheckpointKeeper(experiment, cell, record)
    for member in members:
        seed = network_seed(experiment.settings, cell, member.number, attempt=2)
        again = plan.build(member.number, seed, attempt=2)
        again.pre_trained = start_from(experiment, cell, again, record)
        fresh.append(again)
        if here.is_first:
            with STOP.between_steps():  # that this is the second attempt must not be forgotten
                folder = experiment.cell_paths(cell).network(member.number).folder
                moved = move_aside(folder, experiment.paths.previous / cell.name)
                keeper.keep_position(again)
            say(f"  network {member.number} is trained again with another seed (first: {moved})")
    fit(experiment, cell, here, fresh, *volumes, record)
    for member in fresh:
        report_member(experiment, cell, member, record["validation_null_mae_years"])
