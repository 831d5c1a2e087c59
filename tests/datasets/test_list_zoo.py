"""R11: a zoo of small bad lists and tables of subjects, each with a message of its own that says what and where."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets.ages import read_age_array
from datasets.subjects import read_id_list, read_subject_table
from utils.common.errors import UserError

HEAD = b"eid,age,sex\n"


def npy(values, **kwargs) -> bytes:
    handle = io.BytesIO()
    np.save(handle, values, **kwargs)
    return handle.getvalue()


def npz(values) -> bytes:
    handle = io.BytesIO()
    np.savez(handle, values)
    return handle.getvalue()


def parquet(**columns) -> bytes:
    handle = io.BytesIO()
    pq.write_table(pa.table(columns), handle, write_page_checksum=True)
    return handle.getvalue()


def header_only(shape: str) -> bytes:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


# Name of the file -> its content and what is said; .txt are lists of ids, .npy ages, others tables.
ZOO: dict[str, tuple[bytes, str]] = {
    "empty.csv": (b"", r"is empty; a table begins with a line of column names\.$"),
    "no_ids.csv": (b"name,age\n1,50\n", r"no column of subject ids .* Found: name, age\.$"),
    "no_names.csv": (b";;\n1;50;f\n", r"line 1 has separators and no column names"),
    "characters.npy": (npy(np.array(["50"]))[:-4] + b"\xff" * 4, r"text with impossible characters"),
    "names_twice.csv": (b"eid,age,age\n1,50,51\n", r"column names occur twice: age\.$"),
    "capitals.csv": (b"eid,age,Age\n1,50,51\n", r"occur twice but for capitals: age\.$"),
    "long_row.csv": (HEAD + b"1,26,9,f\n2,50,m\n", r"1 row\(s\) have more fields .* line 2 \(4 fields\)"),
    "short_rows.csv": (HEAD + b"1,50\n2\n3,50,f\n", r"2 row\(s\) have fewer fields .* line 2 \(2 fields\)"),
    "cut_row.csv": (HEAD + b"1,50,f\n2,5", r"the last row \(line 3\) has 2 of 3 fields; the file may have been cut"),
    "open_quote.csv": (HEAD + b'1,50,f\n"2,60,m\n', r"opens a value in line 3 is never closed"),
    "stray_quote.csv": (HEAD + b'1,"50"5,f\n', r"line 2 has text after a closing double quote"),
    "endless.csv": (HEAD + b'1,50,"' + b"x\n" * 70_000 + b'"\n', r"line 2 is longer than 131,072 characters"),
    "unnamed.csv": (b"eid,age,,\n1,50,x,y\n", r"columns 3, 4 hold values and have no name"),
    "latin.csv": (HEAD + "Jürg,50,m\n".encode("latin-1"), r"not UTF-8 text \(byte 13, in line 2\), perhaps Latin-1"),
    "cut_character.csv": (HEAD + "1,50,é".encode()[:-1], r"ends in the middle of a character"),
    "cut_utf16.csv": ("eid\n1\n".encode("utf-16")[:-1], r"begins as UTF-16 text and is not"),
    "nul.csv": (HEAD + b"1,50,f\n\0\0\0\0\0\0\n", r"holds NUL bytes, the first in line 3"),
    "workbook.csv": (b"PK\x03\x04\x14\0", r"is a workbook \(\.xlsx, \.ods\) or a zip archive"),
    "old_workbook.csv": (b"\xd0\xcf\x11\xe0\xa1\xb1", r"is an old Excel workbook"),
    "packed.csv": (b"\x1f\x8b\x08\0", r"is compressed \(gzip\); unpack it first"),
    "login.csv": (b"\n<!DOCTYPE html><html>", r"is a web page, perhaps that of a login"),
    "pointer.csv": (b"version https://git-lfs.github.com/spec/v1\n", r"is a Git LFS pointer"),
    "parquet.csv": (parquet(eid=["1"]), r"is a Parquet table, not text; name it \.parquet"),
    "twice.csv": (HEAD + b"1,50,f\n\n1,60,m\n", r"occur twice, e\.g\. 1\. See line 2 and line 4\."),
    "no_id.csv": (HEAD + b"1,50,f\n,60,m\n", r"1 row\(s\) have no subject id, the first in line 3\."),
    "exponent.csv": (HEAD + b"1.23E+06,50,f\n", r"numbers with an exponent, .* e\.g\. '1\.23E\+06' \(line 2\)"),
    "slash.csv": (HEAD + b"../1,50,f\n", r"cannot hold slashes, e\.g\. '\.\./1' \(line 2\)"),
    "lost.csv": (HEAD + "J\ufffdrg,50,f\n".encode(), r"a character that an earlier program could not read"),
    "error.csv": (HEAD + b"#REF!,50,f\n", r"cannot begin with '#'.* \(line 2\)"),
    "separator.csv": (b"eid\n1;50\n", r"cannot hold a separator or a double quote, e\.g\. '1;50'"),
    "unseen.csv": (HEAD + "1\u200b0,50,f\n".encode(), r"line 2 holds a character that is not seen \(U\+200B\)"),
    "long_id.csv": (HEAD + b"9" * 300 + b",50,f\n", r"id in line 2 is longer than 200 bytes"),
    "sex.csv": (HEAD + b"1,50,f\n2,60,lady\n", r"sex 'lady' is not understood \(line 3\)"),
    "sex_codes.csv": (HEAD + b"1,50,0\n2,60,1\n3,70,2\n", r"both 0 \(line 2\) and 2 \(line 4\)"),
    "split.csv": (b"eid,split\n1,holdout\n", r"split 'holdout' is not one of .* \(line 2\)"),
    "damaged.parquet": (parquet(eid=["1", "2"])[:-30], r"cannot be read as a table \(.*cut or damaged: copy it again"),
    "too_large.parquet": (parquet(eid=[2.0**60]), r"too large to be exact"),
    "lists.parquet": (parquet(eid=[["1"]]), r"column eid holds lists"),
    "no_id.parquet": (parquet(eid=["1", None]), r"have no subject id, the first in row 2\."),
    "bomb.parquet": (parquet(eid=pa.nulls(9_000_000, pa.int8())), r"cannot hold the 9,000,000 rows"),
    "a_table.txt": (b"eid,age\n1,50\n", r"line 1 has several columns \('eid,age'\)"),
    "two_columns.txt": (b"1\n2\t2\n", r"line 2 has several columns"),
    "plink.txt": (b"FID IID\n1 1\n", r"several columns \('FID IID'\)"),
    "twice.txt": (b"1\n\n1\n", r"occur twice, e\.g\. 1\. See line 1 and line 3\."),
    "array.txt": (npy(np.zeros(3)), r"is a NumPy array, not text"),
    "empty.npy": (b"", r"cannot be read as an array of ages \(.*EOF"),
    "text.npy": (b"50.5\n61.0\n", r"cannot be read as an array of ages \(the magic string"),
    "objects.npy": (npy(np.array([50, None]), allow_pickle=True), r"holds pickled Python objects"),
    "archive.npy": (npz(np.zeros(3)), r"is an archive of arrays \(\.npz\)"),
    "dates.npy": (npy(np.zeros(3, "datetime64[D]")), r"is an array of datetime64\[D\], not of ages"),
    "square.npy": (npy(np.zeros((3, 2))), r"is an array of 3 x 2 values"),
    "cut.npy": (npy(np.zeros(30))[:-9], r"holds 28 of the 30 ages that its header names"),
    "huge.npy": (header_only("(1000000000000,)"), r"holds 0 of the 1000000000000 ages"),
    "negative.npy": (header_only("(-3,)"), r"cannot be read as an array of ages \(shape \(-3,\)\)"),
    "two_arrays.npy": (npy(np.zeros(3)) * 2, r"holds more than the 3 ages that its header names"),
}  # fmt: skip


def message(path: Path) -> str:
    """What is said about a file of the zoo."""
    path.write_bytes(ZOO[path.name][0])
    read = {".txt": read_id_list, ".npy": read_age_array}.get(path.suffix, read_subject_table)
    with pytest.raises(UserError) as caught:
        read(path)
    return str(caught.value)


@pytest.mark.parametrize("name", ZOO)
def test_a_bad_list_or_table_is_named(tmp_path: Path, name: str):
    said = message(tmp_path / name)
    assert said.startswith(f"{tmp_path / name}: ") and said.endswith(".")
    assert "\n" not in said and re.search(ZOO[name][1], said), said


def test_every_message_is_its_own(tmp_path: Path):
    """No pattern fits what is said about another animal, but for those that a list and a table share."""
    said = {name: message(tmp_path / name).split(": ", 1)[1] for name in ZOO}
    assert len(set(said.values())) == len(ZOO) >= 25
    for name, (_, pattern) in ZOO.items():
        assert [n for n, text in said.items() if re.search(pattern, text)] == [name]
