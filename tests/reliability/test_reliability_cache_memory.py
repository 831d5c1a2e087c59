"""Memory of `-m prepare` and of a training from the cache does not grow with the number of subjects."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.reliability.cached_cohort import CachedCohort, Children

SHAPE = (46, 55, 46)  # 4 mm
MB = 1e6
# Keeping 130 volumes more would take 60 MB as float32; 450 more, 209 MB. What is
# known of a volume takes 6 KB; the arithmetic of a network varies by 17 MB from run to run.
MOST_DIFFERENCE_MB = {"prepare": 10.0, "train": 40.0}


def peak_mb(children: Children, log: Path, *words: str) -> float:
    """Largest RssAnon of a child while it runs, MB."""
    child, peak = children.start(log, *words), 0.0
    status = Path(f"/proc/{child}/status")
    while True:
        lines = [line for line in status.read_text().splitlines() if line.startswith("RssAnon:")]
        if not lines:  # it has ended; its parent was not asked yet
            break
        peak = max(peak, int(lines[0].split()[1]) * 1024 / MB)
        time.sleep(0.003)
    assert children.wait(child) in (0, 3), log.read_text()
    assert "left out" not in log.read_text()
    return peak


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> CachedCohort:
    """Few volumes written, many subjects: the others' are links to them."""
    crop = " ".join(f"0:{size}" for size in SHAPE)
    contrasts = {"real": "real.nii.gz"}
    return CachedCohort(tmp_path_factory.mktemp("memory"), 0, SHAPE, crop, contrasts)


def test_memory_does_not_grow_with_the_subjects(children, cohort, repetitions):
    if not Path("/proc/self/status").is_file():
        pytest.skip("this system has no /proc")
    peaks: dict[str, list[float]] = {"prepare": [], "train": []}
    small, large = repetitions(30, 50), repetitions(160, 500)
    for n_subjects in (small, large):
        cohort.n_subjects = n_subjects
        cohort.write()
        for path in list(cohort.cache.rglob("*.*")):
            path.unlink()
        log = cohort.folder / "log"
        name = ("-n", cohort.name)
        peaks["prepare"].append(peak_mb(children, log, "-m", "prepare", *name))
        assert f"{n_subjects} volumes prepared" in log.read_text()
        settings = (
            f"MISC.experiments_directory=experiments_{len(peaks['train'])}",
            "TRAINING.validation_batch_size=4",  # as many as in training: the same activations
        )
        there = [word for setting in settings for word in ("--set", setting)]
        peaks["train"].append(peak_mb(children, log, "-m", "train", "-e", "1", *name, *there))
        assert "volumes come from" in log.read_text()
    for what, (few, many) in peaks.items():
        print(f"{what}: RssAnon {few:.1f} MB with {small} subjects, {many:.1f} MB with {large}")
    for what, (few, many) in peaks.items():
        assert many - few < MOST_DIFFERENCE_MB[what], f"{what}: {few:.1f} MB, then {many:.1f} MB"
