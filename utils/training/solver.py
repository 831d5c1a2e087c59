"""The Solver trains the networks of one cell: one pass over the data for all of them.

All members see the same batches in the same order with the same augmentation; each has its own seed for
initialisation and dropout. Order, augmentation and dropout are functions of seed, epoch and step, so a
run that was interrupted and goes on from its last checkpoint equals one that was not, bit for bit on the
CPU (same machine, versions and number of threads).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch

from datasets.augmentation import AugmentationPlan
from datasets.loaders import Batch, CellVolumes, evaluation_batches, training_batches
from utils.common.errors import UserError
from utils.common.messages import progress, say
from utils.training.losses import Loss
from utils.training.member import Member
from utils.training.side_by_side import RunEach, run_each


class Keeper(Protocol):
    """What becomes of a member at the end of an epoch: checkpoints, history, TensorBoard."""

    def keep(self, member: Member, is_best: bool) -> None: ...


@dataclass(frozen=True)
class LoopPlan:
    """The loop over epochs and batches."""

    n_epochs: int
    training_batch_size: int
    validation_batch_size: int
    seed: int  # of order and augmentation
    augmentation: AugmentationPlan
    n_workers: int = 0


class Solver:
    """Trains members together; knows nothing of files, settings or contrasts."""

    def __init__(self, members: list[Member], loss: Loss, device: torch.device, keeper: Keeper):
        self.members, self.loss, self.device, self.keeper = members, loss, device, keeper

    def fit(self, train: CellVolumes, validation: CellVolumes, plan: LoopPlan) -> None:
        """Train every member up to `plan.n_epochs` epochs or its early stop.

        Raises
        ------
        UserError
            An epoch had nothing to learn from, or nothing to validate with.
        """
        batch_voxels = plan.training_batch_size * math.prod(train.reader.contrast.box)
        alone = self.device.type == "cpu" and not any(m.has_dropout for m in self.members)
        with run_each(max(len(self.members), 1), batch_voxels, possible=alone) as each:
            self._fit(train, validation, plan, each)

    def _fit(
        self, train: CellVolumes, validation: CellVolumes, plan: LoopPlan, each: RunEach
    ) -> None:
        first = min((member.epoch for member in self.members), default=0) + 1
        epochs = progress(range(first, plan.n_epochs + 1), description="epochs", unit="epoch")
        for epoch in epochs:
            # a member may be ahead: the run was killed between two members' checkpoints
            active = [m for m in self.members if m.epoch == epoch - 1 and not m.stopped]
            if not active and all(m.stopped for m in self.members):
                break
            start = time.monotonic()
            train_losses = self._train_epoch(active, train, plan, epoch, each)
            validation_losses, validation_maes = self._validate(
                active, validation, plan, epoch, each
            )
            for i, member in enumerate(active):
                row = {
                    "epoch": epoch,
                    "train_loss": train_losses[i],
                    "validation_loss": validation_losses[i],
                    "validation_mae_years": validation_maes[i],
                    "learning_rate": member.learning_rate,
                }
                self.keeper.keep(member, is_best=member.end_epoch(row))
            if active:
                say(_epoch_line(active, plan.n_epochs, time.monotonic() - start))

    def _train_epoch(
        self,
        active: list[Member],
        train: CellVolumes,
        plan: LoopPlan,
        epoch: int,
        each: RunEach,
    ) -> list[float]:
        """One pass over the training set; mean loss over subjects, per member."""
        means = _SubjectMeans(len(active), self.device)
        for member in active:
            member.network.train()
        batches = training_batches(
            train, plan.training_batch_size, plan.augmentation, plan.seed, epoch, plan.n_workers
        )
        for step, batch in enumerate(self._on_device(batches) if active else ()):

            def learn(i: int, step: int = step, batch: Batch = batch) -> None:
                member = active[i]
                member.seed_step(epoch, step)
                member.optimiser.zero_grad(set_to_none=True)
                losses = self.loss(member.network(batch.volumes), batch.ages_years)
                losses.mean().backward()
                member.optimiser.step()
                member.schedule.after_step()
                means.add(i, losses.detach())

            each(learn, len(active))
        if active and means.empty:
            raise UserError(_why_no_batch(train, "training", epoch))
        return means.values()

    def _validate(
        self,
        active: list[Member],
        validation: CellVolumes,
        plan: LoopPlan,
        epoch: int,
        each: RunEach,
    ) -> tuple[list[float], list[float]]:
        """Mean loss and mean absolute error (years) over the validation set, per member."""
        losses, errors = (_SubjectMeans(len(active), self.device) for _ in range(2))
        for member in active:
            member.network.eval()
        batches = evaluation_batches(validation, plan.validation_batch_size, plan.n_workers)
        for batch in self._on_device(batches) if active else ():

            @torch.inference_mode()  # a mode of the thread it is entered in
            def look(i: int, batch: Batch = batch) -> None:
                outputs = active[i].network(batch.volumes)
                losses.add(i, self.loss(outputs, batch.ages_years))
                errors.add(i, (active[i].target.years(outputs) - batch.ages_years).abs())

            each(look, len(active))
        if active and losses.empty:
            raise UserError(_why_no_batch(validation, "validation", epoch))
        return losses.values(), errors.values()

    def _on_device(self, batches: Iterable[Batch]) -> Iterable[Batch]:
        for batch in batches:
            yield Batch(
                batch.positions,
                batch.volumes.to(self.device),
                batch.ages_years.to(self.device),
            )


class _SubjectMeans:
    """Means over subjects, not over batches; read from the device once an epoch."""

    def __init__(self, n_members: int, device: torch.device):
        self._sums = torch.zeros(n_members, dtype=torch.float64, device=device)
        self._counts = [0] * n_members

    def add(self, member: int, values: torch.Tensor) -> None:
        self._sums[member] += values.double().sum()
        self._counts[member] += len(values)

    @property
    def empty(self) -> bool:
        """Whether there was no subject at all."""
        return not any(self._counts)

    def values(self) -> list[float]:
        return [
            total / count if count else float("nan")
            for total, count in zip(self._sums.tolist(), self._counts)
        ]


def _why_no_batch(volumes: CellVolumes, name: str, epoch: int) -> str:
    """The sentence about an epoch in which too few volumes of a set could be used."""
    failed = sorted(volumes.failures.items())
    why = (
        f"; the first that cannot, {volumes.paths[failed[0][0]]}: {failed[0][1]}" if failed else ""
    )
    least = "two volumes" if name == "training" else "a volume"
    return (
        f"epoch {epoch}: no {name} batch has {least} that can be used "
        f"({len(volumes) - len(failed)} of {len(volumes)} can{why})."
    )


def _epoch_line(members: list[Member], n_epochs: int, seconds: float) -> str:
    rows = [member.history[-1] for member in members]
    maes = ", ".join(f"{row['validation_mae_years']:.2f}" for row in rows)
    losses = ", ".join(f"{row['train_loss']:.4g}" for row in rows)
    return (
        f"  epoch {members[0].epoch}/{n_epochs}: train loss {losses}; "
        f"validation MAE {maes} y; {seconds:.1f} s"
    )
