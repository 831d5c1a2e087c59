"""R8: the same prepared volumes and the same training from them, with any number of threads, in any folder."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
import torch

from datasets.cache.preparation import carry_out, plan_contrast
from tests.conftest import equal
from tests.reliability.cached_cohort import CachedCohort
from tests.reliability.conftest import LONG

N_SUBJECTS = 8
CELLS = ("whole_both", "real_both")
# What of a checkpoint's record may differ: where things lie and how many threads read them.
FREE = ("num_workers", "cache_directory", "memory_gb")


def prepare(children, cohort: CachedCohort) -> None:
    log = cohort.folder / "prepare.log"
    assert children.run(log, "-m", "prepare", "-n", cohort.name) == 0, log.read_text()


def train(children, cohort: CachedCohort, folder: str, *settings: str) -> dict[str, dict]:
    """Train and test both cells into a folder of their own; cell -> what came of it."""
    log = cohort.folder / f"{folder}.log"
    changed = (f"MISC.experiments_directory={folder}", *settings)
    words = [word for setting in changed for word in ("--set", setting)]
    code = children.run(log, "-m", "train-and-evaluate-data", "-n", cohort.name, *words)
    said = log.read_text()
    assert code in (0, 3) and "left out" not in said, said  # 3: tiny networks collapse
    return {cell: outcome(cohort.folder / folder / "cached" / cell) for cell in CELLS}


def outcome(cell: Path) -> dict:
    """Weights, optimiser, random states and settings of the last checkpoint; tables as bytes."""
    last = torch.load(cell / "network_1" / "last.pt", weights_only=True)
    for name in FREE:
        last["settings"]["data"].pop(name)
    names = ("network_1/history.csv", "predictions_test.csv", "metrics_test.json")
    tables = {name: (cell / name).read_bytes() for name in names}
    return {"last": last, **tables}


def volumes(cohort: CachedCohort) -> dict[tuple[str, str], tuple]:
    """(contrast, file below the cohort's folder) -> everything that is kept of it, bytes included."""
    found = {}
    for name in cohort.contrasts:
        cache = cohort.opened(name)
        for source, entry in cache.entries.items():
            plain = dataclasses.replace(entry, source="", source_time_ns=0, shard="", offset=0)
            content = hashlib.sha256(cache.payload(entry)).hexdigest()
            found[name, str(Path(source).relative_to(cohort.folder))] = (plain, content)
    return found


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> CachedCohort:
    return CachedCohort(tmp_path_factory.mktemp("here"), N_SUBJECTS).write()


@pytest.fixture(scope="module")
def trained(children, cohort: CachedCohort) -> dict[str, dict]:
    """What came of a training from the cache with two threads."""
    prepare(children, cohort)
    return train(children, cohort, "first")


def test_any_number_of_threads_prepares_the_same_bytes(children, trained, cohort, tmp_path):
    expected = volumes(cohort)
    assert len(expected) == 2 * N_SUBJECTS
    for n_threads in (1, 4):
        other = CachedCohort(tmp_path / str(n_threads) / "cohort", N_SUBJECTS).write()
        plans = [
            plan_contrast(
                other.cache, contrast, "strict", "uint16",
                [other.volume(number, contrast.name) for number in range(N_SUBJECTS)],
            )
            for contrast in other.experiment().contrasts
        ]  # fmt: skip
        carry_out(plans, n_threads, lambda finished, n_sources: finished)
        assert volumes(other) == expected, f"{n_threads} threads, another folder"


@pytest.mark.parametrize("n_workers", [0, 1, 4] if LONG else [0, 4])
def test_workers_change_nothing_in_a_training_from_the_cache(children, trained, cohort, n_workers):
    settings = (f"DATA.num_workers={n_workers}", "DATA.memory_gb=0.0")
    found = train(children, cohort, f"workers_{n_workers}", *settings)
    assert equal(found, trained)


def test_another_folder_gives_the_same_bytes(children, trained, cohort, tmp_path):
    other = CachedCohort(tmp_path / "there", N_SUBJECTS).write()
    prepare(children, other)
    assert equal(train(children, other, "first"), trained)
    for path in (cohort.folder / "first").rglob("*.pt"):
        there = other.folder / path.relative_to(cohort.folder)
        assert there.read_bytes() == path.read_bytes(), f"{there} is not {path}"


@pytest.mark.parametrize("memory_gb", ["0.0", "4.0"] if LONG else ["0.0"])
def test_whole_numbers_train_from_the_cache_as_from_files(children, trained, cohort, memory_gb):
    """Bit for bit; real numbers differ by what uint16 costs, and not with cache_storage = float32."""
    settings = ("DATA.cache_directory=", f"DATA.memory_gb={memory_gb}")
    files = train(children, cohort, f"files_{memory_gb}", *settings)
    assert equal(files["whole_both"], trained["whole_both"])
    assert not equal(files["real_both"]["last"]["weights"], trained["real_both"]["last"]["weights"])
    log, exact = cohort.folder / "exact.log", "DATA.cache_storage=float32"
    assert children.run(log, "-m", "prepare", "-n", cohort.name, "--set", exact) == 0
    prepared = train(children, cohort, f"exact_{memory_gb}", exact)["real_both"]
    for came_of_it in (prepared, files["real_both"]):
        came_of_it["last"]["settings"]["data"].pop("cache_storage", None)
    assert equal(prepared, files["real_both"])
