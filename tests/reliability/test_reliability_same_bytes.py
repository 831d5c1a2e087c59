"""R8, R13: the same settings and seed give the same bytes, in any folder, with any number of workers, offline."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.reference.make_golden_run import run_program
from utils.common.files import read_json

CELL = "swi_female"
# Python runs this at its start: an audit hook sees every attempt, from whatever library.
NO_NETWORK = """
import os, sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
                 "socket.gethostbyname", "socket.gethostbyaddr", "urllib.Request"):
        with open(os.environ["NETWORK_ATTEMPTS"], "a") as file:
            file.write(f"{event} {arguments}\\n")
        raise PermissionError("this test allows no network")
sys.addaudithook(refuse)
"""


@pytest.fixture
def offline(untrained: Path) -> dict[str, str]:
    """Environment of a process that cannot reach a network and notes every attempt in attempts.txt."""
    hooks = untrained / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(NO_NETWORK)
    return {"PYTHONPATH": str(hooks), "NETWORK_ATTEMPTS": str(untrained / "attempts.txt")}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_another_folder_without_a_network_gives_the_same_bytes(golden, untrained, offline):
    """A whole study: every result but the logs, the report and the weights included."""
    done = run_program("-m", "study", "-n", "golden", folder=untrained, **offline)
    assert done.returncode == 0, done.stderr
    assert not (untrained / "attempts.txt").exists(), (untrained / "attempts.txt").read_text()
    here, there = (folder / "experiments" / "golden" for folder in (untrained, golden))
    files = [
        p.relative_to(there) for p in there.rglob("*") if p.is_file() and "logs" not in p.parts
    ]
    assert len(files) > 60
    different = [str(name) for name in files if sha256(here / name) != sha256(there / name)]
    assert different == []


def test_simulating_needs_no_network(untrained, offline):
    small = ("n_train_per_sex=2", "n_validation_per_sex=1", "n_test_per_sex=1", "folder=small")
    settings = [part for word in small for part in ("--set", f"SIMULATION.{word}")]
    done = run_program("-m", "simulate", "-n", "golden", *settings, folder=untrained, **offline)
    assert done.returncode == 0, done.stderr
    assert read_json(untrained / "small" / "cohort.json")["simulated"] is True
    assert not (untrained / "attempts.txt").exists(), (untrained / "attempts.txt").read_text()


def test_an_attempt_would_be_seen(untrained, offline):
    """The control: the same hook notes a program that does try."""
    words = [sys.executable, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))"]
    done = subprocess.run(words, env=offline, capture_output=True, text=True)
    assert done.returncode and "this test allows no network" in done.stderr
    assert "socket." in (untrained / "attempts.txt").read_text()


@pytest.mark.parametrize("n_workers", [0, 1, 4])
def test_workers_change_nothing(golden, untrained, n_workers):
    """Volumes read in every epoch, by so many processes, against volumes kept in memory."""
    done = run_program(
        *("-m", "train-and-evaluate-data", "-n", "golden", "--cell", CELL),
        *("--set", "DATA.memory_gb=0.0", "--set", f"DATA.num_workers={n_workers}"),
        folder=untrained,
    )
    assert done.returncode == 0, done.stderr
    assert f"num_workers = {n_workers} threads" in done.stderr
    here, there = (folder / "experiments" / "golden" / CELL for folder in (untrained, golden))
    for number in (1, 2):
        folder = f"network_{number}"
        assert sha256(here / folder / "history.csv") == sha256(there / folder / "history.csv")
        one, other = (
            torch.load(root / folder / "last.pt", weights_only=True)["weights"]
            for root in (here, there)
        )
        assert all(torch.equal(one[name], other[name]) for name in other)
    for split in ("validation", "test"):
        for name in (f"predictions_{split}.csv", f"metrics_{split}.json"):
            assert sha256(here / name) == sha256(there / name), name
