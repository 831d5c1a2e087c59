"""How many cores this process has."""

from __future__ import annotations

import os


def n_cores() -> int:
    """Cores that this process may use (a job's share of a machine)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
