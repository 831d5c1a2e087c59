"""Ways in which stored bytes get damaged, drawn at random."""

from __future__ import annotations

import numpy as np

KINDS = ("flipped bit", "truncation", "zeroed block", "duplicated block", "appended bytes")
BLOCK_BYTES = (16, 513)


def damaged(content: bytes, kind: str, draw: np.random.Generator) -> bytes:
    """The content with one damage of a kind; it always differs from what it was."""
    while True:
        found = _damaged(bytearray(content), kind, draw)
        if found != content:
            return found


def _damaged(content: bytearray, kind: str, draw: np.random.Generator) -> bytes:
    start = int(draw.integers(0, len(content)))
    size = int(draw.integers(*BLOCK_BYTES))
    if kind == "flipped bit":
        content[start] ^= 1 << int(draw.integers(0, 8))
    elif kind == "truncation":
        del content[start:]
    elif kind == "zeroed block":
        content[start : start + size] = bytes(len(content[start : start + size]))
    elif kind == "duplicated block":
        content[start:start] = content[start : start + size]
    else:
        content += draw.bytes(size) if draw.random() < 0.8 else bytes(size)
    return bytes(content)
