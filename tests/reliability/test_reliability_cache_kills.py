"""R1, R2: `-m prepare` killed at any moment: what was committed is valid, the next prepare goes on and clears up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.reliability.cached_cohort import PREPARED, CachedCohort, Children
from tests.reliability.conftest import LONG
from utils.common.files import writer_name
from utils.common.randomness import generator

COMMIT_EVERY = 2


@pytest.fixture
def cohort(tmp_path: Path) -> CachedCohort:
    return CachedCohort(tmp_path, 24).write()


def kill_after(children: Children, cohort: CachedCohort, seconds: float) -> int:
    """Start a prepare and kill it after a while; how it ended."""
    log = cohort.folder / "killed.log"
    child = children.start(log, "-m", "prepare", "-n", cohort.name, commit_every=COMMIT_EVERY)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return children.wait(child)


def test_a_killed_prepare_leaves_a_valid_cache_and_the_next_goes_on(children, cohort, repetitions):
    """Up to three kills in a row, then a prepare to the end; a new cache each round."""
    log = cohort.folder / "finished.log"
    words = ("-m", "prepare", "-n", cohort.name)
    n_kills = repetitions(6, 50)
    draw = generator("kills", "prepare")
    n_killed, n_between, n_leftovers = 0, 0, 0
    started = time.monotonic()
    assert children.run(log, *words, commit_every=COMMIT_EVERY) == 0, log.read_text()
    seconds = time.monotonic() - started
    complete = dict.fromkeys(cohort.contrasts, cohort.n_subjects)
    assert cohort.committed() == complete
    n_rounds = 0
    while n_killed < n_kills or (n_between < n_kills / 4 and n_rounds < 3 * n_kills):
        n_rounds += 1
        shutil.rmtree(cohort.cache)
        committed_before = dict.fromkeys(cohort.contrasts, 0)
        for _ in range(int(draw.integers(1, 4))):
            ended = kill_after(children, cohort, float(draw.uniform(0, seconds)))
            assert ended in (-signal.SIGKILL, 0), (cohort.folder / "killed.log").read_text()
            n_killed += ended == -signal.SIGKILL
            committed = cohort.committed()  # opens, verifies and compares everything
            for name, before in committed_before.items():
                assert committed[name] >= before, "a kill took away what was committed"
            n_between += 0 < sum(committed.values()) < sum(complete.values())
            n_leftovers += bool(cohort.strange_files())
            committed_before = committed
        assert children.run(log, *words) == 0, log.read_text()
        said = {name: int(n_kept) for name, n_kept, _ in PREPARED.findall(log.read_text())}
        assert said == committed_before, "the next prepare did not go on from what was there"
        assert cohort.committed() == complete
        assert cohort.strange_files() == [], "leftovers of killed runs were not cleared"
    print(f"{n_killed} kills, {n_between} in the middle, {n_leftovers} left something behind")
    assert n_between >= n_kills / 4, "the kills came too early or too late; nothing was tested"
    if LONG:
        assert n_leftovers > 0, "no kill left anything behind; the test would see no harm"


def test_leftovers_of_a_dead_process_are_cleared_and_those_of_living_ones_stay(children, cohort):
    """Volumes that no index names, an index in the making, and both of a process that lives."""
    log, words = cohort.folder / "log", ("-m", "prepare", "-n", cohort.name)
    assert children.run(log, *words) == 0, log.read_text()
    folder = cohort.opened().folder
    name = next(folder.glob("*.volumes")).stem
    living = writer_name()
    host = living.partition("-")[0]
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait()
    for writer in (f"{host}-{finished.pid}", living):
        (folder / f"000007-{writer}.volumes").write_bytes(b"half a volume")
        (folder / f".{name}.json.writing-{writer}").write_text('{"key": ')
    assert len(cohort.strange_files()) == 4
    assert children.run(log, *words) == 0, log.read_text()
    assert sorted(cohort.strange_files()) == [
        f".{name}.json.writing-{living}",
        f"000007-{living}.volumes",
    ]
    assert cohort.committed() == dict.fromkeys(cohort.contrasts, cohort.n_subjects)


def test_a_prepare_that_is_interrupted_keeps_what_it_has(children, cohort):
    """Ctrl-C: committed on the way out, exit 130, a sentence."""
    log = cohort.folder / "interrupted.log"
    child = children.start(log, "-m", "prepare", "-n", cohort.name, commit_every=COMMIT_EVERY)
    while not list(cohort.cache.rglob("*.json")):
        time.sleep(0.005)
    os.kill(child, signal.SIGINT)
    assert children.wait(child) in (0, 130), log.read_text()
    assert "Traceback" not in log.read_text()
    assert sum(cohort.committed().values()) > 0
    assert cohort.strange_files() == []


def test_files_of_a_living_prepare_are_not_taken_away(children, cohort):
    """A second prepare starts while the first is stopped in the middle: its shard and index stay."""
    log, other = cohort.folder / "first.log", cohort.folder / "second.log"
    words = ("-m", "prepare", "-n", cohort.name)
    child = children.start(log, *words, commit_every=COMMIT_EVERY)
    while not list(cohort.cache.rglob("*.volumes")):
        time.sleep(0.002)
    os.kill(child, signal.SIGSTOP)
    before = {path.name for path in cohort.cache.rglob("*.volumes")}
    assert children.run(other, *words) == 0, other.read_text()
    assert before <= {path.name for path in cohort.cache.rglob("*.volumes")}
    os.kill(child, signal.SIGCONT)
    assert children.wait(child) == 0, log.read_text()
    assert cohort.committed() == dict.fromkeys(cohort.contrasts, cohort.n_subjects)
    assert children.run(log, *words) == 0, log.read_text()
    assert cohort.strange_files() == []
