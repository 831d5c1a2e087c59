"""Memory for batches that is used again and again: fresh pages cost more than decoding what fills them."""

from __future__ import annotations

import sys
import threading
from functools import cache

import numpy as np
from numpy.typing import DTypeLike


class BatchMemory:
    """Memory for batches that is given again as soon as nobody else holds it.

    Fresh memory costs more than the decoding it is for: the system has to clear every page of it.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike):
        self.shape, self.dtype = shape, dtype
        self._blocks: list[np.ndarray] = []
        self._lock = threading.Lock()

    def take(self) -> np.ndarray:
        """Memory of that shape, not cleared."""
        with self._lock:
            for i in range(len(self._blocks)):
                if _references(self._blocks, i) == _REFERENCES_WHEN_FREE:
                    return self._blocks[i]
            self._blocks.append(np.empty(self.shape, dtype=self.dtype))
            return self._blocks[-1]


def _references(blocks: list[np.ndarray], i: int) -> int:
    """How many references there are to a block, those of the list and of this call among them."""
    return sys.getrefcount(blocks[i])


# What the same call says of a block that nobody but its list holds: versions of Python differ.
_REFERENCES_WHEN_FREE = _references([np.empty(0)], 0)


@cache
def batch_memory(shape: tuple[int, ...], kind: str = "float32") -> BatchMemory:
    """Memory of a shape that all epochs share: a gigabyte for full-size volumes, cleared once."""
    return BatchMemory(shape, kind)
