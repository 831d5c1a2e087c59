"""R1, R2: a kill never harms a finished file, leftovers never block the next run, a killed training goes on exactly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from BrainAgeNetworks.checkpoints import load_checkpoint
from run import main
from tests.reference.make_golden_run import ENVIRONMENT, PROGRAM, run_program
from utils.common.files import replacing
from utils.common.randomness import generator
from utils.common.tables import read_table

WRITER = Path(__file__).with_name("write_in_a_loop.py")
FILES = {
    "checkpoint": "T1_nonlinear_female/network_1/last.pt",
    "table": "T1_nonlinear_female/predictions_test.csv",
    "parquet": "summary/associations.parquet",
    "report": "summary/report.html",
    "naive": "T1_nonlinear_female/network_1/last.pt",
}
LATEST_KILL_S = 0.03
GENERATIONS_OF_A_CHILD = 1000
CELL = "T1_nonlinear_female"


def kill_writer(kind: str, path: Path, n_kills: int) -> tuple[int, int, int]:
    """Kill a process that writes `path` at random moments; (unreadable, leftovers, different generations) found."""
    writer = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(WRITER), kind, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    n_unreadable, n_leftovers, generations = 0, 0, set()
    moments = generator("kills", kind).uniform(0, LATEST_KILL_S, n_kills)
    with writer:
        assert writer.stdout.readline() == "ready\n"
        for kill, moment in enumerate(moments, start=1):
            writer.stdin.write(f"{kill * GENERATIONS_OF_A_CHILD}\n")
            writer.stdin.flush()
            child = int(writer.stdout.readline())
            time.sleep(moment)
            os.kill(child, signal.SIGKILL)
            assert writer.stdout.readline() == "dead\n"
            n_leftovers += bool(list(path.parent.glob(f".{path.name}.writing-*-{child}")))
            generation = generation_of(kind, path)
            n_unreadable += generation is None
            generations.add(generation)
        writer.stdin.close()
    return n_unreadable, n_leftovers, len(generations)


def generation_of(kind: str, path: Path) -> int | None:
    """Which generation a file holds, wholly; None for a file that cannot be read or is a mixture."""
    try:
        if kind == "checkpoint":
            before = path.with_name("previous.pt")  # the one before is whole as well
            kept = [load_checkpoint(file) for file in (path, before) if file.exists()]
            whole = all((content["weights"] == content["generation"]).all() for content in kept)
            return kept[0]["generation"] if whole else None
        if kind == "naive":
            return torch.load(path, weights_only=True)["generation"]
        if kind in ("table", "parquet"):
            found = read_table(path)["generation"]
            return int(found[0]) if found.nunique() == 1 and len(found) == 4_000 else None
        text = path.read_text(encoding="utf-8")
        words = text.removeprefix("<html>").removesuffix("</html>\n").split()
        whole = text.endswith("</html>\n") and len(set(words)) == 1 and len(words) == 40_000
        return int(words[0]) if whole else None
    except Exception:  # whatever a damaged file does to its reader
        return None


@pytest.mark.parametrize("kind", ["checkpoint", "table", "parquet", "report"])
def test_a_kill_at_any_moment_leaves_a_whole_file_and_the_next_run_starts(
    trained, kind, repetitions
):
    root = trained / "experiments" / "golden"
    path = root / FILES[kind]
    finished = path.read_bytes()
    path.with_name("previous.pt").unlink(missing_ok=True)
    n_unreadable, n_leftovers, n_generations = kill_writer(kind, path, repetitions(50, 1000))
    assert n_unreadable == 0
    assert n_generations > 5, "the writer wrote nothing; the test would see no harm"
    assert n_leftovers > 0, "no kill hit a writing; the test would see no harm"
    path.write_bytes(finished)
    assert list(root.rglob(".*.writing-*"))
    assert main(["-m", "train", "-n", str(trained / "golden"), "--cell", CELL]) == 0
    assert not list(root.rglob(".*.writing-*"))


def test_the_same_kills_do_harm_a_program_without_this_care(trained):
    """The control: were it not for the renaming, these kills would be seen."""
    n_unreadable, _, _ = kill_writer(
        "naive", trained / "experiments" / "golden" / FILES["naive"], 30
    )
    assert n_unreadable > 0


def test_a_leftover_of_a_living_process_is_not_taken_away(trained):
    """Somebody else's file in the making is not a leftover."""
    root = trained / "experiments" / "golden"
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with replacing(root / "metrics.csv") as temporary:
        name = temporary.name.removesuffix(str(os.getpid())) + str(sleeper.pid)
        temporary.touch()
    theirs = root / name
    theirs.write_text("half a ta")
    try:
        assert main(["-m", "train", "-n", str(trained / "golden"), "--cell", CELL]) == 0
        assert theirs.is_file()
    finally:
        sleeper.communicate(b"\n")
    assert main(["-m", "train", "-n", str(trained / "golden"), "--cell", CELL]) == 0
    assert not theirs.exists()


def start_training(folder: Path) -> subprocess.Popen:
    """The training of one cell of the golden run in a folder; what it says comes line by line."""
    return subprocess.Popen(
        [
            sys.executable,
            "-u",
            str(PROGRAM / "run.py"),
            "-m",
            "train",
            "-n",
            "golden",
            "--cell",
            CELL,
        ],
        cwd=folder,
        env={**os.environ, **ENVIRONMENT},
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_training(folder: Path, after: str, moment_s: float) -> str:
    """Start the training, kill it a moment after a line that begins with `after`; what it said."""
    said = []
    with start_training(folder) as training:
        for line in training.stderr:
            said.append(line)
            if line.startswith(after):
                time.sleep(moment_s)
                training.kill()
                break
        said += training.stderr.readlines()
    assert training.returncode == -signal.SIGKILL, "".join(said)
    return "".join(said)


def test_a_killed_training_goes_on_to_the_same_weights(golden: Path, untrained: Path):
    """Killed in the middle of epochs 2 and 3, by the same command: bit for bit the uninterrupted run."""
    kill_training(untrained, "  epoch 1/4", 0.04)
    said = kill_training(untrained, "  epoch 2/4", 0.06)
    assert "goes on after epoch 1" in said
    done = run_program("-m", "train", "-n", "golden", "--cell", CELL, folder=untrained)
    assert done.returncode == 0 and "goes on after epoch 2" in done.stderr
    for number in (1, 2):
        here, there = (
            folder / "experiments" / "golden" / CELL / f"network_{number}"
            for folder in (untrained, golden)
        )
        assert (here / "history.csv").read_bytes() == (there / "history.csv").read_bytes()
        for name in ("last.pt", "best.pt", "epoch_0003.pt"):
            assert_same_state(load_checkpoint(here / name), load_checkpoint(there / name))


def assert_same_state(one, other, where: str = "") -> None:
    """Every tensor and every plain value of two checkpoints is the same."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same_state(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other)):
            assert_same_state(a, b, f"{where}/{i}")
    else:
        assert one == other or (one != one and other != other), where


def test_a_study_killed_anywhere_ends_like_one_that_was_not(
    golden: Path, untrained: Path, repetitions
):
    """SIGKILL at random moments of a whole study; the same command at the end gives the same results."""
    words = ["-m", "study", "-n", "golden"]
    for moment in generator("kills", "study").uniform(2.0, 8.0, repetitions(1, 100)):
        study = subprocess.Popen(
            [sys.executable, str(PROGRAM / "run.py"), *words],
            cwd=untrained,
            env={**os.environ, **ENVIRONMENT},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            study.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            study.kill()
            study.wait()
    done = run_program(*words, folder=untrained)
    assert done.returncode == 0, done.stderr
    here, there = (folder / "experiments" / "golden" for folder in (untrained, golden))
    for path in there.rglob("*"):
        if path.suffix in (".csv", ".json", ".parquet", ".html") and path.is_file():
            assert (here / path.relative_to(there)).read_bytes() == path.read_bytes(), path.name
