"""Work on a batch cut into slabs, a slab a pair of planes of one volume, by as many threads as torch uses.

What a slab adds to a sum is kept apart and added in the order of the slabs, so results do not depend on
the number of threads, which may differ between threads that train networks side by side.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

_PIECES_A_THREAD = 4  # so that a thread that was interrupted leaves its work to the others


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="slabs")


def work_on_slabs(n_slabs: int, work: Callable[[int, int], None]) -> None:
    """Call work(first, behind the last) for pieces of 0..n_slabs-1; it must release Python's lock."""
    n_threads = torch.get_num_threads()
    if n_threads == 1 or n_slabs == 1:
        work(0, n_slabs)
        return
    n_pieces = min(n_slabs, _PIECES_A_THREAD * n_threads)
    bounds = [n_slabs * i // n_pieces for i in range(n_pieces + 1)]
    pending = iter(list(itertools.pairwise(bounds)))

    def take_pieces() -> None:
        for first, behind in pending:
            work(first, behind)

    pool = _pool(os.getpid())
    others = [pool.submit(take_pieces) for _ in range(n_threads - 1)]
    take_pieces()
    for other in others:
        other.result()
