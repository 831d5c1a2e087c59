"""R14: no subject leaves: no id of the cohort stands in what may be passed on, however it is packed."""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

PACKED = re.compile(rb"[A-Za-z0-9+/]{40,}={0,2}")


@pytest.fixture(scope="module")
def ids(golden: Path) -> list[bytes]:
    table = pd.read_csv(golden / "cohort" / "participants.csv", dtype=str)
    assert len(table) == 328
    return [subject_id.encode() for subject_id in table["subject_id"]]


def contents(path: Path) -> Iterator[bytes]:
    """A file's bytes, and whatever is packed in it: Parquet's values, base64, deflated or not, the parts of a PNG."""
    data = path.read_bytes()
    yield data
    if path.suffix == ".parquet":
        yield pd.read_parquet(path).to_csv().encode()
    if path.suffix == ".pt":
        yield from re.findall(rb"[ -~]{4,}", data)
    for match in PACKED.findall(data):
        yield from unpacked(match)


def unpacked(text: bytes) -> Iterator[bytes]:
    """base64, and deflated content in it."""
    try:
        data = base64.b64decode(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        return
    yield data
    try:
        yield zlib.decompress(data)
    except zlib.error:
        return


def found_in(folder: Path, ids: list[bytes]) -> list[str]:
    """Files below `folder` in whose name or content an id stands."""
    pattern = re.compile(b"|".join(re.escape(subject_id) for subject_id in ids))
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if pattern.search(path.name.encode())
        or (path.is_file() and any(pattern.search(content) for content in contents(path)))
    ]


def test_the_summary_names_no_subject(golden: Path, ids):
    summary = golden / "experiments" / "golden" / "summary"
    endings = {path.suffix for path in summary.rglob("*") if path.is_file()}
    assert endings >= {".html", ".csv", ".json", ".parquet", ".svg", ".png", ".ini"}
    assert found_in(summary, ids) == []


def test_weights_and_logs_name_no_subject(golden: Path, ids):
    root = golden / "experiments" / "golden"
    weights = [path for path in root.rglob("*.pt")]
    assert len(weights) == 32
    pattern = re.compile(b"|".join(map(re.escape, ids)))
    assert [p.name for p in weights if any(pattern.search(c) for c in contents(p))] == []
    assert found_in(root / "logs", ids) == []


def test_an_id_that_is_there_is_found(golden: Path, ids, tmp_path: Path):
    """The control: in plain text, in a name, in Parquet, packed and deflated."""
    one = ids[17]
    (tmp_path / f"{one.decode()}.txt").write_text("")
    (tmp_path / "plain.csv").write_bytes(b"a," + one + b"\n")
    pd.DataFrame({"a": [one.decode()]}).to_parquet(tmp_path / "a.parquet", compression="zstd")
    packed = base64.b64encode(zlib.compress(bytes(range(200)) + one, 9))
    (tmp_path / "page.html").write_bytes(b'<script>x="' + packed + b'"</script>')
    assert len(found_in(tmp_path, ids)) == 4
    assert "deltas_test.csv" in found_in(golden / "experiments" / "golden", ids)
