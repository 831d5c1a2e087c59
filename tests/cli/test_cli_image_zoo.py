"""R11 through the real command line: a handful of malformed files at once, each named, none ends the run."""

from __future__ import annotations

import gzip
import os

import numpy as np
import pytest

from tests.datasets.image_bytes import gzip_with_fields
from tests.datasets.test_image_zoo import archive

CELL = "T1_nonlinear_female"
# What is made of the good file's decompressed content, and what is said of it.
ZOO = {
    "0 bytes": (lambda content: b"", "is empty (0 bytes)"),
    "LFS": (lambda content: b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    "web page": (lambda content: b"<!DOCTYPE html>", "is a web page"),
    "zip": (lambda content: archive("zip"), "is a zip archive"),
    "bomb": (lambda content: gzip.compress(content + bytes(30 << 20)), "it has more than the"),
    "checksum": (lambda content: gzip.compress(content)[:-8] + bytes(8), "its checksum does not fit"),
    "trailing": (lambda content: gzip.compress(content) + b"x", "other bytes follow its compressed"),
    "huge": (lambda c: gzip.compress(c[:42] + b"\xff\x7f" * 3 + c[48:]), "its header announces"),
    "offset": (lambda c: gzip.compress(c[:108] + b"\x00\x00\xc0\x7f" + c[112:]), "gives byte nan"),
    "sform": (lambda c: gzip.compress(c[:280] + bytes(48) + c[328:]), "its affine has no inverse"),
}  # fmt: skip
GOOD = {
    "members": lambda c: gzip.compress(c[:300]) + gzip.compress(c[300:]) + bytes(600),
    "named": lambda c: gzip_with_fields(c, name=b"T1.nii", note=b"note"),
    "plain": lambda c: c,
}


@pytest.mark.parametrize("mode", ["test", "train"])
def test_each_malformed_file_is_named_and_odd_good_ones_are_used(
    study, own_cohort, participants, mode
):
    rows = participants[(participants["sex"] == "female") & (participants["split"] == mode)]
    ids = rows["subject_id"].tolist()[: len(ZOO) + len(GOOD) + 2]
    files = [next((own_cohort / "subjects" / s).rglob("T1*.nii.gz")) for s in ids]
    for path, change in zip(files, [*(made for made, _ in ZOO.values()), *GOOD.values()]):
        content = gzip.decompress(path.read_bytes())
        path.unlink()
        path.write_bytes(change(content))
    files[-2].unlink()
    os.mkfifo(files[-2])
    files[-1].unlink()
    files[-1].symlink_to("/dev/zero")
    expected = dict(zip(ids, (words for _, words in ZOO.values())))
    expected |= {ids[-2]: "is a pipe", ids[-1]: "is a device"}
    before = study.predictions("test", CELL).set_index("subject_id")
    new = ["-e", "1", "MISC.experiments_directory=new"] if mode == "train" else []
    ended = study.run(mode, "--cell", CELL, *new)
    assert ended.code == 3 and "Traceback" not in ended.err and "Warning" not in ended.err
    for subject_id, words in expected.items():
        named = f"{CELL} {mode}: subject {subject_id} is left out: "
        line = next(line for line in ended.err.splitlines() if named in line)
        assert words in line
    assert ended.err.count("is left out") == len(expected)
    if mode == "test":
        after = study.predictions("test", CELL).set_index("subject_id")
        assert set(after.index[after["status"] == "failed"]) == set(expected)
        good = ids[len(ZOO) : len(ZOO) + len(GOOD)]
        years = "predicted_years"
        assert after.loc[good, years].to_numpy() == pytest.approx(
            before.loc[good, years].to_numpy(), abs=1e-4
        )
        assert np.isfinite(after.loc[good, years]).all()
