"""One training step of one network: forward, backward, update."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from BrainAgeNetworks.fused.choosing import BlockChoice, choose_blocks
from BrainAgeNetworks.precision import computing_in
from datasets.loaders import Batch
from utils.common.randomness import seed_from
from utils.training.losses import Loss
from utils.training.member import Member
from utils.training.processes import ALONE, Processes, without_exchange


@dataclass(frozen=True)
class TrainingStep:
    """How a step is computed; the same for all members."""

    loss: Loss
    device: torch.device
    precision: torch.dtype = torch.float32
    blocks: str = "plain"  # "auto": on a GPU, the quicker way is looked for on the first batch
    n_parts: int = 1  # a batch is gone through in so many parts, and its gradients added up
    processes: Processes = ALONE  # each has its part of every batch
    _shared: dict[int, torch.nn.Module] = field(  # by a member's number
        default_factory=dict, init=False, repr=False
    )

    def __call__(self, member: Member, batch: Batch, epoch: int, n_steps: int) -> None:
        """Learn from a batch of the epoch (from 1), which has `n_steps` of them.

        The gradient is that of the mean loss over the batch's subjects, of all processes and in however
        many parts; batch-norm takes its statistics from a part.
        """
        self._seed(member, epoch, batch.step)
        member.optimiser.zero_grad(set_to_none=True)
        network, n_subjects = self._network(member), max(batch.n_in_group, len(batch.ages_years))
        losses = []
        parts = list(self._parts(batch, n_subjects))
        for i, (volumes, ages_years) in enumerate(parts, start=1):
            with nullcontext() if i == len(parts) else without_exchange(network):
                with computing_in(self.precision, self.device):
                    outputs = network(volumes)
                part = self.loss(_at_least_float32(outputs), ages_years)
                # the gradients of n processes are averaged, not added up
                (part.sum() / (n_subjects / self.processes.n)).backward()
            losses.append(part.detach())
        norm = self._limit_gradients(member)
        with member.schedule.stepping(epoch - 1 + batch.step / n_steps):
            member.optimiser.step()
        if member.average:
            member.average.update(member.network)
        losses_of_all = self.processes.of_group(torch.cat(losses), n_subjects)
        member.progress.add(batch.step, losses_of_all, norm)

    def choose_blocks(self, member: Member, batch: Batch) -> BlockChoice:
        """Try plain and fused blocks on a batch that lies on a GPU."""
        volumes, ages_years = next(self._parts(batch, len(batch.ages_years)))
        return choose_blocks(
            member.network,
            volumes,
            ages_years,
            lambda outputs, ages: self.loss(_at_least_float32(outputs), ages).mean(),
            None if self.precision == torch.float32 else self.precision,
        )

    def _seed(self, member: Member, epoch: int, step: int) -> None:
        """Dropout differs between processes; the first one's is that of one process."""
        member.seed_step(epoch, step)
        if member.has_dropout and not self.processes.is_first:
            torch.manual_seed(seed_from(member.seed, "dropout", epoch, step, self.processes.index))

    def _network(self, member: Member) -> torch.nn.Module:
        if self.processes.n == 1:
            return member.network
        if member.number not in self._shared:
            self._shared[member.number] = self.processes.sharing(member.network)
        return self._shared[member.number]

    def _parts(self, batch: Batch, n_subjects: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        # a part of one subject has no batch statistics worth the name; all processes have as many parts
        n = max(1, min(self.n_parts, n_subjects // self.processes.n // 2))
        return zip(batch.volumes.tensor_split(n), batch.ages_years.tensor_split(n))

    def _limit_gradients(self, member: Member) -> torch.Tensor:
        """Shorten gradients that are longer than the plan allows; the norm they had."""
        parameters = [p for p in member.network.parameters() if p.grad is not None]
        norm = get_total_norm([p.grad for p in parameters])  # type: ignore[misc]
        if limit := member.schedule.plan.clip_norm:
            clip_grads_with_norm_(parameters, limit, norm)
        return norm.detach()


def _at_least_float32(outputs: torch.Tensor) -> torch.Tensor:
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))
