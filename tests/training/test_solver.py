"""The Solver: resumed equals uninterrupted, alone equals together, one pass over the data, honest means."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from BrainAgeNetworks.targets import YearsTarget
from datasets.augmentation import AugmentationPlan
from utils.common.errors import UserError
from utils.training.early_stopping import EarlyStopping
from utils.training.losses import build_loss
from utils.training.member import Member
from utils.training.optimisation import OptimisationPlan, Schedule
from utils.training.progress import EpochProgress
from utils.training.solver import LoopPlan, Solver
from utils.training.step import TrainingStep

CPU = torch.device("cpu")
LOOP = LoopPlan(
    n_epochs=6,
    training_batch_size=4,  # nine subjects: 4 and 5
    validation_batch_size=3,  # four subjects: 3 and 1
    seed=11,
    augmentation=AugmentationPlan(shift_voxels=1, mirror=True),
)


def fit(members, cell, keeper, n_epochs=LOOP.n_epochs, **changes):
    loop = dataclasses.replace(LOOP, n_epochs=n_epochs, **changes)
    Solver(members, TrainingStep(build_loss("mse", YearsTarget(63.0)), CPU), keeper).fit(
        *cell, loop
    )
    return members


def build(plan, numbers=(1, 2)) -> list[Member]:
    return [plan.build(number, 100 + number) for number in numbers]


@pytest.fixture
def in_memory(cell):
    for volumes in cell:
        volumes.keep_in_memory()
    return cell


@pytest.mark.parametrize("patience_epochs", [40, 1])
@pytest.mark.parametrize("schedule", ["plateau", "cyclic", "step"])
def test_resumed_equals_uninterrupted_bit_for_bit(
    in_memory, keeper, member_plan, same_to_the_bit, schedule, patience_epochs
):
    plan = member_plan(schedule, patience_epochs)
    whole = fit(build(plan), in_memory, keeper)
    if patience_epochs == 1:
        assert any(member.stopped.startswith("stopped early") for member in whole)
    else:
        assert [member.epoch for member in whole] == [6, 6]
        assert len({row["learning_rate"] for row in whole[0].history}) > 1
    for epoch in (1, 2, 4):
        kept = [min(epoch, member.epoch) for member in whole]
        resumed = [keeper.restore(m, e) for m, e in zip(build(plan), kept)]
        torch.manual_seed(epoch)  # the global state must not matter
        fit(resumed, in_memory, keeper)
        for first, second in zip(whole, resumed):
            assert same_to_the_bit(first.state_dict(), second.state_dict()), (schedule, epoch)


def test_killed_between_the_checkpoints_of_two_members(
    in_memory, keeper, member_plan, same_to_the_bit
):
    plan = member_plan()
    whole = fit(build(plan, (1, 2, 3)), in_memory, keeper)
    resumed = [keeper.restore(m, e) for m, e in zip(build(plan, (1, 2, 3)), (4, 3, 3))]
    fit(resumed, in_memory, keeper)
    for first, second in zip(whole, resumed):
        assert same_to_the_bit(first.state_dict(), second.state_dict())


def test_a_network_alone_is_the_network_in_the_ensemble(
    in_memory, keeper, member_plan, same_to_the_bit
):
    plan = member_plan()
    together = fit(build(plan, (1, 2, 3)), in_memory, keeper, 3)
    (alone,) = fit(build(plan, (2,)), in_memory, keeper, 3)
    assert same_to_the_bit(together[1].state_dict(), alone.state_dict())


def test_members_differ_by_seed_and_see_the_same_batches(in_memory, keeper, member_plan):
    members = build(member_plan())
    seen = {member.number: [] for member in members}
    for member in members:
        member.network.register_forward_pre_hook(
            lambda _, inputs, number=member.number: seen[number].append(inputs[0].clone())
        )
    fit(members, in_memory, keeper, 2)
    assert len(seen[1]) == len(seen[2]) == 2 * (2 + 2)
    assert all(torch.equal(a, b) for a, b in zip(seen[1], seen[2]))
    assert not torch.equal(seen[1][0], seen[1][4])  # the next epoch has another order
    first, second = (member.network.state_dict() for member in members)
    assert not any(
        torch.equal(first[name], second[name]) for name in first if name.endswith("weight")
        and "Convolution" in name and ".0." in name
    )  # fmt: skip


def test_each_volume_is_read_once_an_epoch_for_all_members(cell, keeper, member_plan, monkeypatch):
    reads: list[str] = []
    reader = type(cell[0].reader)
    original = reader.read_into
    monkeypatch.setattr(
        reader,
        "read_into",
        lambda self, path, *rest: reads.append(path) or original(self, path, *rest),
    )
    fit(build(member_plan(), (1, 2, 3)), cell, keeper, 2)
    assert len(reads) == 2 * 13
    assert sorted(reads) == sorted([*cell[0].paths, *cell[1].paths] * 2)


def test_reading_on_demand_gives_what_memory_gives(cell, keeper, member_plan, same_to_the_bit):
    on_demand = fit(build(member_plan()), cell, keeper, 2)
    for volumes in cell:
        volumes.keep_in_memory()
    kept = fit(build(member_plan()), cell, keeper, 2)
    assert same_to_the_bit([m.state_dict() for m in on_demand], [m.state_dict() for m in kept])


def test_a_diverged_member_stops_and_disturbs_nobody(
    in_memory, keeper, member_plan, same_to_the_bit
):
    plan = member_plan()
    alone = fit(build(plan, (2,)), in_memory, keeper, 3)[0]
    broken, healthy = build(plan)
    with torch.no_grad():
        broken.network.FullyConnected.FullyConnected_1.bias.fill_(math.nan)
    fit([broken, healthy], in_memory, keeper, 3)
    assert broken.stopped == "diverged in epoch 1" and broken.epoch == 1
    assert math.isnan(broken.history[0]["train_loss"]) and 1 not in keeper.best
    assert same_to_the_bit(healthy.state_dict(), alone.state_dict())


class Constant(torch.nn.Module):
    """Predicts the mean age of its target, whatever it sees."""

    def __init__(self):
        super().__init__()
        self.offset = torch.nn.Parameter(torch.zeros(1))

    def forward(self, volumes):
        return self.offset.expand(len(volumes), 1)


def constant_member(mean_age_years: float) -> Member:
    network = Constant()
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-12)
    schedule = Schedule(OptimisationPlan(schedule="step"), optimiser)
    target = YearsTarget(mean_age_years)
    early_stopping, progress = EarlyStopping(40), EpochProgress(CPU)
    return Member(1, 5, 1, network, target, optimiser, schedule, early_stopping, progress)


def test_means_are_over_subjects_not_over_batches(in_memory, keeper):
    train, validation = in_memory
    member = constant_member(63.0)
    fit([member], in_memory, keeper, 1)
    row = member.history[0]
    assert row["train_loss"] == pytest.approx(np.mean((train.ages_years - 63.0) ** 2), rel=1e-6)
    errors = validation.ages_years - 63.0
    assert row["validation_loss"] == pytest.approx(np.mean(errors**2), rel=1e-6)
    assert row["validation_mae_years"] == pytest.approx(np.mean(np.abs(errors)), rel=1e-6)
    batch_means = [np.mean(errors[:3] ** 2), errors[3] ** 2]
    assert abs(np.mean(batch_means) - np.mean(errors**2)) > 1  # the difference is visible here


def test_a_failed_volume_is_in_no_mean(cell, keeper):
    cell[1].paths[0].unlink()
    member = constant_member(63.0)
    fit([member], cell, keeper, 1)
    errors = np.abs(cell[1].ages_years[1:] - 63.0)
    assert member.history[0]["validation_mae_years"] == pytest.approx(errors.mean(), rel=1e-6)


@pytest.mark.parametrize(("part", "n_left"), [(0, 1), (0, 0), (1, 0)])
def test_an_epoch_without_a_batch_ends_the_training(cell, keeper, member_plan, part, n_left):
    volumes, name = cell[part], ("training", "validation")[part]
    for path in volumes.paths[n_left:]:
        path.unlink()
    with pytest.raises(UserError) as caught:
        fit(build(member_plan()), cell, keeper)
    said = str(caught.value)
    least = ("two volumes", "a volume")[part]
    assert said == (
        f"epoch 1: no {name} batch has {least} that can be used ({n_left} of {len(volumes)} can; "
        f"the first that cannot, {volumes.paths[n_left]}: no such file)."
    )
    assert not keeper.best and not list(keeper.folder.glob("*.pt"))


def test_one_training_subject_alone_is_too_few(cell, keeper, member_plan):
    train, validation = cell
    one = dataclasses.replace(
        train,
        subject_ids=train.subject_ids[:1],
        paths=train.paths[:1],
        ages_years=train.ages_years[:1],
    )
    with pytest.raises(UserError, match=r"no training batch has two volumes .* \(1 of 1 can\)\."):
        fit(build(member_plan()), (one, validation), keeper)


def test_validation_teaches_nothing(in_memory, keeper, member_plan, same_to_the_bit):
    train, validation = in_memory
    plan = member_plan("step")
    first = fit(build(plan), (train, validation), keeper, 2)
    second = fit(build(plan), (train, train), keeper, 2)
    for a, b in zip(first, second):
        assert same_to_the_bit(a.network.state_dict(), b.network.state_dict())
        assert a.history[0]["validation_loss"] != b.history[0]["validation_loss"]


def test_a_member_that_is_ahead_of_a_stopped_one_goes_on(
    in_memory, keeper, member_plan, same_to_the_bit
):
    plan = member_plan()
    whole = fit(build(plan), in_memory, keeper)
    stopped, ahead = (keeper.restore(m, e) for m, e in zip(build(plan), (2, 4)))
    stopped.stopped = "diverged in epoch 2"
    fit([stopped, ahead], in_memory, keeper)
    assert stopped.epoch == 2 and same_to_the_bit(ahead.state_dict(), whole[1].state_dict())


def test_when_all_have_stopped_nothing_more_is_read(cell, keeper, member_plan):
    members = build(member_plan(patience_epochs=1))
    for member in members:
        member.stopped = "stopped early in epoch 2"
    for volumes in cell:
        for path in volumes.paths:
            path.unlink()
    fit(members, cell, keeper)
    assert not cell[0].failures and all(member.epoch == 0 for member in members)


def test_it_learns_the_planted_age(in_memory, keeper, member_plan):
    train, _ = in_memory
    plan = member_plan("step", dropout=0.0, step_size_epochs=1000)
    (member,) = fit(build(plan, (1,)), (train, train), keeper, 40, augmentation=AugmentationPlan())
    null_mae = np.abs(train.ages_years - train.ages_years.mean()).mean()
    assert member.best["validation_mae_years"] < null_mae / 2
