"""The golden run, made once a session through the real command line, and copies of it for tests that change things."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch

from run import main
from tests.reference.make_golden_run import make_golden_run, run_program


@dataclass(frozen=True)
class Ended:
    """How a run of the program ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Study:
    """A folder with the ini pair golden.ini, the cohort, and the finished experiment of the golden run."""

    folder: Path
    capture: Callable[[], tuple[str, str]]

    @property
    def root(self) -> Path:
        """The experiment's folder."""
        return self.folder / "experiments" / "golden"

    def network(self, number: int = 1, cell: str = "T1_nonlinear_female") -> Path:
        """The folder of a network."""
        return self.root / cell / f"network_{number}"

    def history(self, number: int = 1, cell: str = "T1_nonlinear_female") -> pd.DataFrame:
        """The history of a network."""
        return pd.read_csv(self.network(number, cell) / "history.csv")

    def predictions(self, split: str = "test", cell: str = "T1_nonlinear_female") -> pd.DataFrame:
        """The predictions of a cell, ids as text."""
        path = self.root / cell / f"predictions_{split}.csv"
        return pd.read_csv(path, dtype={"subject_id": str}, keep_default_na=False, na_values=[""])

    def run(self, mode: str, *words: str, name: str = "golden") -> Ended:
        """`run.py -m mode -n name words`, in this process; each of `words` with a dot is a --set."""
        settings = [part for word in words if "=" in word for part in ("--set", word)]
        rest = [word for word in words if "=" not in word]
        self.capture()
        try:
            code = main(["-m", mode, "-n", str(self.folder / name), *rest, *settings])
        except SystemExit as leaving:  # argparse
            code = int(leaving.code or 0)
        return Ended(code, *self.capture())


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tiny networks; more threads only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the golden run; never changed by a test."""
    folder = tmp_path_factory.getbasetemp() / "golden_run"
    if not folder.exists():  # tests/reliability uses the same folder
        make_golden_run(folder)
    return folder


@pytest.fixture
def study(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> Study:
    """A copy of the golden run that a test may change; the cohort is linked, not copied."""
    for ini in golden.glob("*.ini"):
        shutil.copy(ini, tmp_path)
    (tmp_path / "cohort").symlink_to(golden / "cohort")
    leave = shutil.ignore_patterns("tensorboard", "figures")
    shutil.copytree(golden / "experiments", tmp_path / "experiments", ignore=leave)
    return Study(tmp_path, capsys.readouterr)


@pytest.fixture
def own_cohort(golden: Path, study: Study) -> Path:
    """A cohort of links, of which a test may replace single volumes; tables are copies."""
    (study.folder / "cohort").unlink()
    cohort = study.folder / "cohort"
    (cohort / "subjects").mkdir(parents=True)
    for path in (golden / "cohort").glob("*.*"):
        shutil.copy(path, cohort)
    for subject in (golden / "cohort" / "subjects").iterdir():
        for volume in (path for path in subject.rglob("*") if path.is_file()):
            link = cohort / "subjects" / volume.relative_to(subject.parent)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(volume)
    return cohort


@pytest.fixture
def participants(golden: Path) -> pd.DataFrame:
    """The table of subjects, ids as text."""
    return pd.read_csv(golden / "cohort" / "participants.csv", dtype={"subject_id": str})


@pytest.fixture(scope="session")
def program():
    """Function that runs the program in a process of its own."""
    return run_program
