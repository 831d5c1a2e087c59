"""Randomness without state: the same words always give the same stream of numbers.

An epoch's order, a subject's augmentation and a network's dropout are each a function of words such as
(seed, "order", epoch). Nothing has to be saved to continue a run, and workers cannot disturb one another.
"""

from __future__ import annotations

import hashlib

import numpy as np


def seed_from(*words: int | str) -> int:
    """A 63-bit seed from any words, e.g. ``seed_from(7, "dropout", epoch, step)``."""
    text = "\x1f".join(f"{type(word).__name__}:{word}" for word in words)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "little") >> 1


def generator(*words: int | str) -> np.random.Generator:
    """A NumPy generator (Philox) keyed by the words."""
    return np.random.Generator(np.random.Philox(seed_from(*words)))
