"""The members of a cell's ensemble: fresh or restored, finished or not, collapsed or not."""

from __future__ import annotations

from typing import Any

from utils.common.errors import UserError
from utils.common.launcher import launch
from utils.common.messages import say, warn
from utils.experiment.checkpoints import begin_branch, go_on, is_begun
from utils.experiment.experiment import Cell, Experiment
from utils.experiment.pretraining import start_from
from utils.experiment.training import collapsed, network_seed
from utils.training.member import Member, MemberPlan


def numbers(experiment: Experiment) -> list[int]:
    """Which networks of a cell this run trains: all, or the one of --network."""
    size, only = experiment.settings.training.ensemble_size, experiment.options.network
    if only is not None and not 1 <= only <= size:
        raise UserError(f"--network {only}: the ensemble has networks 1 to {size}.")
    return [only] if only else list(range(1, size + 1))


def build_member(
    experiment: Experiment, cell: Cell, plan: MemberPlan, number: int, record: dict[str, Any]
) -> Member:
    """A fresh network, or one that goes on from the checkpoint that -c names."""
    member = plan.build(number, network_seed(experiment.settings, cell, number))
    paths = experiment.cell_paths(cell).network(number)
    choice = experiment.options.checkpoint
    if choice == "0" or (choice == "" and not is_begun(paths)):
        member.pre_trained = start_from(experiment, cell, member, record)
        return member
    go_on(member, paths, choice or "last", record)
    if choice not in ("", "last"):
        if launch().n > 1:
            raise UserError(f"-c {choice} sets files aside; begin it with one process.")
        begin_branch(member, paths, choice, experiment.paths.previous / cell.name)
    within = f", step {member.progress.next_step} of the next" if member.progress.next_step else ""
    say(f"  network {number} goes on after epoch {member.epoch}{within} {member.stopped}".rstrip())
    return member


def is_finished(experiment: Experiment, members: list[Member], null_mae_years: float) -> bool:
    """Whether no member of the cell has an epoch left to train."""
    n_epochs = experiment.n_epochs
    return all(
        (member.stopped or (member.epoch >= n_epochs and member.history))
        and not is_retrained(experiment, member, null_mae_years)
        for member in members
    )


def is_retrained(experiment: Experiment, member: Member, null_mae_years: float) -> bool:
    """Whether a member collapsed or diverged in its first attempt and the settings ask for a second."""
    training = experiment.settings.training
    wanted = training.collapsed_networks == "retrain"
    if training.use_pre_trained and training.pre_trained_head == "keep":
        return False  # it would begin, and end, the same
    failed = member.diverged or is_collapsed(member, null_mae_years)
    return wanted and member.attempt == 1 and failed


def is_collapsed(member: Member, null_mae_years: float) -> bool:
    """No better on validation than the mean age."""
    return collapsed(member.best.get("validation_mae_years", float("nan")), null_mae_years)


def report_member(
    experiment: Experiment, cell: Cell, member: Member, null_mae_years: float
) -> None:
    """Say how a network ended; one that diverged is a problem."""
    ending = f", {member.stopped}" if member.stopped else ""
    name = f"{cell.name} network {member.number}"
    if not member.best:
        say(f"  network {member.number}: no epoch with a finite validation loss{ending}")
    if member.diverged or not member.best:
        how = member.stopped or "never predicted"
        experiment.problem(
            f"{name} {how} and is not used. Lower learning_rate, or set gradient_clip_norm."
        )
        return
    mae = member.best["validation_mae_years"]
    say(
        f"  network {member.number}: best epoch {member.early_stopping.best_epoch} of {member.epoch}"
        f"{ending}, validation MAE {mae:.2f} y"
    )
    if is_collapsed(member, null_mae_years):
        warn(
            f"{name} collapsed: its validation MAE of {mae:.2f} y is no better than the mean age's "
            f"{null_mae_years:.2f} y. It is not averaged in, unless all of them collapse."
        )
