"""-m verify: nothing on an untouched experiment; every damage in cache, checkpoints and results is named, exit 3."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import pytest

from tests.reliability.conftest import LONG
from tests.reliability.damage import KINDS, damaged
from utils.common.randomness import generator
from utils.experiment.experiment import Experiment
from utils.settings.reader import read_settings

CELL = "T1_nonlinear_female"
MODES = ("test", "ensemble", "associate", "figures", "report") if LONG else ("test", "report")


def table(out: str) -> list[dict[str, str]]:
    """The table on standard output."""
    return list(csv.DictReader(io.StringIO(out)))


@pytest.fixture
def verified(study):
    """The study with prepared volumes of one of its cells."""
    ended = study.run("prepare", "--cell", CELL)
    assert ended.code == 0, ended.err
    return study


def find(study, *words: str) -> list[dict[str, str]]:
    """What verify finds; the exit code and the messages must say the same."""
    ended = study.run("verify", *words)
    rows = table(ended.out)
    assert ended.code == (3 if rows else 0), ended.err
    for row in rows:
        assert f"{row['kind']} {row['file']} {row['reason']}." in ended.err
    if rows:
        assert f"verify finished; {len(rows)} problem(s) stand above." in ended.err
    return rows


def test_an_untouched_experiment_has_no_damage(verified):
    ended = verified.run("verify")
    assert ended.code == 0 and ended.out == "kind,file,reason\n", ended.err
    assert "T1_nonlinear: 164 prepared volumes, 0 damaged" in ended.err
    assert "32 checkpoints verified" in ended.err
    assert "0 exports verified" in ended.err and "0 converted files verified" in ended.err
    before = {p: p.read_bytes() for p in verified.root.rglob("manifest.json")}
    assert before and find(verified) == []
    assert {p: p.read_bytes() for p in verified.root.rglob("manifest.json")} == before


def test_every_mode_leaves_an_experiment_that_verifies(verified):
    for mode in MODES:
        ended = verified.run(mode)
        assert ended.code == 0, ended.err
        assert find(verified) == [], mode
    ended = verified.run("clear-checkpoints", "--yes")
    assert ended.code == 0 and find(verified) == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_damage_is_found_in_every_kind_of_file(verified, kind):
    """One file of each sort at once; each is a row of the table."""
    draw = generator("verify", kind)
    root = verified.root
    results = [
        root / CELL / "predictions_test.csv",
        root / CELL / "metrics_test.json",
        root / "deltas_test.csv",
        root / "bias_correction.json",
        root / "summary" / "report.html",
        root / "summary" / "associations.parquet",
    ]
    checkpoints = [verified.network() / "best.pt", verified.network(2) / "epoch_0003.pt"]
    for path in (*results, *checkpoints):
        path.write_bytes(damaged(path.read_bytes(), kind, draw))
    rows = find(verified)
    assert {row["file"] for row in rows} == {str(path) for path in (*results, *checkpoints)}
    kinds = {row["file"]: row["kind"] for row in rows}
    assert all(kinds[str(path)] == "result" for path in results)
    assert all(kinds[str(path)] == "checkpoint" for path in checkpoints)
    assert find(verified) == rows, "results and checkpoints are named until they are made again"


def test_a_run_that_leaves_a_damaged_result_alone_does_not_vouch_for_it(verified):
    """Whatever else is run afterwards, the damage is found until the result is written anew."""
    path = verified.root / CELL / "metrics_test.json"
    content = path.read_text()
    path.write_text(content.replace("1", "2", 1))
    for mode in ("prepare", "ensemble", "report", "clear-logs"):
        verified.run(mode, "--yes")
        assert [row["file"] for row in find(verified)] == [str(path)], mode
    assert verified.run("test").code == 0
    assert find(verified) == [] and path.read_text() == content


def test_a_missing_result_is_named(verified):
    path = verified.root / "summary" / "report.html"
    path.unlink()
    assert find(verified) == [{"kind": "result", "file": str(path), "reason": "is missing"}]


def test_removed_results_are_not_missing(verified):
    """A folder of which nothing is left is a cleared one, not a damaged one."""
    for path in (verified.root / CELL).glob("volumes_*.csv"):
        path.unlink()  # of the cell's results these alone would stay
    for words in (("--cell", CELL), ()):
        ended = verified.run("clear-experiment", "--yes", *words)
        assert ended.code == 0, ended.err
        assert find(verified) == []
    assert not (verified.root / CELL / "manifest.json").exists()


def test_a_run_that_was_killed_is_no_damage(verified):
    """The settings are written when a run starts; a killed one does not come to record them."""
    experiment = Experiment(read_settings(str(verified.folder / "golden"), ("DATA.num_workers=7",)))
    experiment.open()
    assert "num_workers = 7" in (verified.root / "settings.ini").read_text()
    assert find(verified) == []
    copy = verified.root / "summary" / "settings.ini"
    copy.write_text(copy.read_text() + "# by hand\n")
    assert [row["file"] for row in find(verified)] == [str(copy)]


def test_damaged_prepared_volumes_are_dropped_and_made_again(verified):
    """Exactly those: the next prepare makes them again and nothing else, and then all is well."""
    (shard,) = (verified.folder / "cache").rglob("*.volumes")
    content = bytearray(shard.read_bytes())
    for place in (100, len(content) // 2, len(content) - 100):
        content[place] ^= 8
    shard.write_bytes(bytes(content))
    rows = find(verified)
    assert len(rows) == 3
    for row in rows:
        assert row["kind"] == "prepared volume" and Path(row["file"]).is_file()
        assert str(shard) in row["reason"] and row["reason"].endswith("(dropped)")
    assert find(verified) == [], "what was dropped is not in the cache any more"
    ended = verified.run("prepare", "--cell", CELL)
    assert ended.code == 0
    assert (
        "T1_nonlinear: 161 prepared already; to prepare: 3 its prepared volume was damaged"
        in ended.err
    )
    assert "3 volumes prepared" in ended.err
    assert find(verified) == []


def test_a_damaged_index_and_a_damaged_volume_of_another_shard_are_found_at_once(verified):
    cache = verified.folder / "cache"
    (first,) = cache.rglob("*.volumes")
    ended = verified.run("prepare", "--cell", "T1_nonlinear_male")
    assert ended.code == 0, ended.err
    (second,) = set(cache.rglob("*.volumes")) - {first}
    index = second.with_suffix(".json")
    index.write_bytes(damaged(index.read_bytes(), "zeroed block", generator("verify", "index")))
    content = bytearray(first.read_bytes())
    content[1000] ^= 1
    first.write_bytes(bytes(content))
    rows = {row["kind"]: row for row in find(verified)}
    assert set(rows) == {"index", "prepared volume"}
    assert rows["index"]["file"] == str(index)
    assert str(first) in rows["prepared volume"]["reason"]
    ended = verified.run("prepare", "--cell", CELL)
    assert "to prepare: 1 its prepared volume was damaged" in ended.err
    ended = verified.run("prepare", "--cell", "T1_nonlinear_male")
    assert "0 prepared already; to prepare: 164 not prepared before" in ended.err
    assert find(verified) == []


def test_without_a_cache_checkpoints_and_results_are_verified(verified):
    shutil.rmtree(verified.folder / "cache")
    (verified.network() / "last.pt").write_bytes(b"no checkpoint")
    rows = find(verified, "DATA.cache_directory=")
    assert [row["kind"] for row in rows] == ["checkpoint"]
