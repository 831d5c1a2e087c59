"""How much memory this process can still take: the machine's, its control group's, its limit of addresses."""

from __future__ import annotations

import re
from pathlib import Path

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

MEMINFO, STATM = Path("/proc/meminfo"), Path("/proc/self/statm")
GROUP_LIMIT, GROUP_USED = (Path("/sys/fs/cgroup") / f"memory.{name}" for name in ("max", "current"))


def free_memory_bytes() -> int | None:
    """The least of what these leave free; None where none of them says."""
    known = [n for n in (_of_machine(), _of_group(), _of_addresses()) if n is not None]
    return min(known, default=None)


def _of_machine() -> int | None:
    """What the machine can give without swapping."""
    try:
        available = re.search(r"MemAvailable:\s+(\d+) kB", MEMINFO.read_text(encoding="ascii"))
    except OSError:
        return None
    return 1024 * int(available[1]) if available else None


def _of_group() -> int | None:
    """What a container or a scheduler's job leaves."""
    try:
        limit = GROUP_LIMIT.read_text(encoding="ascii").strip()
        used = GROUP_USED.read_text(encoding="ascii").strip()
        return int(limit) - int(used) if limit.isdigit() else None
    except (OSError, ValueError):
        return None


def _of_addresses() -> int | None:
    """What `ulimit -v`, the usual limit of older schedulers, leaves."""
    if resource is None:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        n_pages = int(STATM.read_text(encoding="ascii").split()[0])
    except OSError:
        return None
    return max(limit - n_pages * resource.getpagesize(), 0)
