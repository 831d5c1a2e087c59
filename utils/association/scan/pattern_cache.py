"""Patterns of missing values that were met, kept for the next targets as long as they fit."""

from __future__ import annotations

from concurrent.futures import Executor

import numpy as np

from utils.association.scan.patterns import Pattern, patterns_of
from utils.association.scan.predictors import Design

Patterns = list[Pattern]  # one for each group of predictors, design by design

# What the patterns of a scan may take if nothing else is said.
CACHE_BYTES = 512 * 2**20
# Patterns that a thread computes before it asks for more.
TASK = 16


class PatternCache:
    """The patterns of all groups by the packed mask of a target; the longest unused make room for new ones.

    capacity : number of masks that fit into the bytes; never less than one
    """

    def __init__(self, designs: list[Design], n_subjects: int, minimum_n: int, n_bytes: int):
        self._designs, self._minimum_n, self._n_subjects = designs, minimum_n, n_subjects
        groups = [group for design in designs for group in design.groups]
        doubles = sum(g.k**2 + (g.k + 1) * len(g.columns) for g in groups)
        self.capacity = max(1, n_bytes // (8 * doubles + n_subjects // 8 + 1))
        self._kept: dict[bytes, Patterns] = {}

    def take(self, masks: set[bytes], pool: Executor) -> dict[bytes, Patterns]:
        """The patterns of at most `capacity` masks; those that are not kept are computed in the pool."""
        taken = {mask: self._kept.pop(mask) for mask in masks if mask in self._kept}
        missing = list(masks - taken.keys())
        tasks = [missing[i : i + TASK] for i in range(0, len(missing), TASK)]
        for task, made in zip(tasks, pool.map(self._make, tasks)):
            taken.update(zip(task, made))
        self._kept.update(taken)  # behind the others: a dict keeps its order
        while len(self._kept) > self.capacity:
            del self._kept[next(iter(self._kept))]
        return taken

    def _make(self, masks: list[bytes]) -> list[Patterns]:
        bits = np.frombuffer(b"".join(masks), dtype=np.uint8).reshape(len(masks), -1)
        present = np.unpackbits(bits, axis=1, count=self._n_subjects).view(bool)
        # Design by design: its matrix stays in the processor's cache.
        made: list[Patterns] = [[] for _ in masks]
        for design in self._designs:
            for patterns, mask in zip(made, present):
                patterns += patterns_of(design, mask, self._minimum_n)
        return made
