"""Checksums of results: what changed later is found, whatever it was."""

from __future__ import annotations

import json

import pytest

from utils.common.manifest import NAME, changed_files, record_results


@pytest.fixture
def folder(tmp_path):
    for name in ("a.csv", "b.json"):
        (tmp_path / name).write_text(f"content of {name}\n")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "c.csv").write_text("not of this folder\n")
    (tmp_path / ".a.csv.writing-1").write_text("left behind\n")
    record_results([tmp_path, tmp_path / "absent"])
    return tmp_path


def test_untouched_results_are_whole(folder):
    assert (folder / NAME).is_file() and changed_files([folder, folder / "absent"]) == []
    before = (folder / NAME).read_bytes()
    record_results([folder])
    assert (folder / NAME).read_bytes() == before


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda p: p.write_text("content of a.csx\n"), "checksum"),
        (lambda p: p.write_text(""), "checksum"),
        (lambda p: p.unlink(), "missing"),
    ],
)
def test_a_changed_or_missing_result_is_named(folder, harm, said):
    harm(folder / "a.csv")
    ((path, reason),) = changed_files([folder])
    assert path == folder / "a.csv" and said in reason


def test_a_folder_without_results_has_no_record(folder):
    for name in ("a.csv", "b.json"):
        (folder / name).unlink()
    assert len(changed_files([folder])) == 2
    record_results([folder, folder / "absent", folder / "deeper" / "c.csv"])
    assert not (folder / NAME).exists() and changed_files([folder]) == []


def test_files_passed_over_are_neither_recorded_nor_compared(folder):
    a, b = folder / "a.csv", folder / "b.json"
    a.write_text("another content\n")
    assert changed_files([folder], [a]) == []
    record_results([folder], passed_over=[a])
    assert list(json.loads((folder / NAME).read_text())) == [b.name]
    a.unlink()
    assert changed_files([folder]) == []
    b.unlink()
    a.write_text("no result\n")
    record_results([folder], passed_over=[a])
    assert not (folder / NAME).exists()


@pytest.mark.parametrize("text", ["", "[1]", '{"a.csv": 3}', '{"a.csv"'])
def test_a_damaged_record_is_named(folder, text):
    (folder / NAME).write_text(text)
    ((path, reason),) = changed_files([folder])
    assert path == folder / NAME and "damaged" in reason
