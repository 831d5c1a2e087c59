"""Files: a killed or refused write leaves the old file whole; tables of every provenance are read alike."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from utils.common import files
from utils.common.errors import UserError
from utils.common.files import (
    clear_leftovers,
    read_json,
    read_table,
    replacing,
    write_bytes,
    write_json,
    write_table,
    write_text,
)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text("old", path)
    for kind in (KeyboardInterrupt, ValueError):
        with pytest.raises(kind), replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise kind
        assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]
    write_text("new\n", path)
    assert path.read_bytes() == b"new\n" and names(tmp_path) == ["a.txt"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole_and_flushed(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text("old", path)
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda handle: order.append(f"fsync {path.read_text()}") or fsync(handle)
    )
    monkeypatch.setattr(os, "replace", lambda *a: order.append("replace") or replace(*a))
    write_text("new", path)
    assert order == ["fsync old", "replace", "fsync new"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_sentence_and_changes_nothing(tmp_path, monkeypatch, code):
    path = tmp_path / "a.csv"
    write_text("old", path)

    def full(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    for write in (
        lambda: write_bytes(b"new", path),
        lambda: write_table(pd.DataFrame({"a": [1]}), path),
        lambda: write_json({"a": 1}, path),
    ):
        with pytest.raises(
            UserError, match="disk is full or the quota used up; nothing was changed"
        ):
            write()
    assert path.read_text() == "old" and names(tmp_path) == ["a.csv"]


def test_a_place_that_cannot_be_written_to_is_a_sentence(tmp_path):
    write_text("a file", tmp_path / "file")
    with pytest.raises(UserError, match=r"x.csv: cannot be written \(.+\). Check the folder"):
        write_text("x", tmp_path / "file" / "x.csv")
    with pytest.raises(UserError, match="cannot be written"):
        write_text("x", tmp_path)
    assert (tmp_path / "file").read_text() == "a file"


def test_a_killed_process_leaves_the_old_file_and_a_leftover_that_is_cleared(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    write_text("old", path)
    program = (
        "import os, sys; from utils.common.files import replacing\n"
        "with replacing(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half'); os._exit(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == 9 and path.read_text() == "old"
    assert len(names(path.parent)) == 2
    removed = clear_leftovers(tmp_path)
    assert len(removed) == 1 and names(path.parent) == ["a.txt"]


def test_whose_leftovers_are_cleared(tmp_path):
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait()
    own, parent = files._HOST, os.getppid()
    other = "0" * 8 if own != "0" * 8 else "1" * 8
    kept = [
        f".a.csv.writing-{own}-{parent}",  # its process lives
        f".b.csv.writing-{other}-{finished.pid}",  # of another machine, fresh
        ".c.csv.writing-notours-1",
        "d.csv",
        ".e.csv",
    ]
    gone = [
        f".f.csv.writing-{own}-{finished.pid}",
        f".g.csv.writing-{own}-{os.getpid()}",  # an earlier process with this number
        f".h.csv.writing-{other}-1",  # of another machine, two days old
    ]
    for name in [*kept, *gone]:
        (tmp_path / name).write_text("x")
    two_days_ago = time.time() - 2 * files.FOREIGN_LEFTOVER_S
    os.utime(tmp_path / gone[2], (two_days_ago, two_days_ago))
    assert sorted(path.name for path in clear_leftovers(tmp_path)) == sorted(gone)
    assert names(tmp_path) == sorted(kept)


def test_json_is_plain(tmp_path):
    path = tmp_path / "a.json"
    content = {
        "nan": np.nan, "inf": -np.inf, "f": np.float32(0.5), "i": np.int64(3), "b": np.bool_(True),
        "array": np.array([1.0, np.nan]), "tuple": (1, "ü"), "path": tmp_path / "x", 3: None,
    }  # fmt: skip
    write_json(content, path)
    assert read_json(path) == {
        "nan": None, "inf": None, "f": 0.5, "i": 3, "b": True, "array": [1.0, None],
        "tuple": [1, "ü"], "path": str(tmp_path / "x"), "3": None,
    }  # fmt: skip
    assert list(json.loads(path.read_text())) == [str(key) for key in content]
    with pytest.raises(UserError, match=r"b\.json: no such file"):
        read_json(tmp_path / "b.json")
    path.write_text("{")
    with pytest.raises(UserError, match=r"a\.json: cannot be read as JSON"):
        read_json(path)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
def test_tables_come_back(tmp_path, ending):
    table = pd.DataFrame({"subject_id": ["001", "2", "1e5"], "x": [1 / 3, np.nan, 1e-9]})
    path = tmp_path / f"a{ending}"
    write_table(table, path, decimals=None)
    back = read_table(path)
    assert back["subject_id"].tolist() == ["001", "2", "1e5"]
    assert back["x"].tolist()[::2] == [1 / 3, 1e-9] and np.isnan(back["x"][1])
    write_table(table, path)
    rounded = read_table(path)["x"].tolist()[::2]
    assert rounded == ([1 / 3, 1e-9] if ending == ".parquet" else [0.333333, 0.0])
    assert b"\r" not in path.read_bytes() or ending == ".parquet"


@pytest.mark.parametrize(
    "text",
    [
        "eid,age,note\n007,50.5,a\n8,n/a,\n",
        "\ufeffeid;age;note\r\n007;50.5;a\r\n8;NA;\r\n",
        "eid\tage\tnote\n007\t50.5\ta\n8\t\t\n",
        '"eid" , "age","note"\n"007","50.5","a"\n8,NaN,""\n',
        "eid,age,note\r007,50.5,a\r8,nan,\r",
    ],
)
def test_the_same_table_as_five_programs_write_it(tmp_path, text):
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode("utf-8"))
    table = read_table(path)
    assert list(table.columns) == ["eid", "age", "note"]
    assert table["eid"].tolist() == ["007", "8"]
    assert table["age"][0] == 50.5 and np.isnan(table["age"][1])
    assert table["note"][0] == "a" and pd.isna(table["note"][1])


def test_ids_stay_text_whatever_is_missing(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("Subject_ID,family\n0001,\n,7\n 12 ,08\n")
    table = read_table(path)
    assert table["Subject_ID"].tolist() == ["0001", None, "12"]
    assert table["family"].tolist() == [None, "7", "08"]
    pd.DataFrame({"subject_id": [12, 13]}).to_parquet(tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet")["subject_id"].tolist() == ["12", "13"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n1,2\n", "is empty"),
        (b"a,b,a\n1,2,3\n", "column names occur twice: a"),
        (b"a,b\n1,2,3\n", "more fields than the 2 column names"),
        (b"a,b\n1,2\n1,2,3\n", "cannot be read as a table"),
        (b"a,b\n\xff,2\n", r"is not UTF-8 text \(byte 4\)"),
        (b'a,b\n"1,2\n', "cannot be read as a table"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, content, words):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        read_table(path)
    assert str(path) in str(caught.value)


def test_damaged_parquet_and_missing_tables(tmp_path):
    path = tmp_path / "a.parquet"
    write_table(pd.DataFrame({"x": np.arange(1000.0)}), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read as a table"):
        read_table(path)
    with pytest.raises(UserError, match="no such table"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(UserError, match="no such table"):
        read_table(tmp_path)
