"""Optimisers and the three schedules against their definitions."""

from __future__ import annotations

import pytest
import torch

from utils.training.optimisation import OptimisationPlan, Schedule, build_optimiser


def groups(layer: torch.nn.Module) -> list[dict]:
    return [{"params": list(layer.parameters())}]


def stepped(plan: OptimisationPlan, losses: list[float], steps_an_epoch: int = 2) -> list[float]:
    """Learning rate after each epoch."""
    torch.manual_seed(0)
    optimiser = build_optimiser(plan, groups(torch.nn.Linear(2, 1)))
    schedule = Schedule(plan, optimiser)
    rates = []
    for epoch, loss in enumerate(losses, start=1):
        for step in range(steps_an_epoch):
            with schedule.stepping(epoch - 1 + step / steps_an_epoch):
                optimiser.step()
        schedule.after_epoch(epoch, loss)
        rates.append(optimiser.param_groups[0]["lr"])
    return rates


def test_published_defaults():
    plan = OptimisationPlan()
    group = build_optimiser(plan, groups(torch.nn.Linear(2, 1))).param_groups[0]
    assert (group["lr"], group["betas"], group["eps"]) == (5e-3, (0.9, 0.999), 1e-8)
    assert group["weight_decay"] == 0
    assert (plan.gamma, plan.patience_epochs, plan.threshold) == (0.5, 15, 1e-7)
    assert (plan.min_rate, plan.max_rate, plan.cycle_steps) == (1e-6, 3e-5, 13200)


@pytest.mark.parametrize(("name", "decayed"), [("adam", False), ("adamW", True)])
def test_only_adamw_decays_weights_apart_from_the_gradient(name, decayed):
    layer = torch.nn.Linear(2, 1)
    before = layer.weight.detach().clone()
    plan = OptimisationPlan(optimiser=name, learning_rate=0.1, weight_decay=0.5)
    optimiser = build_optimiser(plan, groups(layer))
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
    with pytest.raises(ValueError, match="no schedule called 'linear'"):
        stepped(OptimisationPlan(schedule="linear"), [])


def rates_of_steps(plan: OptimisationPlan, n_epochs: int, n_steps: int) -> list[float]:
    """The rate with which each step is made."""
    optimiser = build_optimiser(plan, groups(torch.nn.Linear(2, 1)))
    schedule = Schedule(plan, optimiser)
    rates = []
    for epoch in range(1, n_epochs + 1):
        for step in range(n_steps):
            with schedule.stepping(epoch - 1 + step / n_steps):
                rates.append(optimiser.param_groups[0]["lr"])
                optimiser.step()
            assert schedule.last_rate == rates[-1]
        schedule.after_epoch(epoch, 1.0)
    return rates


def test_cosine_falls_to_its_floor_as_torch_says():
    plan = OptimisationPlan(learning_rate=1.0, schedule="cosine", min_rate=0.1, n_epochs=3)
    reference = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(reference, T_max=6, eta_min=0.1)
    expected = []
    for _ in range(6):
        expected.append(reference.param_groups[0]["lr"])
        reference.step()
        torchs.step()
    assert rates_of_steps(plan, 3, 2) == pytest.approx(expected)
    assert rates_of_steps(plan, 4, 1)[3] == pytest.approx(0.1)  # and stays there


@pytest.mark.parametrize("kind", ["plateau", "step", "cosine"])
def test_warm_up_rises_from_a_hundredth_and_the_schedule_waits(kind):
    plan = OptimisationPlan(
        learning_rate=1.0, schedule=kind, warm_up_epochs=2, patience_epochs=0, threshold=0.5,
        step_size_epochs=1, gamma=0.5, min_rate=0.0, n_epochs=6,
    )  # fmt: skip
    rates = rates_of_steps(plan, 4, 2)
    # 0.01 + 0.99 * progress / 2 at progress 0, 0.5, 1, 1.5
    assert rates[:4] == pytest.approx([0.01, 0.2575, 0.505, 0.7525])
    after = {
        "plateau": [1.0, 1.0, 0.5, 0.5],  # it looks from the end of the second epoch on
        "step": [0.5, 0.5, 0.25, 0.25],
        "cosine": [1.0, 0.9619397662556434, 0.8535533905932737, 0.6913417161825449],
    }
    assert rates[4:] == pytest.approx(after[kind])


def test_the_cycle_begins_after_the_warm_up():
    plan = OptimisationPlan(
        learning_rate=0.1,
        schedule="cyclic",
        min_rate=0.1,
        max_rate=0.5,
        cycle_steps=4,
        warm_up_epochs=2,
    )
    rates = rates_of_steps(plan, 5, 2)
    assert rates[:4] == pytest.approx([0.001, 0.02575, 0.0505, 0.07525])
    assert rates[4:] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.4])


def test_the_floor_of_a_slow_group_is_as_much_lower():
    plan = OptimisationPlan(learning_rate=1.0, schedule="cosine", min_rate=0.2, n_epochs=2)
    slow, fast = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    optimiser = build_optimiser(
        plan, [{**groups(fast)[0], "lr": 1.0}, {**groups(slow)[0], "lr": 0.1}]
    )
    with Schedule(plan, optimiser).stepping(2.0):
        assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([0.2, 0.02])


def test_groups_keep_their_own_rates_in_warm_up_and_cosine():
    plan = OptimisationPlan(
        learning_rate=1.0, schedule="cosine", min_rate=0.0, n_epochs=4, warm_up_epochs=2
    )
    slow, fast = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    optimiser = build_optimiser(
        plan, [{**groups(fast)[0], "lr": 1.0}, {**groups(slow)[0], "lr": 0.1}]
    )
    schedule = Schedule(plan, optimiser)
    for progress, factor in ((1.0, 0.505), (2.0, 1.0), (3.0, 0.5), (4.0, 0.0)):
        with schedule.stepping(progress):
            rates = [group["lr"] for group in optimiser.param_groups]
            assert rates == pytest.approx([factor, 0.1 * factor])
    assert [group["lr"] for group in optimiser.param_groups] == [1.0, 0.1]


@pytest.mark.parametrize("kind", ["plateau", "cyclic", "step", "cosine"])
def test_a_kept_schedule_is_plain_values_and_goes_on(kind):
    plan = OptimisationPlan(
        learning_rate=0.5, schedule=kind, patience_epochs=1, step_size_epochs=2, min_rate=0.01,
        max_rate=0.4, cycle_steps=3,
    )  # fmt: skip
    layer = torch.nn.Linear(2, 1)
    first = build_optimiser(plan, groups(layer))
    schedule = Schedule(plan, first)
    losses = [3.0, 3.0, 2.0, 3.0, 3.0, 3.0, 3.0]

    def epoch(optimiser, schedule, loss):
        for _ in range(2):
            with schedule.stepping(0.0):
                optimiser.step()
        schedule.after_epoch(1, loss)
        return optimiser.param_groups[0]["lr"]

    for loss in losses[:3]:
        epoch(first, schedule, loss)
    kept = schedule.state_dict()
    plain = (int, float, str, bool, list, tuple, type(None))
    assert kept and all(isinstance(value, plain) for value in kept.values())
    second = build_optimiser(plan, groups(layer))
    continued = Schedule(plan, second)
    second.load_state_dict(first.state_dict())
    continued.load_state_dict(dict(kept))
    goes_on = [epoch(first, schedule, loss) for loss in losses[3:]]
    assert goes_on == [epoch(second, continued, loss) for loss in losses[3:]]
    assert len(set(goes_on)) > 1 or kind == "cosine"  # which has no state
