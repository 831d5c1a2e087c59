"""The Solver trains the networks of one cell: one pass over the data for all of them.

All members see the same batches in the same order with the same augmentation; each has its own seed for
initialisation and dropout. Order, augmentation and dropout are functions of seed, epoch and step, so a
run that was interrupted, within an epoch as well, and goes on from its last checkpoint equals one that was
not, bit for bit on the CPU (same machine, versions and number of threads). Several processes each take their
part of every batch, decide everything alike, and the first of them keeps what is kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from BrainAgeNetworks.blocks import set_blocks
from BrainAgeNetworks.folding import folded
from BrainAgeNetworks.fused.cuda import available
from BrainAgeNetworks.precision import exact_convolutions
from BrainAgeNetworks.recomputing import is_recomputing
from datasets.augmentation import AugmentationPlan
from datasets.device_batches import on_device
from datasets.loaders import Batch, CellVolumes, Epoch, evaluation_epoch, training_epoch
from utils.common.errors import UserError
from utils.common.interruption import STOP
from utils.common.messages import progress, say, warn
from utils.training.member import Member
from utils.training.memory import is_out_of_memory, out_of_memory_message
from utils.training.processes import Processes
from utils.training.side_by_side import RunEach, run_each
from utils.training.step import TrainingStep


class Keeper(Protocol):
    """What becomes of a member at the end of an epoch, and where it stands within one."""

    def keep(self, member: Member, is_best: bool) -> None: ...

    def keep_position(self, member: Member) -> None: ...


@dataclass(frozen=True)
class LoopPlan:
    """The loop over epochs and batches."""

    n_epochs: int
    training_batch_size: int
    validation_batch_size: int
    seed: int  # of order and augmentation
    augmentation: AugmentationPlan
    sampling: str = "each"
    n_workers: int = 0
    checkpoint_s: float = math.inf  # a checkpoint within an epoch after so many seconds
    smallest_group: int = 2  # a smaller last batch joins the one before


class Solver:
    """Trains members together; knows nothing of files, settings or contrasts."""

    def __init__(self, members: list[Member], step: TrainingStep, keeper: Keeper):
        self.members, self.step, self.keeper = members, step, keeper
        self.processes = step.processes
        self._kept_at = time.monotonic()
        self._settled = False  # how blocks are computed
        self._is_validating = False

    def fit(self, train: CellVolumes, validation: CellVolumes, plan: LoopPlan) -> None:
        """Train every member up to `plan.n_epochs` epochs or its early stop.

        Raises
        ------
        UserError
            An epoch had nothing to learn from, or nothing to validate with.
        StopRequested
            A signal asked for it; the members were kept where they stand.
        """
        batch_voxels = plan.training_batch_size * math.prod(train.reader.contrast.box)
        alone = self.step.device.type == "cpu" and not any(m.has_dropout for m in self.members)
        alone = alone and self.processes.n == 1  # several exchange what they do in one order
        with (
            run_each(max(len(self.members), 1), batch_voxels, possible=alone) as each,
            STOP.between_steps(),
        ):
            try:
                self._fit(train, validation, plan, each)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                raise UserError(self._out_of_memory(train, plan, error)) from error

    def _out_of_memory(self, train: CellVolumes, plan: LoopPlan, error: Exception) -> str:
        """The sentence about what did not fit: a validation batch, or a training step."""
        if self._is_validating:
            return (
                f"validating {plan.validation_batch_size} volumes at a time does not fit into memory; lower "
                "[TRAINING] validation_batch_size."
            )
        return out_of_memory_message(
            self.members[0].network,
            train.reader.contrast.box,
            -(-plan.training_batch_size // (self.step.n_parts * self.processes.n)),
            self.step.device,
            self.step.precision,
            recomputing=is_recomputing(self.members[0].network),
            error=error,
            n_parts=self.step.n_parts,
            n_processes=self.processes.n,
        )

    def _fit(
        self, train: CellVolumes, validation: CellVolumes, plan: LoopPlan, each: RunEach
    ) -> None:
        self._begin_with_given(validation, plan, each)
        first = min((member.epoch for member in self.members), default=0) + 1
        epochs = progress(range(first, plan.n_epochs + 1), description="epochs", unit="epoch")
        for epoch in epochs:
            # a member may be ahead: the run was killed between two members' checkpoints
            active = [m for m in self.members if m.epoch == epoch - 1 and not m.stopped]
            if not active and all(m.stopped for m in self.members):
                break
            if not active:
                continue
            start = time.monotonic()
            self._train_epoch(active, train, plan, epoch, each)
            losses, maes = self._validate(active, validation, plan, epoch, each)
            for i, member in enumerate(active):
                is_best = member.end_epoch(losses[i], maes[i])
                if self.processes.is_first:
                    self.keeper.keep(member, is_best)
            self._kept_at = time.monotonic()
            say(_epoch_line(active, plan.n_epochs, time.monotonic() - start))
            if self._is_stop_requested():
                STOP.raise_if_requested()

    def _begin_with_given(self, validation: CellVolumes, plan: LoopPlan, each: RunEach) -> None:
        """Validate weights that were given, before they learn: the best of them may be these."""
        given = [member for member in self.members if member.pre_trained and not member.history]
        if not given:
            return
        losses, maes = self._validate(given, validation, plan, 0, each)
        for i, member in enumerate(given):
            member.begin_with(losses[i], maes[i])
            if self.processes.is_first:
                self.keeper.keep(member, is_best=True)
        shown = ", ".join(f"{mae:.2f}" for mae in maes)
        say(f"  before training: validation MAE {shown} y")

    def _train_epoch(
        self,
        active: list[Member],
        train: CellVolumes,
        plan: LoopPlan,
        epoch: int,
        each: RunEach,
    ) -> None:
        """One pass over the training set, from where the members stand."""
        for member in active:
            member.begin_training()
        read = training_epoch(
            train,
            plan.training_batch_size,
            plan.augmentation,
            plan.seed,
            epoch,
            sampling=plan.sampling,
            share=self.processes.share,
            smallest_group=plan.smallest_group,
        )
        first_step = min(member.progress.next_step for member in active)
        n_steps = len(read.groups)
        for batch in on_device(read, self.step.device, plan.n_workers, first_step=first_step):
            self._settle_blocks(batch)

            def learn(i: int, batch: Batch = batch) -> None:
                if active[i].learns_at(batch.step):
                    self.step(active[i], batch, epoch, n_steps)

            each(learn, len(active))
            self._keep_position(active, plan.checkpoint_s)
        if not all(member.progress.n_subjects for member in active):
            raise UserError(_why_no_batch(train, "training", epoch))

    def _settle_blocks(self, batch: Batch) -> None:
        """Look for the quicker way of the blocks, once, on the first batch; for CPUs it is known."""
        if self._settled:
            return
        self._settled = True
        if self.step.device.type != "cuda" or self.processes.n > 1:
            return
        if self.step.blocks == "auto":
            choice = self.step.choose_blocks(self.members[0], batch)
            for member in self.members:
                set_blocks(member.network, choice.way)
            say(f"  {choice.reason}")
        elif self.step.blocks == "fused" and not available()[0]:
            warn(f"blocks = fused: {available()[1]} The plain ones are used.")

    def _validate(
        self,
        active: list[Member],
        validation: CellVolumes,
        plan: LoopPlan,
        epoch: int,
        each: RunEach,
    ) -> tuple[list[float], list[float]]:
        """Mean loss and mean absolute error (years) over the validation set, per member."""
        self._is_validating = True
        losses, errors = (_SubjectMeans(len(active), self.step.device) for _ in range(2))
        for member in active:
            self.processes.buffers_of_first(member.network)
            if member.average:
                self.processes.buffers_of_first(member.average.network)
        networks = [folded(member.evaluated) for member in active]

        @torch.inference_mode()  # a mode of the thread it is entered in
        def look(batch: Batch, i: int) -> None:
            outputs = networks[i](batch.volumes)
            losses.add(i, self.step.loss(outputs, batch.ages_years))
            errors.add(i, (active[i].target.years(outputs) - batch.ages_years).abs())

        share = self.processes.share
        read = evaluation_epoch(validation, plan.validation_batch_size, share=share)
        with exact_convolutions():
            for batch in _every_group(on_device(read, self.step.device, plan.n_workers), read):
                if batch is not None:
                    each(partial(look, batch), len(active))
                self._keep_position(active, math.inf)
        self._is_validating = False
        losses.add_other(self.processes)
        errors.add_other(self.processes)
        if losses.empty:
            raise UserError(_why_no_batch(validation, "validation", epoch))
        return losses.values(), errors.values()

    def _keep_position(self, active: list[Member], after_s: float) -> None:
        """Keep where the members stand when a signal came (and stop), or when the last time is long ago."""
        stop = self._is_stop_requested()
        if stop or time.monotonic() - self._kept_at > after_s:
            for member in active if self.processes.is_first else ():
                self.keeper.keep_position(member)
            self._kept_at = time.monotonic()
        if stop:
            self.processes.barrier()  # who leaves earlier has the first ended before it has written
            STOP.raise_if_requested()

    def _is_stop_requested(self) -> bool:
        """Whether a signal came to any process; all of them learn it at the same step."""
        stop = self.processes.agree_any(bool(STOP.requested))
        if stop and not STOP.requested:
            STOP.requested = "a signal to another process"
        return stop


def _every_group(batches: Iterator[Batch], epoch: Epoch) -> Iterator[Batch | None]:
    """A batch, or None where this process has none, for every group: all processes count alike."""
    n_seen = 0
    for batch in batches:
        yield from [None] * (batch.step - n_seen)
        yield batch
        n_seen = batch.step + 1
    yield from [None] * (len(epoch.groups) - n_seen)


class _SubjectMeans:
    """Means over subjects, not over batches; read from the device once an epoch."""

    def __init__(self, n_members: int, device: torch.device):
        self._sums = torch.zeros(n_members, dtype=torch.float64, device=device)
        self._counts = [0] * n_members

    def add(self, member: int, values: torch.Tensor) -> None:
        self._sums[member] += values.double().sum()
        self._counts[member] += len(values)

    def add_other(self, processes: Processes) -> None:
        """Add the sums of all other processes."""
        counts = self._sums.new_tensor(self._counts)
        self._sums, counts = processes.sum_of(torch.stack([self._sums, counts]))
        self._counts = [int(count) for count in counts.tolist()]

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
