"""R6: a disk that is full, a quota that is used up, or one that fails, at any write of `-m prepare`."""

from __future__ import annotations

import builtins
import errno
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from datasets.cache import shards
from datasets.cache.preparation import carry_out, plan_contrast
from tests.reliability.cached_cohort import CachedCohort
from utils.common.errors import UserError

N_SUBJECTS = 3
GOES_ON = "What was committed stays valid; the same command goes on from there."


@dataclass
class FailingDisk:
    """Every write, flush, fsync, rename, opening and making of a folder counts; the `fails_at`-th fails.

    With `stays`, so do all that come after it, as on a disk that is full; removing always works.
    """

    error_number: int
    fails_at: int
    stays: bool
    done: list[str] = field(default_factory=list)

    def count(self, what: str) -> None:
        """Note an operation; raise if it is its turn to fail."""
        self.done.append(what)
        n_done = len(self.done)
        if n_done == self.fails_at or (self.stays and n_done > self.fails_at):
            raise OSError(self.error_number, os.strerror(self.error_number))

    @property
    def failed(self) -> str:
        """The operation that failed; "" if none did."""
        return self.done[self.fails_at - 1] if len(self.done) >= self.fails_at else ""


class FailingFile:
    """A file that was opened for writing; half of what a failing write should write is there."""

    def __init__(self, disk: FailingDisk, handle):
        self.disk, self.handle = disk, handle

    def write(self, data: bytes) -> int:
        try:
            self.disk.count("write")
        except OSError:
            self.handle.write(data[: len(data) // 2])
            self.handle.flush()
            raise
        return self.handle.write(data)

    def flush(self) -> None:
        self.disk.count("flush")
        self.handle.flush()

    def close(self) -> None:
        self.handle.close()
        self.disk.count("close")

    def fileno(self) -> int:
        return self.handle.fileno()


@contextmanager
def failing(disk: FailingDisk) -> Iterator[None]:
    """Let everything that prepare writes go through the failing disk."""
    fsync, replace, mkdir, write_bytes = os.fsync, os.replace, os.mkdir, Path.write_bytes

    def counted(what, real):
        def function(*arguments, **named):
            disk.count(what)
            return real(*arguments, **named)

        return function

    def opened(path, mode="r", *rest, **named):
        if "x" not in mode and "w" not in mode:
            return builtins.open(path, mode, *rest, **named)
        disk.count("open")
        return FailingFile(disk, builtins.open(path, mode, *rest, **named))

    def half_written(path, data):
        try:
            disk.count("write")
        except OSError:
            write_bytes(path, data[: len(data) // 2])
            raise
        return write_bytes(path, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", counted("fsync", fsync))
        patch.setattr(os, "replace", counted("replace", replace))
        patch.setattr(os, "mkdir", counted("mkdir", mkdir))
        patch.setattr(Path, "write_bytes", half_written)
        patch.setattr(shards, "open", opened, raising=False)
        patch.setattr(shards, "COMMIT_EVERY_N", 1)
        yield


def prepare(cohort: CachedCohort) -> dict[str, int]:
    """Prepare both contrasts; how many were there already."""
    plans = [
        plan_contrast(
            cohort.cache, contrast, "strict", "uint16",
            [cohort.volume(number, contrast.name) for number in range(N_SUBJECTS)],
        )
        for contrast in cohort.experiment().contrasts
    ]  # fmt: skip
    carry_out(plans, 1, lambda finished, n_sources: finished)
    return {plan.contrast.name: plan.n_kept for plan in plans}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> CachedCohort:
    return CachedCohort(tmp_path_factory.mktemp("writes"), N_SUBJECTS).write()


@pytest.mark.parametrize(
    ("error_number", "stays"),
    [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False), (errno.ENOSPC, False)],
)
def test_an_error_at_any_write_is_a_sentence_and_no_damage(
    cohort, error_number, stays, repetitions
):
    complete = dict.fromkeys(cohort.contrasts, N_SUBJECTS)
    n_failures, n_with_needed, fails_at = 0, 0, 0
    while True:
        fails_at += repetitions(5, 1)
        shutil.rmtree(cohort.cache, ignore_errors=True)
        disk = FailingDisk(error_number, fails_at, stays)
        said = ""
        with failing(disk):
            try:
                prepare(cohort)
            except UserError as error:
                said = str(error)
        if not disk.failed:
            break
        what = f"{os.strerror(error_number)} at operation {fails_at}, {disk.failed}: {said!r}"
        committed = cohort.committed()  # opens, verifies and compares with the files
        if said:
            n_failures += 1
            assert str(cohort.cache) in said and said.endswith(GOES_ON), what
            assert_names_what_is_missing(said, error_number, committed, what)
            n_with_needed += "bytes more are needed" in said
        else:  # flushing a folder, closing a flushed file, making a folder that is there
            assert disk.failed in ("fsync", "close", "mkdir"), what
            assert committed == complete, what
        assert prepare(cohort) == committed, f"{what}: what was committed was made again"
        assert cohort.committed() == complete, what
        assert cohort.strange_files() == [], what
    print(f"{os.strerror(error_number)}: {n_failures} of {fails_at} operations ended a run")
    assert n_failures > repetitions(4, 25)
    assert error_number == errno.EIO or n_with_needed > n_failures // 2


def assert_names_what_is_missing(said: str, error_number: int, committed, what: str) -> None:
    """A full disk: bytes free, and needed once a volume is known; else what the system says."""
    if error_number == errno.EIO:
        assert os.strerror(errno.EIO) in said, what
        return
    assert re.search(r"\d+ are free", said), what
    if sum(committed.values()):
        assert re.search(r"about \d+ bytes more are needed", said), what


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KB that is really there."""
    folder = tmp_path / "small_disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("this machine does not let the test mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_disk_ends_with_exit_1_and_the_sentence(tmp_path, small_disk, children):
    """Through the command line; once there is space the same command goes on and ends complete."""
    cohort = CachedCohort(tmp_path / "study", 16).write()
    cohort.cache.symlink_to(small_disk)
    log = tmp_path / "log"
    words = ("-m", "prepare", "-n", cohort.name)
    assert children.run(log, *words, commit_every=2) == 1, log.read_text()
    said = log.read_text()
    assert "prepare failed: " in said and "Traceback" not in said
    assert re.search(r"the disk is full .*about \d+ bytes more are needed, \d+ are free", said)
    assert GOES_ON in said
    committed = cohort.committed()
    assert 0 < sum(committed.values()) < 32
    assert children.run(log, *words) == 1, "there is still no space"
    again = cohort.committed()
    assert all(again[name] >= n_before for name, n_before in committed.items())
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    before = cohort.committed()
    assert children.run(log, *words) == 0, log.read_text()
    assert f"whole: {before['whole']} prepared already" in log.read_text()
    assert cohort.committed() == {"whole": 16, "real": 16}
    assert cohort.strange_files() == []
