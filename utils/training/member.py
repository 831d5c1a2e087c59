"""One network of an ensemble with all that it needs to learn, stop, be kept and go on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from BrainAgeNetworks.registry import NetworkPlan, build_network
from BrainAgeNetworks.targets import Target
from utils.common.randomness import seed_from
from utils.training.early_stopping import EarlyStopping
from utils.training.optimisation import OptimisationPlan, Schedule, build_optimiser

STOPPED_EARLY = "stopped early"


@dataclass
class Member:
    """A network, its optimiser, schedule, early stopping, and history (a row an epoch)."""

    number: int  # from 1
    seed: int
    attempt: int  # 2 after a collapsed network was trained again
    network: torch.nn.Module
    target: Target
    optimiser: torch.optim.Optimizer
    schedule: Schedule
    early_stopping: EarlyStopping
    epoch: int = 0  # finished epochs
    stopped: str = ""  # why it does not go on
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def learning_rate(self) -> float:
        """Of the first parameter group."""
        return float(self.optimiser.param_groups[0]["lr"])

    @property
    def best(self) -> dict[str, float]:
        """The history row of the best epoch; empty before the first."""
        return next((r for r in self.history if r["epoch"] == self.early_stopping.best_epoch), {})

    @property
    def has_dropout(self) -> bool:
        """Whether a training step draws random numbers."""
        return any(isinstance(layer, torch.nn.Dropout) for layer in self.network.modules())

    def seed_step(self, epoch: int, step: int) -> None:
        """Dropout of a step depends on this network's seed, the epoch and the step alone."""
        if self.has_dropout:
            torch.manual_seed(seed_from(self.seed, "dropout", epoch, step))

    def end_epoch(self, row: dict[str, float]) -> bool:
        """Take an epoch's losses; move schedule and early stopping; True if it is the best so far."""
        self.epoch = int(row["epoch"])
        self.history.append(row)
        is_best = self.early_stopping.update(row["validation_loss"], self.epoch)
        if not math.isfinite(row["train_loss"]):
            self.stopped = f"diverged in epoch {self.epoch}"
        elif self.early_stopping.should_stop(self.epoch):
            self.stopped = f"{STOPPED_EARLY} in epoch {self.epoch}"
        self.schedule.after_epoch(row["validation_loss"])
        return is_best

    def state_dict(self) -> dict[str, Any]:
        """Everything that has to be kept to continue exactly: tensors and plain values."""
        return {
            "number": self.number,
            "seed": self.seed,
            "attempt": self.attempt,
            "epoch": self.epoch,
            "stopped": self.stopped,
            "weights": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "early_stopping": self.early_stopping.state_dict(),
            "history": [dict(row) for row in self.history],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a kept state."""
        self.seed, self.attempt = state["seed"], state["attempt"]
        self.epoch, self.stopped = state["epoch"], state["stopped"]
        self.network.load_state_dict(state["weights"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.early_stopping.load_state_dict(state["early_stopping"])
        self.history = [dict(row) for row in state["history"]]
        stopped_early = self.stopped.startswith(STOPPED_EARLY)
        if stopped_early and not self.early_stopping.should_stop(self.epoch):
            self.stopped = ""  # it may be more patient now than when it stopped


@dataclass(frozen=True)
class MemberPlan:
    """What the members of an ensemble have in common."""

    network: NetworkPlan
    target: Target
    optimisation: OptimisationPlan
    patience_epochs: int
    min_delta: float
    min_epochs: int
    device: torch.device

    def build(self, number: int, seed: int, attempt: int = 1) -> Member:
        """A member with fresh weights drawn from `seed`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build_network(self.network)
        # channels last is the layout in which 3D convolutions are quickest, on CPUs about twice
        network.to(self.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        optimiser = build_optimiser(self.optimisation, network)
        return Member(
            number=number,
            seed=seed,
            attempt=attempt,
            network=network,
            target=self.target,
            optimiser=optimiser,
            schedule=Schedule(self.optimisation, optimiser),
            early_stopping=EarlyStopping(self.patience_epochs, self.min_delta, self.min_epochs),
        )
