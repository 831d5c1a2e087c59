"""The golden run as the reliability tests use it. LONG_TESTS=1 asks for the long forms (hours, not minutes)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.reference.make_golden_run import make_golden_run, write_ini_pair

LONG = os.environ.get("LONG_TESTS", "") not in ("", "0")


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the golden run; never changed by a test."""
    folder = tmp_path_factory.getbasetemp() / "golden_run"
    if not folder.exists():  # tests/cli uses the same folder
        make_golden_run(folder)
    return folder


@pytest.fixture
def untrained(golden: Path, tmp_path: Path) -> Path:
    """A folder with the golden run's ini pair and cohort, and nothing trained."""
    write_ini_pair(tmp_path)
    (tmp_path / "cohort").symlink_to(golden / "cohort")
    return tmp_path


@pytest.fixture
def trained(golden: Path, untrained: Path) -> Path:
    """The same with a copy of the finished experiment."""
    leave = shutil.ignore_patterns("tensorboard", "figures")
    shutil.copytree(golden / "experiments", untrained / "experiments", ignore=leave)
    return untrained


@pytest.fixture(scope="session")
def repetitions():
    """Function (every push, long form) -> how often this time."""
    return lambda short, long: long if LONG else short


@pytest.fixture(scope="session")
def children():
    """Starts processes that run the program, quickly."""
    from tests.reliability.cached_cohort import Children

    with Children() as started:
        yield started
