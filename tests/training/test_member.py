"""One network of an ensemble: fresh from its seed, stopped for a reason, kept and continued."""

from __future__ import annotations

import math

import pytest
import torch

from BrainAgeNetworks.checkpoints import load_checkpoint, save_checkpoint
from utils.training.member import Member


def end_epoch(member: Member, train: float = 9.0, validation: float = 9.0) -> bool:
    """End an epoch of two subjects in one step."""
    member.progress.add(0, torch.full((2,), train), torch.tensor(3.0))
    return member.end_epoch(validation, validation / 3)


def row(epoch: int, train: float = 9.0, validation: float = 9.0) -> dict[str, float]:
    return {
        "epoch": epoch, "train_loss": train, "validation_loss": validation,
        "validation_mae_years": validation / 3, "learning_rate": 0.01,
        "gradient_norm": 3.0, "largest_gradient_norm": 3.0,
    }  # fmt: skip


def test_weights_come_from_the_seed_alone(member_plan, same_to_the_bit):
    plan = member_plan()
    torch.manual_seed(1)
    first = plan.build(1, 77)
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(3))  # building draws nothing from the global state
    torch.manual_seed(2)
    same, other = plan.build(2, 77), plan.build(1, 78)
    assert same_to_the_bit(first.network.state_dict(), same.network.state_dict())
    assert not same_to_the_bit(first.network.state_dict(), other.network.state_dict())


def test_dropout_of_a_step_is_a_function_of_seed_epoch_and_step(member_plan):
    first, other = member_plan().build(1, 77), member_plan().build(2, 78)

    def draw(member, epoch, step):
        member.seed_step(epoch, step)
        return tuple(torch.rand(4).tolist())

    assert first.has_dropout and draw(first, 3, 5) == draw(first, 3, 5)
    words = [(first, 3, 5), (first, 3, 6), (first, 4, 5), (other, 3, 5)]
    assert len({draw(*word) for word in words}) == 4
    assert not member_plan(dropout=0.0).build(1, 77).has_dropout


def test_the_end_of_an_epoch(member_plan):
    member = member_plan(patience_epochs=2).build(1, 77)
    assert member.best == {}
    assert end_epoch(member, validation=9.0) and not member.stopped
    assert end_epoch(member, validation=6.0)
    assert not end_epoch(member, validation=7.0) and not member.stopped
    assert not end_epoch(member, validation=6.0)
    assert member.stopped == "stopped early in epoch 4" and member.epoch == 4
    assert member.best == row(2, validation=6.0) and len(member.history) == 4


def test_divergence_is_said(member_plan):
    member = member_plan().build(1, 77)
    end_epoch(member)
    assert not end_epoch(member, math.inf, math.nan)
    assert member.stopped == "diverged in epoch 2" and member.best == row(1)


def test_a_kept_member_is_plain_and_the_same(member_plan, tmp_path, same_to_the_bit):
    member = member_plan().build(3, 77, attempt=2)
    end_epoch(member, math.nan, math.nan)
    save_checkpoint(member.state_dict(), tmp_path / "last.pt")
    again = member_plan().build(3, 1)
    again.load_state_dict(load_checkpoint(tmp_path / "last.pt"))
    assert same_to_the_bit(again.state_dict(), member.state_dict())
    assert (again.seed, again.attempt, again.stopped) == (77, 2, "diverged in epoch 1")


@pytest.mark.parametrize(
    ("patience", "stopped"),
    [(2, "stopped early in epoch 3"), (3, ""), (1, "stopped early in epoch 3")],
)
def test_more_patience_wakes_a_member_that_had_stopped_early(member_plan, patience, stopped):
    member = member_plan(patience_epochs=2).build(1, 77)
    for _ in range(3):
        end_epoch(member)
    assert member.stopped == "stopped early in epoch 3"
    again = member_plan(patience_epochs=patience).build(1, 77)
    again.load_state_dict(member.state_dict())
    assert again.stopped == stopped
