"""The golden run: a whole study through the real command line, and the numbers it gave.

Run `python tests/reference/make_golden_run.py --why "what changed"` after a change that is meant to change
numbers: it makes the study of golden_run.ini anew and writes golden_run.json, which keeps the reason. A
change that is not meant to change numbers must leave that file as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

PROGRAM = Path(__file__).resolve().parents[2]
REFERENCE = Path(__file__).resolve().with_name("golden_run.json")
CELLS = ("T1_nonlinear_female", "T1_nonlinear_male", "swi_female", "swi_male")
NETWORKS = (1, 2)
MODES = ("simulate", "study")
# One thread, and no look at the checkout's revision: a commit made meanwhile would stand in the results.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "GIT_DIR": os.devnull}


def run_program(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """`python run.py words` in a folder, one thread, nobody to ask; output and messages as text."""
    return subprocess.run(
        [sys.executable, str(PROGRAM / "run.py"), *words],
        cwd=folder,
        env={**os.environ, **ENVIRONMENT, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )


def write_ini_pair(folder: Path, name: str = "golden") -> None:
    """The golden run's ini pair under a name."""
    shutil.copy(REFERENCE.with_suffix(".ini"), folder / f"{name}.ini")
    shutil.copy(REFERENCE.with_name("golden_run_eval.ini"), folder / f"{name}_eval.ini")


def make_golden_run(folder: Path) -> None:
    """Simulate the cohort and run the study in an empty folder; `ended(folder, mode)` tells how it went."""
    folder.mkdir(parents=True, exist_ok=True)
    write_ini_pair(folder)
    for mode in MODES:
        done = run_program("-m", mode, "-n", "golden", folder=folder)
        how = {"code": done.returncode, "out": done.stdout, "err": done.stderr}
        (folder / f"{mode}.json").write_text(json.dumps(how), encoding="utf-8")


def ended(folder: Path, mode: str) -> dict[str, Any]:
    """Exit code, standard output and standard error of a mode of the golden run."""
    return json.loads((folder / f"{mode}.json").read_text(encoding="utf-8"))


def numbers(folder: Path) -> dict[str, Any]:
    """Losses of every network, MAEs of every cell and combination, and a few of each kind of result."""
    root = folder / "experiments" / "golden"
    found: dict[str, Any] = {"train_loss": {}, "validation_loss": {}, "validation_mae_years": {}}
    for cell in CELLS:
        for number in NETWORKS:
            history = pd.read_csv(root / cell / f"network_{number}" / "history.csv")
            for column in found:
                found[column][f"{cell} {number}"] = history[column].round(6).tolist()
    metrics = pd.read_csv(root / "summary" / "metrics.csv")
    metrics = metrics[metrics["split"] == "test"]
    names = metrics["contrast"] + " " + metrics["sex"] + " " + metrics["predictor"]
    found["test_mae_years"] = dict(zip(names, metrics["mae_years"].round(6)))
    found["test_null_mae_years"] = dict(zip(names, metrics["null_mae_years"].round(6)))
    return found


def main() -> None:
    """Make the study anew and write its numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--why", required=True, help="why the numbers change, for the file")
    why = parser.parse_args().why
    with tempfile.TemporaryDirectory() as temporary:
        make_golden_run(Path(temporary))
        for mode in MODES:
            how = ended(Path(temporary), mode)
            if how["code"]:
                sys.exit(f"{mode} ended with {how['code']}:\n{how['err']}")
        content = {
            "made_by": "python tests/reference/make_golden_run.py --why ...",
            "why_it_last_changed": why,
            "recorded_with": {name: metadata.version(name) for name in ("numpy", "scipy", "torch")},
            **numbers(Path(temporary)),
        }
    REFERENCE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
