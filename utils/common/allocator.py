"""Large pages for the CPU's tensors: clearing and mapping small ones costs as much as the arithmetic.

Each large tensor is fresh memory that the system hands out page by page, at the first touch. On Linux,
torch asks for pages of 2 MB instead of 4 KB when it finds a variable set by the time it first reserves
memory; where the system's transparent huge pages are off, that changes nothing.
"""

from __future__ import annotations

import os
import sys


def tune_allocator() -> None:
    """Call it before torch is imported; a value that the user has set stays."""
    if sys.platform == "linux":
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
