"""Optimisers and the three schedules against their definitions."""

from __future__ import annotations

import pytest
import torch

from utils.training.optimisation import OptimisationPlan, Schedule, build_optimiser


def stepped(plan: OptimisationPlan, losses: list[float], steps_an_epoch: int = 2) -> list[float]:
    """Learning rate after each epoch."""
    torch.manual_seed(0)
    optimiser = build_optimiser(plan, torch.nn.Linear(2, 1))
    schedule = Schedule(plan, optimiser)
    rates = []
    for loss in losses:
        for _ in range(steps_an_epoch):
            optimiser.step()
            schedule.after_step()
        schedule.after_epoch(loss)
        rates.append(optimiser.param_groups[0]["lr"])
    return rates


def test_published_defaults():
    plan = OptimisationPlan()
    group = build_optimiser(plan, torch.nn.Linear(2, 1)).param_groups[0]
    assert (group["lr"], group["betas"], group["eps"]) == (5e-3, (0.9, 0.999), 1e-8)
    assert group["weight_decay"] == 0
    assert (plan.gamma, plan.patience_epochs, plan.threshold) == (0.5, 15, 1e-7)
    assert (plan.min_rate, plan.max_rate, plan.cycle_steps) == (1e-6, 3e-5, 13200)


@pytest.mark.parametrize(("name", "decayed"), [("adam", False), ("adamW", True)])
def test_only_adamw_decays_weights_apart_from_the_gradient(name, decayed):
    layer = torch.nn.Linear(2, 1)
    before = layer.weight.detach().clone()
    plan = OptimisationPlan(optimiser=name, learning_rate=0.1, weight_decay=0.5)
    optimiser = build_optimiser(plan, layer)
    layer.weight.grad = torch.zeros_like(layer.weight)
    layer.bias.grad = torch.zeros_like(layer.bias)
    optimiser.step()
    assert torch.allclose(layer.weight, before * (1 - 0.1 * 0.5)) == decayed


def test_plateau_halves_after_patience_down_to_its_floor():
    plan = OptimisationPlan(learning_rate=1.0, patience_epochs=2, min_rate=0.3)
    rates = stepped(plan, [9.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0])
    assert rates == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.3, 0.3]


def test_plateau_threshold_is_absolute():
    losses = [1000.0, 999.5, 999.0, 998.6]
    plan = OptimisationPlan(learning_rate=1.0, patience_epochs=0, threshold=0.6, min_rate=0.0)
    assert stepped(plan, losses) == [1.0, 0.5, 0.5, 0.25]
    plan = OptimisationPlan(learning_rate=1.0, patience_epochs=0, threshold=1e-7, min_rate=0.0)
    assert stepped(plan, losses) == [1.0] * 4


def test_step_counts_epochs():
    plan = OptimisationPlan(learning_rate=1.0, schedule="step", step_size_epochs=2, gamma=0.1)
    assert stepped(plan, [1.0] * 5) == pytest.approx([1.0, 0.1, 0.1, 0.01, 0.01])


def test_cyclic_counts_steps():
    plan = OptimisationPlan(schedule="cyclic", min_rate=0.1, max_rate=0.5, cycle_steps=4)
    # a triangle: 2 steps an epoch, up in 4 steps, down in 4
    assert stepped(plan, [1.0] * 5) == pytest.approx([0.3, 0.5, 0.3, 0.1, 0.3])


def test_an_unknown_schedule():
    with pytest.raises(ValueError, match="no schedule called 'cosine'"):
        stepped(OptimisationPlan(schedule="cosine"), [])


@pytest.mark.parametrize("kind", ["plateau", "cyclic", "step"])
def test_a_kept_schedule_is_plain_values_and_goes_on(kind):
    plan = OptimisationPlan(
        learning_rate=0.5, schedule=kind, patience_epochs=1, step_size_epochs=2, min_rate=0.01,
        max_rate=0.4, cycle_steps=3,
    )  # fmt: skip
    layer = torch.nn.Linear(2, 1)
    first = build_optimiser(plan, layer)
    schedule = Schedule(plan, first)
    losses = [3.0, 3.0, 2.0, 3.0, 3.0, 3.0, 3.0]

    def epoch(optimiser, schedule, loss):
        for _ in range(2):
            optimiser.step()
            schedule.after_step()
        schedule.after_epoch(loss)
        return optimiser.param_groups[0]["lr"]

    for loss in losses[:3]:
        epoch(first, schedule, loss)
    kept = schedule.state_dict()
    plain = (int, float, str, bool, list, tuple, type(None))
    assert kept and all(isinstance(value, plain) for value in kept.values())
    second = build_optimiser(plan, layer)
    continued = Schedule(plan, second)
    second.load_state_dict(first.state_dict())
    continued.load_state_dict(dict(kept))
    goes_on = [epoch(first, schedule, loss) for loss in losses[3:]]
    assert goes_on == [epoch(second, continued, loss) for loss in losses[3:]]
    assert len(set(goes_on)) > 1
