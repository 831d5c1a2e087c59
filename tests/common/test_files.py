"""Files: a killed or refused write leaves the old file whole."""

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
    replacing,
    write_bytes,
    write_json,
    write_text,
)
from utils.common.tables import write_table


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
