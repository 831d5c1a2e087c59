"""Which subjects form which batch of an epoch, which part of it a process reads, and how each is changed.

Order, groups and augmentation are functions of seed and epoch; several processes have the groups of one
process, cut into contiguous parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from datasets.augmentation import NO_AUGMENTATION, Augmentation, AugmentationPlan
from datasets.cell_volumes import CellVolumes
from datasets.sampling import EACH, sampled
from utils.common.errors import UserError
from utils.common.randomness import generator

T = TypeVar("T")

# A training batch of one would break batch-norm.
SMALLEST_GROUP = 2


@dataclass(frozen=True)
class Share:
    """Which part of every group a process reads: part `index` of `n`."""

    index: int = 0
    n: int = 1

    def of(self, group: Sequence[T]) -> Sequence[T]:
        """This process's part; parts are contiguous and differ by one at most."""
        size = len(group)
        return group[size * self.index // self.n : size * (self.index + 1) // self.n]


WHOLE = Share()


@dataclass(frozen=True)
class Turn:
    """One subject's turn in an epoch; a later turn of the same subject is augmented otherwise."""

    position: int
    earlier: int = 0  # turns of the subject before this one


@dataclass(frozen=True)
class Part:
    """What one process reads of a group."""

    step: int  # index of the group in its epoch
    turns: Sequence[Turn]
    n_in_group: int  # turns of the group over all processes


@dataclass(frozen=True)
class Epoch:
    """Which subjects form which batch, and how each is augmented: a function of seed and epoch."""

    volumes: CellVolumes
    groups: list[list[int]]
    plan: AugmentationPlan
    words: tuple[int | str, ...]
    smallest: int  # a group with fewer usable subjects is passed over
    share: Share = WHOLE

    def parts(self, first_step: int = 0) -> Iterator[Part]:
        """What this process reads, from group `first_step` on.

        Several processes leave out what is known to fail before they cut a group, so that their parts
        are of one size (but for one subject), and pass over the same groups.
        """
        n_turns: Counter[int] = Counter()
        for step, group in enumerate(self.groups):
            turns = []
            for position in group:
                turns.append(Turn(position, n_turns[position]))
                n_turns[position] += 1
            if self.share.n > 1:
                turns = [turn for turn in turns if turn.position not in self.volumes.failures]
                if len(turns) < self.smallest:
                    continue
            mine = self.share.of(turns)
            if step >= first_step and mine:
                yield Part(step, mine, len(turns))

    def augmentation(self, turn: Turn) -> Augmentation:
        """How the volume of a turn is changed."""
        if self.plan == AugmentationPlan():
            return NO_AUGMENTATION
        words = (*self.words, self.volumes.subject_ids[turn.position])
        return self.plan.draw(generator(*words, *([turn.earlier] if turn.earlier else [])))

    def usable(self, part: Part, was_read: list[bool]) -> list[int]:
        """Which turns of a part make its batch; none where too few could be read.

        Raises
        ------
        UserError
            A volume could not be read, and other processes count on this part.
        """
        usable = [i for i, read in enumerate(was_read) if read]
        if self.share.n == 1:
            return usable if len(usable) >= self.smallest else []
        for turn, read in zip(part.turns, was_read):
            if not read:
                raise UserError(self._why_not(turn.position))
        return usable

    def n_in_group(self, part: Part, usable: list[int]) -> int:
        """Subjects in the batches that all processes make of a group."""
        return len(usable) if self.share.n == 1 else part.n_in_group

    def _why_not(self, position: int) -> str:
        volumes = self.volumes
        return (
            f"subject {volumes.subject_ids[position]}: {volumes.paths[position]} "
            f"{volumes.failures[position]}. With {self.share.n} processes a volume that fails while they "
            "run ends them all: run -m verify and -m prepare, then start them again."
        )


def training_epoch(
    volumes: CellVolumes,
    batch_size: int,
    plan: AugmentationPlan,
    seed: int,
    epoch: int,
    *,
    sampling: str = EACH,
    share: Share = WHOLE,
    smallest_group: int = SMALLEST_GROUP,
) -> Epoch:
    """Order, groups and augmentation of one epoch; see `loaders.training_batches`."""
    smallest = max(SMALLEST_GROUP, smallest_group, share.n)
    if batch_size < smallest and smallest > SMALLEST_GROUP:
        raise UserError(
            f"a training batch of {batch_size} is too small: {share.n} process(es) that share it need "
            f"{smallest} subjects or more."
        )
    _prepare_to_share(volumes, share)
    groups = _groups(sampled(volumes.ages_years, seed, epoch, sampling), batch_size)
    if len(groups) > 1 and len(groups[-1]) < smallest:
        rest = groups.pop()
        groups[-1] += rest
    return Epoch(volumes, groups, plan, (seed, "augmentation", epoch), smallest, share)


def evaluation_epoch(volumes: CellVolumes, batch_size: int, *, share: Share = WHOLE) -> Epoch:
    """All subjects in their order, without augmentation."""
    _prepare_to_share(volumes, share)
    groups = _groups(list(range(len(volumes))), batch_size)
    return Epoch(volumes, groups, AugmentationPlan(), (), 1, share)


def _groups(order: list[int], size: int) -> list[list[int]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def _prepare_to_share(volumes: CellVolumes, share: Share) -> None:
    """Several processes must know beforehand, and alike, which volumes cannot be used."""
    if share.n == 1:
        return
    missing = volumes.unprepared()
    if missing:
        raise UserError(
            f"{len(missing)} of {len(volumes)} volumes are not prepared, e.g. "
            f"{volumes.paths[missing[0]]}: {share.n} processes can only share volumes of the cache. "
            "Run -m prepare first."
        )
    volumes.note_failures()
