"""R7: two `-m prepare` on one cache at once, and a prepare while a training reads from the cache."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from datasets.augmentation import AugmentationPlan
from datasets.cache.index import read_indexes
from datasets.loaders import CellVolumes, training_batches
from datasets.volumes import VolumeReader
from tests.conftest import equal
from tests.reliability.cached_cohort import PREPARED, CachedCohort
from utils.common.randomness import generator

N_SUBJECTS = 16


@pytest.fixture
def cohort(tmp_path: Path) -> CachedCohort:
    return CachedCohort(tmp_path, N_SUBJECTS).write()


def test_two_prepares_at_once_both_end_well_and_the_cache_is_whole(children, cohort, repetitions):
    """On a new cache, and on one whose every source changed, so that both want to clear the old shard."""
    logs = [cohort.folder / "one.log", cohort.folder / "other.log"]
    words = ("-m", "prepare", "-n", cohort.name)
    complete = dict.fromkeys(cohort.contrasts, N_SUBJECTS)
    draw = generator("races")
    n_twice = n_shared = 0
    for race in range(repetitions(5, 50)):
        if race % 3 == 0:
            for path in list(cohort.cache.rglob("*.*")):
                path.unlink()
        else:
            for number in range(N_SUBJECTS):
                for name in cohort.contrasts:
                    cohort.write_volume(number, name, seed=race)
        commit_every = int(draw.integers(1, 6))
        started = []
        for log in logs:
            started.append(children.start(log, *words, commit_every=commit_every))
            time.sleep(float(draw.choice([0, 0.01, 0.1, 0.3])))
        codes = [children.wait(child) for child in started]
        said = "\n".join(log.read_text() for log in logs)
        assert codes == [0, 0], f"race {race}: {said}"
        assert cohort.committed() == complete, f"race {race}"  # verifies and compares everything
        n_done = said.count("volumes prepared in") and sum(
            int(line.split()[0]) for line in said.splitlines() if "volumes prepared in" in line
        )
        assert n_done >= 2 * N_SUBJECTS, f"race {race}: {said}"
        n_twice += n_done - 2 * N_SUBJECTS
        n_shared += n_done < 4 * N_SUBJECTS
        assert children.run(logs[0], *words) == 0
        found = PREPARED.findall(logs[0].read_text())
        assert found == [(name, str(N_SUBJECTS), "") for name in cohort.contrasts], f"race {race}"
        assert cohort.committed() == complete and cohort.strange_files() == [], f"race {race}"
        assert_nothing_superseded_stays(cohort)
    print(f"{race + 1} races, work shared in {n_shared}, {n_twice} volumes made twice")


def assert_nothing_superseded_stays(cohort: CachedCohort) -> None:
    """Every index that is still there holds something that counts."""
    for name in cohort.contrasts:
        cache = cohort.opened(name)
        for path, content in read_indexes(cache.folder).items():
            counts = [e for e in content["entries"] if cache.entries[e.source] == e]
            assert counts, f"{path} holds nothing that counts and is still there"


def test_a_prepare_that_replaces_everything_does_not_disturb_a_reader(children, cohort):
    """The reader goes on with the volumes as they were when it opened the cache."""
    log, words = cohort.folder / "log", ("-m", "prepare", "-n", cohort.name)
    assert children.run(log, *words) == 0, log.read_text()
    old = sorted(cohort.cache.rglob("*.volumes"))
    paths = [cohort.volume(number) for number in range(N_SUBJECTS)]
    ages = np.linspace(45, 80, N_SUBJECTS)

    def epoch(volumes):
        batches = training_batches(volumes, 4, AugmentationPlan(1, True), 7, 1, 2)
        return ((b.positions.tolist(), b.volumes.clone()) for b in batches)

    def opened():
        reader = VolumeReader(cohort.contrast(), 100.0, cache=cohort.opened())
        return CellVolumes(cohort.subject_ids, paths, ages, reader)

    before = list(epoch(opened()))
    reading, not_yet = epoch(opened()), opened()
    seen = [next(reading)]
    for number in range(N_SUBJECTS):
        for name in cohort.contrasts:
            cohort.write_volume(number, name, seed=99)
    assert children.run(log, *words) == 0, log.read_text()
    assert not [path for path in old if path.exists()], "the old shards should be gone by now"
    seen += list(reading)
    assert equal(seen, before)
    assert equal(list(epoch(not_yet)), before) and not not_yet.failures
    assert not equal(list(epoch(opened())), before)


def test_prepares_beside_a_training_change_nothing_in_it(children, cohort):
    """Files are touched and prepared again and again while two epochs are read from the cache."""
    torch = pytest.importorskip("torch")
    other = cohort.folder / "prepare.log"
    assert children.run(other, "-m", "prepare", "-n", cohort.name) == 0, other.read_text()
    words = ("-m", "train", "-n", cohort.name, "--cell", "whole_both", "-e", "4")
    weights = []
    for folder in ("alone", "beside"):
        log, there = cohort.folder / f"{folder}.log", f"MISC.experiments_directory={folder}"
        log.touch()
        child = children.start(log, *words, "--set", there)
        n_prepares = 0
        while folder == "beside" and "finished" not in log.read_text() and n_prepares < 40:
            for number in range(N_SUBJECTS):
                cohort.volume(number).touch()
            assert children.run(other, "-m", "prepare", "-n", cohort.name) == 0, other.read_text()
            n_prepares += 1
        assert children.wait(child) == 0, log.read_text()
        assert "left out" not in log.read_text() and "are not prepared" not in log.read_text()
        last = cohort.folder / folder / "cached" / "whole_both" / "network_1" / "last.pt"
        weights.append(torch.load(last, weights_only=True)["weights"])
    assert n_prepares > 0
    assert equal(*weights)
