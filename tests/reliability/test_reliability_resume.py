"""R3: a training that was stopped after any optimiser step and goes on equals one that was not, bit for bit.

Two epochs of five steps are stopped after each of their ten steps, in each of four ways of training:
with the plateau, cyclic and cosine schedules, early stopping, augmentation, dropout, averaged weights, with
and without reading threads.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from BrainAgeNetworks.checkpoints import load_checkpoint, save_checkpoint
from BrainAgeNetworks.registry import NetworkPlan
from BrainAgeNetworks.targets import YearsTarget
from datasets.augmentation import AugmentationPlan
from datasets.loaders import CellVolumes
from datasets.volumes import VolumeReader
from utils.common.interruption import STOP, StopRequested
from utils.training.losses import build_loss
from utils.training.member import MemberPlan
from utils.training.optimisation import OptimisationPlan
from utils.training.solver import LoopPlan, Solver
from utils.training.step import TrainingStep

CPU = torch.device("cpu")
N_EPOCHS, N_STEPS = 2, 5

WAYS = {
    "plateau, no threads": (
        OptimisationPlan(learning_rate=0.01, patience_epochs=0, threshold=1e9), 0.0, 0, {}
    ),
    "cyclic, dropout, two threads": (
        OptimisationPlan(schedule="cyclic", min_rate=0.001, max_rate=0.02, cycle_steps=3), 0.3, 2, {}
    ),
    "cosine, warm-up, averaged, clipped": (
        OptimisationPlan(
            learning_rate=0.01, schedule="cosine", n_epochs=2, warm_up_epochs=0.5,
            average_decay=0.9, clip_norm=1.0, optimiser="adamW", weight_decay=0.01,
        ), 0.0, 2, {},
    ),
    "step, accumulated, turned": (
        OptimisationPlan(learning_rate=0.01, schedule="step", step_size_epochs=1), 0.3, 0,
        {"rotation_degrees": 10.0, "zoom_fraction": 0.1, "gain_fraction": 0.1},
    ),
}  # fmt: skip


class Keeper:
    """Writes checkpoint files, and asks for a stop after a given number of steps."""

    def __init__(self, folder, stop_after=math.inf):
        self.folder, self.stop_after, self.n_steps = folder, stop_after, 0

    def keep(self, member, is_best):
        self.keep_position(member)
        if is_best:
            save_checkpoint(member.state_dict(), self.folder / f"best_{member.number}.pt")

    def keep_position(self, member):
        save_checkpoint(member.state_dict(), self.folder / f"{member.number}.pt")

    def count(self, step: TrainingStep):
        """The step, counted: the last one that is to be done requests the stop, as a signal would."""

        def counted(member, *rest):
            step(member, *rest)
            self.n_steps += member.number == 1
            if self.n_steps >= self.stop_after:
                STOP.requested = "SIGTERM"

        return counted


class Counted:
    """A TrainingStep that counts."""

    def __init__(self, step, keeper):
        self.loss, self.device, self.processes = step.loss, step.device, step.processes
        self._step = keeper.count(step)

    def __call__(self, *arguments):
        self._step(*arguments)


@pytest.fixture
def cell(tiny_cohort):
    """Ten subjects to train on, three to validate on; neither in the order of their ids."""
    order = np.random.default_rng(3).permutation(len(tiny_cohort.subject_ids)).tolist()
    assert order[:10] != sorted(order[:10])

    def chosen(places):
        return CellVolumes(
            [tiny_cohort.subject_ids[i] for i in places],
            [tiny_cohort.paths[i] for i in places],
            tiny_cohort.ages_years[places],
            VolumeReader(tiny_cohort.contrast, 100.0),
        )

    return chosen(order[:10]), chosen(order[10:])


def trained(cell, way, folder, stop_after=math.inf, go_on=False, **loop_changes):
    """States of two members after training, or after a stop."""
    optimisation, dropout, n_workers, augmentation = WAYS[way]
    plan = MemberPlan(
        network=NetworkPlan("agemapper", (16, 18, 16), 1, (2, 3), (dropout, 0.0, 0.0)),
        target=YearsTarget(63.0),
        optimisation=optimisation,
        patience_epochs=1,
        min_delta=0.0,
        min_epochs=2,
        device=CPU,
    )
    members = [plan.build(number, 100 + number) for number in (1, 2)]
    if go_on:
        for member in members:
            member.load_state_dict(load_checkpoint(folder / f"{member.number}.pt"))
    folder.mkdir(exist_ok=True)
    keeper = Keeper(folder, stop_after)
    step = TrainingStep(
        build_loss("mse", plan.target), CPU, n_parts=2 if "accumulated" in way else 1
    )
    loop = LoopPlan(
        n_epochs=N_EPOCHS,
        training_batch_size=2,
        validation_batch_size=2,
        seed=11,
        augmentation=AugmentationPlan(shift_voxels=1, mirror=True, **augmentation),
        n_workers=n_workers,
    )
    loop = dataclasses.replace(loop, **loop_changes)
    STOP.requested = ""
    try:
        Solver(members, Counted(step, keeper), keeper).fit(*cell, loop)
    finally:
        STOP.requested = ""
    return [member.state_dict() for member in members]


@pytest.mark.parametrize("way", WAYS)
def test_stopped_after_any_step_and_gone_on_with(cell, tmp_path, way, same_to_the_bit):
    whole = trained(cell, way, tmp_path / "whole")
    assert all(state["epoch"] == N_EPOCHS for state in whole)
    best = [load_checkpoint(tmp_path / "whole" / f"best_{number}.pt") for number in (1, 2)]
    for stop_after in range(1, N_EPOCHS * N_STEPS + 1):
        folder = tmp_path / f"stopped_{stop_after}"
        with pytest.raises(StopRequested, match="SIGTERM"):
            trained(cell, way, folder, stop_after)
        kept = load_checkpoint(folder / "1.pt")
        n_done = kept["epoch"] * N_STEPS + kept["progress"]["next_step"]
        assert n_done == stop_after, "the stop was not where it was asked for"
        torch.manual_seed(stop_after)  # the global state must not matter
        again = trained(cell, way, folder, go_on=True)
        assert same_to_the_bit(whole, again), f"{way}: differs after a stop at step {stop_after}"
        resumed_best = [load_checkpoint(folder / f"best_{number}.pt") for number in (1, 2)]
        assert same_to_the_bit(best, resumed_best)


def test_a_checkpoint_within_an_epoch_by_the_clock(cell, tmp_path, same_to_the_bit, monkeypatch):
    positions = []
    original = Keeper.keep_position
    monkeypatch.setattr(
        Keeper,
        "keep_position",
        lambda self, member: positions.append(member.progress.next_step) or original(self, member),
    )
    plain = trained(cell, "plateau, no threads", tmp_path / "plain")
    assert set(positions) == {0}
    positions.clear()
    often = trained(cell, "plateau, no threads", tmp_path / "often", checkpoint_s=0.0)
    assert set(range(1, N_STEPS + 1)) <= set(positions)
    assert same_to_the_bit(plain, often)
