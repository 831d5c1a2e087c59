"""Optimisers and learning-rate schedules of the published program."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.optim import lr_scheduler


@dataclass(frozen=True)
class OptimisationPlan:
    """Optimiser and schedule; defaults are AgeMapper's."""

    optimiser: str = "adam"
    learning_rate: float = 5e-3
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    schedule: str = "plateau"  # plateau, cyclic or step
    gamma: float = 0.5
    step_size_epochs: int = 250
    patience_epochs: int = 15
    threshold: float = 1e-7
    min_rate: float = 1e-6
    max_rate: float = 3e-5
    cycle_steps: int = 13200


def build_optimiser(plan: OptimisationPlan, network: torch.nn.Module) -> torch.optim.Optimizer:
    """Adam, or AdamW with decoupled weight decay."""
    kind = {"adam": torch.optim.Adam, "adamW": torch.optim.AdamW}[plan.optimiser]
    return kind(
        network.parameters(),
        lr=plan.learning_rate,
        betas=plan.betas,
        eps=plan.epsilon,
        weight_decay=plan.weight_decay,
    )


class Schedule:
    """One of the three schedules behind two calls: after a step, after an epoch."""

    def __init__(self, plan: OptimisationPlan, optimiser: torch.optim.Optimizer):
        self.kind = plan.schedule
        self._schedule: lr_scheduler.LRScheduler
        if plan.schedule == "plateau":
            self._schedule = lr_scheduler.ReduceLROnPlateau(
                optimiser,
                factor=plan.gamma,
                patience=plan.patience_epochs,
                threshold=plan.threshold,
                threshold_mode="abs",
                min_lr=plan.min_rate,
            )
        elif plan.schedule == "cyclic":
            self._schedule = lr_scheduler.CyclicLR(
                optimiser,
                base_lr=plan.min_rate,
                max_lr=plan.max_rate,
                step_size_up=plan.cycle_steps,
                cycle_momentum=False,  # Adam has no momentum to cycle
            )
        elif plan.schedule == "step":
            self._schedule = lr_scheduler.StepLR(
                optimiser, step_size=plan.step_size_epochs, gamma=plan.gamma
            )
        else:
            raise ValueError(f"no schedule called {plan.schedule!r}")

    def after_step(self) -> None:
        """Only the cyclic schedule moves within an epoch."""
        if self.kind == "cyclic":
            self._schedule.step()

    def after_epoch(self, validation_loss: float) -> None:
        """The plateau schedule looks at the loss, the step schedule counts."""
        if isinstance(self._schedule, lr_scheduler.ReduceLROnPlateau):
            self._schedule.step(validation_loss)
        elif self.kind == "step":
            self._schedule.step()

    def state_dict(self) -> dict:
        """Plain values."""
        return {
            key: value
            for key, value in self._schedule.state_dict().items()
            if isinstance(value, (int, float, str, bool, list, tuple, type(None)))
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from a kept state."""
        self._schedule.load_state_dict(state)
