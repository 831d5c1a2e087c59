"""Targets in tiles, in the threads of this process: the patterns of missing values first, then what needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from utils.association.scan.pattern_cache import PatternCache, Patterns
from utils.association.scan.targets import TILE, packed_presence
from utils.common.cores import n_cores

Array = NDArray[np.float64]
Result = TypeVar("Result")

# Targets whose patterns are looked at together.
BLOCK = 512


def in_tiles(
    targets: Array,
    cache: PatternCache,
    n_threads: int | None,
    work: Callable[[slice, list[Patterns]], Result],
) -> Iterator[tuple[slice, Result]]:
    """Do `work` on the columns of targets (S, P), at most TILE at a time; gives columns and what came out, in order.

    The products are done in one thread each, so that their bits do not depend on the number of threads.
    """
    from threadpoolctl import threadpool_limits

    with (
        threadpool_limits(1, "blas"),
        ThreadPoolExecutor(n_threads or n_cores(), thread_name_prefix="scan") as pool,
    ):
        for block in slices(0, targets.shape[1], BLOCK):
            tiles = slices(block.start, block.stop, TILE)
            read = pool.map(lambda tile: packed_presence(targets[:, tile]), tiles)
            masks = [mask for part in read for mask in part]
            for chunk in runs(masks, cache.capacity):
                patterns = cache.take(set(masks[chunk]), pool)
                lists = [patterns[mask] for mask in masks[chunk]]
                first, last = block.start + chunk.start, block.start + chunk.stop
                tiles = slices(first, last, TILE)
                parts = [lists[tile.start - first : tile.stop - first] for tile in tiles]
                yield from zip(tiles, pool.map(work, tiles, parts))


def slices(start: int, stop: int, size: int) -> list[slice]:
    """From start to stop in steps of a size."""
    return [slice(i, min(i + size, stop)) for i in range(start, stop, size)]


def runs(masks: list[bytes], capacity: int) -> Iterator[slice]:
    """The list cut so that no part has more than `capacity` different masks."""
    first, seen = 0, set[bytes]()
    for i, mask in enumerate(masks):
        if mask not in seen and len(seen) == capacity:
            yield slice(first, i)
            first, seen = i, set()
        seen.add(mask)
    yield slice(first, len(masks))
