"""Which versions of what made a result; no times and no paths, so that equal runs give equal bytes."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

PROGRAM_VERSION = "0.4.0"
_PACKAGES = ("torch", "numpy", "scipy", "pandas", "nibabel", "statsmodels", "nilearn")


@cache
def versions() -> dict[str, str]:
    """Versions of the program, Python and the packages that compute."""
    found = {
        "program": PROGRAM_VERSION,
        "revision": _revision(),
        "python": platform.python_version(),
    }
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _revision() -> str:
    """The commit of the program's checkout, with + where files differ from it."""
    root = Path(__file__).resolve().parents[2]
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return described.stdout.strip() or "unknown"


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 24):
            digest.update(piece)
    return digest.hexdigest()


def text_hash(text: str) -> str:
    """sha256 of a text."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
