"""Optimisers and learning-rate schedules: those of the published program, cosine, and warm-up."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import lr_scheduler

# Warm-up begins with this share of the learning rate.
WARM_UP_START = 0.01


@dataclass(frozen=True)
class OptimisationPlan:
    """Optimiser and schedule; defaults are AgeMapper's."""

    optimiser: str = "adam"
    learning_rate: float = 5e-3
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    schedule: str = "plateau"  # plateau, cyclic, step or cosine
    gamma: float = 0.5
    step_size_epochs: int = 250
    patience_epochs: int = 15
    threshold: float = 1e-7
    min_rate: float = 1e-6
    max_rate: float = 3e-5
    cycle_steps: int = 13200
    n_epochs: int = 250  # where the cosine ends
    warm_up_epochs: float = 0.0
    clip_norm: float = 0.0  # 0: gradients stay as they are
    average_decay: float = 0.0  # 0: weights are not averaged


def build_optimiser(plan: OptimisationPlan, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Adam, or AdamW with decoupled weight decay, for groups of parameters with their learning rates."""
    kind = {"adam": torch.optim.Adam, "adamW": torch.optim.AdamW}[plan.optimiser]
    return kind(
        groups,
        lr=plan.learning_rate,
        betas=plan.betas,
        eps=plan.epsilon,
        weight_decay=plan.weight_decay,
        fused=True,
    )


class Schedule:
    """One of four schedules, with or without a warm-up.

    Within the warm-up the rate rises linearly to the learning rate and the schedule waits; a plateau, say,
    is looked for only after it. Warm-up and cosine are functions of the progress, and keep no state.
    """

    def __init__(self, plan: OptimisationPlan, optimiser: torch.optim.Optimizer):
        self.plan, self.optimiser = plan, optimiser
        self.last_rate = float(optimiser.param_groups[0]["lr"])  # of the last step's first group
        # those of layer_learning_rates
        self._factors = [group["lr"] / plan.learning_rate for group in optimiser.param_groups]
        self._published = _published_schedule(plan, optimiser, self._factors)

    @contextmanager
    def stepping(self, progress_epochs: float) -> Iterator[None]:
        """The rates of the step at `progress_epochs` (2.5: half-way through the third epoch)."""
        groups = self.optimiser.param_groups
        scheduled = [group["lr"] for group in groups]
        for group, factor in zip(groups, self._factors):
            group["lr"] = self._rate(group["lr"], factor, progress_epochs)
        self.last_rate = float(groups[0]["lr"])
        yield
        for group, rate in zip(groups, scheduled):
            group["lr"] = rate
        is_warm = progress_epochs >= self.plan.warm_up_epochs
        if is_warm and isinstance(self._published, lr_scheduler.CyclicLR):
            self._published.step()

    def _rate(self, rate: float, factor: float, progress_epochs: float) -> float:
        warm_up = self.plan.warm_up_epochs
        if progress_epochs < warm_up:
            return rate * (WARM_UP_START + (1 - WARM_UP_START) * progress_epochs / warm_up)
        if self.plan.schedule != "cosine":
            return rate
        length = max(self.plan.n_epochs - warm_up, 1e-9)
        fallen = min((progress_epochs - warm_up) / length, 1.0)
        floor = min(self.plan.min_rate * factor, rate)
        return floor + (rate - floor) * (1 + math.cos(math.pi * fallen)) / 2

    def after_epoch(self, epoch: int, validation_loss: float) -> None:
        """The plateau schedule looks at the loss, the step schedule counts."""
        if epoch < self.plan.warm_up_epochs:
            return
        if isinstance(self._published, lr_scheduler.ReduceLROnPlateau):
            self._published.step(validation_loss)
        elif isinstance(self._published, lr_scheduler.StepLR):
            with (
                warnings.catch_warnings()
            ):  # after a stop at an epoch's last step there was no step here
                warnings.filterwarnings(
                    "ignore", message="Detected call of `lr_scheduler.step", category=UserWarning
                )
                self._published.step()

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        state = self._published.state_dict() if self._published else {}
        plain = {
            key: value
            for key, value in state.items()
            if isinstance(value, (int, float, str, bool, list, tuple, type(None)))
        }
        return plain | {"last_rate": self.last_rate}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a kept state."""
        state = dict(state)
        self.last_rate = state.pop("last_rate", self.last_rate)  # 0.2.0 did not keep it
        if self._published:
            self._published.load_state_dict(state)


def _published_schedule(
    plan: OptimisationPlan, optimiser: torch.optim.Optimizer, factors: list[float]
) -> lr_scheduler.LRScheduler | None:
    if plan.schedule == "plateau":
        return lr_scheduler.ReduceLROnPlateau(
            optimiser,
            factor=plan.gamma,
            patience=plan.patience_epochs,
            threshold=plan.threshold,
            threshold_mode="abs",
            min_lr=[plan.min_rate * factor for factor in factors],
        )
    if plan.schedule == "cyclic":
        return lr_scheduler.CyclicLR(
            optimiser,
            base_lr=[plan.min_rate * factor for factor in factors],
            max_lr=[plan.max_rate * factor for factor in factors],
            step_size_up=plan.cycle_steps,
            cycle_momentum=False,  # Adam has no momentum to cycle
        )
    if plan.schedule == "step":
        return lr_scheduler.StepLR(optimiser, step_size=plan.step_size_epochs, gamma=plan.gamma)
    if plan.schedule == "cosine":
        return None
    raise ValueError(f"no schedule called {plan.schedule!r}")
