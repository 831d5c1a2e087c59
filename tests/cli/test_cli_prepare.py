"""-m prepare: what must be made again is made again, nothing else, and why; training refuses what does not fit."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from run import main
from tests.reliability.cached_cohort import PREPARED, CachedCohort

N_SUBJECTS = 8
CELL = "whole_both"


@dataclass
class Prepared:
    """A cohort of which everything is prepared; `prepare` says what it did the next time."""

    cohort: CachedCohort
    capture: pytest.CaptureFixture

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit code, standard output and messages of `run.py words`; each with a `=` is a --set."""
        settings = [part for word in words if "=" in word for part in ("--set", word)]
        rest = [word for word in words if "=" not in word]
        self.capture.readouterr()
        code = main(["-n", self.cohort.name, *rest, *settings])
        return code, *self.capture.readouterr()

    def prepare(self, *words: str, code: int = 0) -> dict[str, tuple[int, str]]:
        """Contrast -> (prepared already, what was prepared and why)."""
        ended, _, said = self.run("-m", "prepare", *words)
        assert ended == code, said
        return {name: (int(n_kept), why) for name, n_kept, why in PREPARED.findall(said)}

    def train(self, *words: str) -> tuple[int, str]:
        """Exit code and messages of a training of one epoch."""
        code, _, said = self.run("-m", "train", "--cell", CELL, "-e", "1", *words)
        return code, said

    def hashes(self, name: str = "whole") -> dict[str, tuple[str, int]]:
        """Source -> where its prepared volume lies."""
        return {s: (e.shard, e.offset) for s, e in self.cohort.opened(name).entries.items()}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> CachedCohort:
    return CachedCohort(tmp_path_factory.mktemp("prepare") / "cohort", N_SUBJECTS).write()


@pytest.fixture
def prepared(pristine: CachedCohort, tmp_path: Path, capsys) -> Prepared:
    shutil.copytree(pristine.folder, tmp_path / "study")
    found = Prepared(CachedCohort(tmp_path / "study", N_SUBJECTS), capsys)
    all_new = (0, f"{N_SUBJECTS} not prepared before")
    assert found.prepare() == {"whole": all_new, "real": all_new}
    return found


NOTHING = {"whole": (N_SUBJECTS, ""), "real": (N_SUBJECTS, "")}


def test_nothing_changed_nothing_done(prepared):
    before = prepared.hashes()
    files = {path: path.read_bytes() for path in prepared.cohort.cache.rglob("*.*")}
    assert prepared.prepare() == NOTHING
    assert prepared.hashes() == before
    assert {p: p.read_bytes() for p in prepared.cohort.cache.rglob("*.*")} == files


def test_another_time_is_not_another_file(prepared):
    before = prepared.hashes()
    prepared.cohort.volume(3).touch()
    assert prepared.train()[0] in (0, 3)  # the content is looked at, and is the same
    assert prepared.prepare() == NOTHING
    assert prepared.hashes() == before
    assert prepared.prepare() == NOTHING


def test_changed_content_of_one_file(prepared):
    before = prepared.hashes()
    changed = prepared.cohort.write_volume(2, "whole", seed=1)
    code, said = prepared.train()
    assert code == 1 and f"e.g. {changed}: the file's content changed. Run -m prepare" in said
    assert prepared.prepare() == {
        "whole": (N_SUBJECTS - 1, "1 the file's content changed"),
        "real": (N_SUBJECTS, ""),
    }
    after = prepared.hashes()
    assert [source for source in after if after[source] != before[source]] == [str(changed)]
    assert prepared.cohort.committed() == {"whole": N_SUBJECTS, "real": N_SUBJECTS}
    assert prepared.train()[0] in (0, 3)


def test_content_of_the_same_size_and_another_time(prepared):
    """The size does not tell; the time makes prepare look, the hash decides."""
    path = prepared.cohort.volume(2)
    content = bytearray(path.read_bytes())
    content[4] ^= 1  # the time in the gzip header: the same voxels, another file
    path.write_bytes(bytes(content))
    os.utime(path, (1, 1))
    assert prepared.prepare()["whole"] == (N_SUBJECTS - 1, "1 the file's content changed")


def test_a_file_that_is_gone_is_used_no_more_and_one_that_was_missing_is_added(prepared):
    """Who takes a file away, e.g. of a participant who withdrew, takes its prepared volume away."""
    cohort = prepared.cohort
    gone = cohort.volume(1)
    content = gone.read_bytes()
    gone.unlink()
    code, said = prepared.train()
    assert code == 1 and f"{gone}: the file is gone. Run -m prepare" in said
    assert prepared.prepare(code=3)["whole"] == (N_SUBJECTS - 1, "1 the file is gone")
    gone.write_bytes(content)
    assert prepared.prepare()["whole"] == (N_SUBJECTS - 1, "1 the file is there now")
    cohort.n_subjects += 1
    cohort.write_subjects()
    assert prepared.prepare(code=3)["whole"] == (N_SUBJECTS, "1 not prepared before")  # no file yet
    assert prepared.prepare(code=3) == {"whole": (9, ""), "real": (9, "")}
    for name in cohort.contrasts:
        cohort.write_volume(N_SUBJECTS, name)
    assert prepared.prepare()["whole"] == (N_SUBJECTS, "1 the file is there now")
    assert prepared.prepare() == {"whole": (9, ""), "real": (9, "")}


def test_a_damaged_file_is_named_and_made_again_when_mended(prepared):
    path = prepared.cohort.volume(1)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    code, _, said = prepared.run("-m", "prepare")
    assert code == 3 and f"whole: {path} is damaged or truncated" in said
    code, _, said = prepared.run("-m", "prepare")
    assert code == 3 and f"whole: {path} is damaged" in said and "to prepare" not in said
    path.write_bytes(content)
    assert prepared.prepare()["whole"] == (N_SUBJECTS - 1, "1 the file's content changed")


def other_key(prepared: Prepared, field: str, *settings: str) -> None:
    """Everything of `whole` is prepared under another key; before that, training names the field."""
    ended, said = prepared.train(*settings)
    assert ended == 1, said
    assert "holds these volumes prepared with other settings: " in said and f"{field} was " in said
    assert "Run -m prepare" in said
    old = sorted(prepared.cohort.cache.iterdir())
    ended, _, said = prepared.run("-m", "prepare", *settings)
    assert ended == 0, said
    assert f"whole: 0 prepared already; to prepare: {N_SUBJECTS} not prepared before" in said
    assert re.search(f"holds these volumes prepared with other settings: .*{field} was ", said)
    assert set(old) < set(prepared.cohort.cache.iterdir())
    ended, said = prepared.train(*settings)
    assert ended in (0, 3) and "volumes come from" in said, said  # 3: a tiny network collapses
    ended, _, said = prepared.run("-m", "prepare", *settings)
    assert f"whole: {N_SUBJECTS} prepared already\n" in said


def test_another_crop(prepared):
    prepared.cohort.write_contrasts(crop="2:18 2:20 0:16")
    other_key(prepared, "crop")


def test_another_volume_index(prepared):
    prepared.cohort.write_contrasts(volume_index="0")
    other_key(prepared, "volume_index")


def test_another_way_of_conforming(prepared):
    other_key(prepared, "conform", "DATA.conform=reorient")


def test_another_storage(prepared):
    other_key(prepared, "storage", "DATA.cache_storage=float32")


def test_another_scale_factor_changes_nothing_that_is_prepared(prepared):
    prepared.cohort.write_contrasts(scale_factor="250")
    code, said = prepared.train()
    assert code in (0, 3) and "scale factor 250" in said and "volumes come from" in said
    assert prepared.prepare() == NOTHING


def test_an_automatic_scale_factor_needs_one_more_number_of_each_volume(prepared):
    prepared.cohort.write_contrasts(scale_factor="auto")
    why = f"{N_SUBJECTS} scale_factor is auto now"
    assert prepared.prepare() == {"whole": (0, why), "real": (0, why)}
    assert prepared.prepare() == NOTHING
    factors = []
    for words in ((), ("DATA.cache_directory=", "MISC.experiments_directory=files")):
        factors += re.findall(r"scale factor ([\d.]+)", prepared.train(*words)[1])
    assert len(factors) == 2 and len(set(factors)) == 1, factors


def test_data_that_moved_are_prepared_anew(prepared):
    cohort = prepared.cohort
    (cohort.folder / "subjects").rename(cohort.folder / "moved")
    code, said = prepared.train("DATA.data_directory=moved")
    assert code in (0, 3) and "volumes come from" not in said  # read from the files themselves
    found = prepared.prepare("DATA.data_directory=moved")
    assert found == {name: (0, f"{N_SUBJECTS} not prepared before") for name in cohort.contrasts}
    assert prepared.prepare("DATA.data_directory=moved") == NOTHING


def test_only_some_prepared_is_said(prepared):
    cohort = prepared.cohort
    cohort.n_subjects += 4
    cohort.write_subjects()
    for number in range(N_SUBJECTS, N_SUBJECTS + 4):
        for name in cohort.contrasts:
            cohort.write_volume(number, name)
    code, said = prepared.train()
    assert code in (0, 3)
    assert "2 of 6 whole volumes are not prepared and are read from their files" in said
    assert prepared.prepare()["whole"] == (N_SUBJECTS, "4 not prepared before")


def test_a_damaged_index_is_refused_in_training_and_made_anew(prepared):
    (index,) = (prepared.cohort.opened().folder).glob("*.json")
    index.write_bytes(index.read_bytes()[:-100])
    code, said = prepared.train()
    assert code == 1 and f"{index}: this index of prepared volumes is damaged" in said
    assert prepared.prepare() == {
        "whole": (0, f"{N_SUBJECTS} not prepared before"),
        "real": (N_SUBJECTS, ""),
    }
    assert prepared.cohort.strange_files() == []


def test_a_dry_run_says_and_does_nothing(prepared):
    prepared.cohort.write_volume(2, "whole", seed=1)
    files = {path: path.read_bytes() for path in prepared.cohort.cache.rglob("*.*")}
    code, out, said = prepared.run("-m", "prepare", "--dry-run")
    assert code == 0 and "1 the file's content changed" in said
    assert out.splitlines()[0] == "contrast,prepared,to_prepare,gigabytes,minutes"
    assert out.splitlines()[1].startswith(f"whole,{N_SUBJECTS - 1},1,")
    assert out.splitlines()[2].startswith(f"real,{N_SUBJECTS},0,")
    assert {p: p.read_bytes() for p in prepared.cohort.cache.rglob("*.*")} == files


def test_without_a_cache_directory_it_says_what_to_set(prepared):
    code, _, said = prepared.run("-m", "prepare", "DATA.cache_directory=")
    assert code == 1 and "set [DATA] cache_directory" in said


def test_a_cache_that_cannot_be_made_is_a_sentence(prepared):
    (prepared.cohort.folder / "taken").write_text("a file")
    code, _, said = prepared.run("-m", "prepare", "DATA.cache_directory=taken")
    assert code == 1 and "Traceback" not in said and str(prepared.cohort.folder / "taken") in said
