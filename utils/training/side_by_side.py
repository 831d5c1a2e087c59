"""How the members of an ensemble share a CPU.

A small volume keeps one thread busy and leaves the others waiting, so small networks step side by side,
each on one thread: nearly as many times faster as there are cores, and the same bits whatever their
number. Large volumes are worked on in turn by all threads; side by side they would need the memory of all
networks at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

# Voxels of a batch up to which a network keeps only one thread busy (a 4 mm batch of 8 has 0.6 million).
SMALL_BATCH_VOXELS = 4_000_000

Work = Callable[[int], None]
RunEach = Callable[[Work, int], None]


@contextmanager
def run_each(n_members: int, batch_voxels: int, possible: bool) -> Iterator[RunEach]:
    """Give a function that does `work(i)` for i in 0..n-1: side by side where it pays, else in turn.

    `possible` is False on a GPU, and with dropout: its random state is one for all threads.
    """
    if not possible or batch_voxels > SMALL_BATCH_VOXELS:
        yield _in_turn
        return
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # A thread each, also where there are fewer cores: three steps then share two cores evenly.
        with ThreadPoolExecutor(max_workers=n_members) as pool:

            def side_by_side(work: Work, n: int) -> None:
                for _ in pool.map(work, range(n)):
                    pass  # an error in a member is raised here

            yield side_by_side
    finally:
        torch.set_num_threads(n_threads)


def _in_turn(work: Work, n: int) -> None:
    for i in range(n):
        work(i)
