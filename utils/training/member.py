"""One network of an ensemble with all that it needs to learn, stop, be kept and go on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from BrainAgeNetworks.blocks import set_blocks
from BrainAgeNetworks.fused.choosing import way_of_blocks
from BrainAgeNetworks.recomputing import recompute
from BrainAgeNetworks.registry import NetworkPlan, build_network
from BrainAgeNetworks.targets import Target
from utils.common.randomness import seed_from
from utils.training.averaging import WeightAverage
from utils.training.early_stopping import EarlyStopping
from utils.training.fine_tuning import freeze, keep_frozen_statistics, parameter_groups
from utils.training.optimisation import OptimisationPlan, Schedule, build_optimiser
from utils.training.progress import EpochProgress

STOPPED_EARLY = "stopped early"
DIVERGED = "diverged"


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
    progress: EpochProgress
    average: WeightAverage | None = None
    pre_trained: dict[str, Any] = field(default_factory=dict)  # where its first weights are from
    epoch: int = 0  # finished epochs
    stopped: str = ""  # why it does not go on
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def evaluated(self) -> torch.nn.Module:
        """The network that is validated, kept as best and tested: with averaged weights, if they are."""
        return self.average.network if self.average else self.network

    @property
    def best(self) -> dict[str, float]:
        """The history row of the best epoch; empty before the first."""
        return next((r for r in self.history if r["epoch"] == self.early_stopping.best_epoch), {})

    @property
    def diverged(self) -> bool:
        """Whether its loss became infinite or no number; what it was before is not used either."""
        return self.stopped.startswith(DIVERGED)

    @property
    def has_dropout(self) -> bool:
        """Whether a training step draws random numbers."""
        return any(isinstance(layer, torch.nn.Dropout) for layer in self.network.modules())

    def seed_step(self, epoch: int, step: int) -> None:
        """Dropout of a step depends on this network's seed, the epoch and the step alone."""
        if self.has_dropout:
            torch.manual_seed(seed_from(self.seed, "dropout", epoch, step))

    def begin_training(self) -> None:
        """Before the steps of an epoch."""
        self.network.train()
        keep_frozen_statistics(self.network)

    def learns_at(self, step: int) -> bool:
        """Whether a step of the epoch is still to be done, and worth it."""
        return step >= self.progress.next_step and not self.progress.is_lost

    def begin_with(self, validation_loss: float, validation_mae_years: float) -> None:
        """Take the validation of weights that were given, before any step, as epoch 0: the best so far."""
        row = {
            "epoch": 0,
            "train_loss": math.nan,
            "validation_loss": validation_loss,
            "validation_mae_years": validation_mae_years,
            "learning_rate": self.schedule.last_rate,
        }
        self.history.append(row | self.progress.gradient_norms())
        self.early_stopping.update(validation_loss, 0)

    def end_epoch(self, validation_loss: float, validation_mae_years: float) -> bool:
        """Take an epoch's losses; move schedule and early stopping; True if it is the best so far."""
        self.epoch += 1
        row = {
            "epoch": self.epoch,
            "train_loss": self.progress.mean_loss,
            "validation_loss": validation_loss,
            "validation_mae_years": validation_mae_years,
            "learning_rate": self.schedule.last_rate,
            **self.progress.gradient_norms(),
        }
        self.history.append(row)
        self.progress = EpochProgress(self.progress.device)
        is_best = self.early_stopping.update(validation_loss, self.epoch)
        if not math.isfinite(row["train_loss"]) or not math.isfinite(validation_loss):
            self.stopped = f"{DIVERGED} in epoch {self.epoch}"
        elif self.early_stopping.should_stop(self.epoch):
            self.stopped = f"{STOPPED_EARLY} in epoch {self.epoch}"
        self.schedule.after_epoch(self.epoch, validation_loss)
        return is_best and not self.diverged

    def state_dict(self) -> dict[str, Any]:
        """Everything that has to be kept to continue exactly: tensors and plain values."""
        state = {
            "number": self.number,
            "seed": self.seed,
            "attempt": self.attempt,
            "pre_trained": dict(self.pre_trained),
            "epoch": self.epoch,
            "progress": self.progress.state_dict(),
            "stopped": self.stopped,
            "weights": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "early_stopping": self.early_stopping.state_dict(),
            "history": [dict(row) for row in self.history],
        }
        return state | ({"average": self.average.state_dict()} if self.average else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a kept state."""
        self.seed, self.attempt = state["seed"], state["attempt"]
        self.epoch, self.stopped = state["epoch"], state["stopped"]
        self.pre_trained = dict(state.get("pre_trained", {}))
        self.network.load_state_dict(state["weights"])
        self._load_optimiser(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.early_stopping.load_state_dict(state["early_stopping"])
        self.history = [dict(row) for row in state["history"]]
        if "progress" in state:  # 0.2.0 kept nothing within an epoch
            self.progress.load_state_dict(state["progress"])
        if self.average:
            self.average.load_state_dict(state["average"])
        stopped_early = self.stopped.startswith(STOPPED_EARLY)
        if stopped_early and not self.early_stopping.should_stop(self.epoch):
            self.stopped = ""  # it may be more patient now than when it stopped

    def _load_optimiser(self, state: dict[str, Any]) -> None:
        """Moments and rates as they were kept; how they are computed with is this machine's choice."""
        groups = [
            {**kept, "fused": here["fused"], "foreach": here["foreach"]}
            for kept, here in zip(state["param_groups"], self.optimiser.param_groups)
        ]
        self.optimiser.load_state_dict({**state, "param_groups": groups})


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
    blocks: str = "plain"  # how they are computed; see `blocks.set_blocks`
    recompute: bool = False  # in the backward pass, instead of kept
    frozen_layers: tuple[str, ...] = ()  # beginnings of names
    layer_learning_rates: tuple[tuple[str, float], ...] = ()  # beginnings of names, factors

    def build_network(self) -> torch.nn.Module:
        """A network on the CPU whose blocks compute as they are to; weights from torch's random state."""
        network = set_blocks(build_network(self.network), way_of_blocks(self.blocks, self.device))
        return recompute(network) if self.recompute else network

    def build(self, number: int, seed: int, attempt: int = 1) -> Member:
        """A member with fresh weights drawn from `seed`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = self.build_network()
        # channels last is the layout in which 3D convolutions are quickest, on CPUs about twice
        network.to(self.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        freeze(network, self.frozen_layers)
        groups = parameter_groups(
            network, self.optimisation.learning_rate, self.layer_learning_rates
        )
        optimiser = build_optimiser(self.optimisation, groups)
        decay = self.optimisation.average_decay
        return Member(
            number=number,
            seed=seed,
            attempt=attempt,
            network=network,
            target=self.target,
            optimiser=optimiser,
            schedule=Schedule(self.optimisation, optimiser),
            early_stopping=EarlyStopping(self.patience_epochs, self.min_delta, self.min_epochs),
            progress=EpochProgress(self.device),
            average=WeightAverage(network, decay) if decay else None,
        )
