"""Arrays that a thread uses again and again: fresh ones of a few megabytes cost more than what is done in them."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

_OF_THREAD = threading.local()


def scratch(use: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """An array of doubles with any content; the thread's next one for the same use may be the same memory."""
    size = int(np.prod(shape))
    kept: dict[str, NDArray[np.float64]] = _OF_THREAD.__dict__
    if use not in kept or kept[use].size < size:
        kept[use] = np.empty(size)
    return kept[use][:size].reshape(shape)
