"""Tables of every provenance are read alike; damaged, cut and misnamed ones are named with their reason."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from utils.common.errors import UserError
from utils.common.tables import read_located_table, read_table, write_table


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
        (b" \r\n\t\n", "is empty"),
        (b"a,b,a\n1,2,3\n", "column names occur twice: a"),
        (b"a,b\n1,2,3\n", r"1 row\(s\) have more fields than the 2 column names .* line 2 "),
        (b"a,b\n1,2\n\n1,2,3\n", r"more fields .* the first in line 4 \(3 fields\)"),
        (b"a,b\n1\n1,2\n1\n", r"2 row\(s\) have fewer fields .* line 2 \(1 fields\)"),
        (b"a,b\n1,2\n3", r"the last row \(line 3\) has 1 of 2 fields; the file may have been cut"),
        (b"a,b\n\xff,2\n", r"is not UTF-8 text \(byte 4, in line 2\)"),
        (b"\xef\xbb\xbfa,b\n\xff,2\n", r"is not UTF-8 text \(byte 7, in line 2\)"),
        ("a,b\n1,é".encode()[:-1], "ends in the middle of a character"),
        (b'a,b\n"1,2\n', "opens a value in line 2 is never closed"),
        (b'a,b\n"1"2,2\n', "line 2 has text after a closing double quote"),
        (b"a,b\n1,\x002\n", "holds NUL bytes, the first in line 2"),
        (b"a,b,,\n1,2,3,4\n", "columns 3, 4 hold values and have no name"),
        (b"PK\x03\x04", "is a workbook"),
        ("a,b\n1,2\n".encode("utf-16")[:-1], "begins as UTF-16 text and is not"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, content, words):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        read_table(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "eid\tage\n007\t50.5\n".encode("utf-16"),
        b"\xfe\xff" + "eid\tage\r\n007\t50.5\r\n".encode("utf-16-be"),
        "eid;age\n007;50.5\n".encode("utf-32"),
        b"\n \neid,age\n\n007,50.5\n\n",
        b"sep=|\r\neid|age\r\n007|50.5\r\n",
        b"eid;age;;\n007;50.5;;\n",
        b"eid,age,\n007,50.5\n",
        b'"eid","age"\n"007" , "50.5"',
    ],
)
def test_the_same_row_in_other_forms(tmp_path, content):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    table = read_table(path)
    assert table["eid"].tolist() == ["007"] and table["age"].tolist() == [50.5]
    assert list(table.columns)[:2] == ["eid", "age"] and table.dropna(axis=1).shape == (1, 2)


def test_quoted_fields_hold_separators_line_ends_and_quotes(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'"a\r\nb",c\r\n"1, 2","x\ry"\r\n"5\'10""",z"\r\n')
    located = read_located_table(path)
    assert list(located.table.columns) == ["a\nb", "c"]
    assert located.table.values.tolist() == [["1, 2", "x\ny"], ["5'10\"", 'z"']]
    assert [located.place(row) for row in (0, 1)] == ["line 3", "line 5"]


def test_a_value_that_is_cut_off_is_remarked_upon(tmp_path, caplog):
    path = tmp_path / "a.csv"
    rows = [f"{number},{number / 7:.4f}" for number in range(1, 30)]
    whole = "\n".join(["eid,x", *rows])
    for content, said in ((whole, 0), (whole + "\n", 0), (whole[:-1], 1), (whole[:-1] + "\n", 0)):
        caplog.clear()
        path.write_text(content)
        assert len(read_table(path)) == 29
        assert len(caplog.messages) == said, content
        assert all("look whether the file was cut" in message for message in caplog.messages)


def test_parquet_ids_are_exact_text(tmp_path):
    path = tmp_path / "a.parquet"
    for ids, texts in (
        (pa.array([12, None, 2**53 + 1]), ["12", None, "9007199254740993"]),
        (pa.array([12.0, float("nan"), 2.5]), ["12", None, "2.5"]),
        (pa.array([12, 13, None], pa.float32()), ["12", "13", None]),
        (pa.array(["007", " 8 ", None]), ["007", "8", None]),
        (pa.array(["007", "8", "007"]).dictionary_encode(), ["007", "8", "007"]),
        (pa.array([b"007", b"8", None]), ["007", "8", None]),
        (pa.array([None, None, None]), [None, None, None]),
    ):
        pq.write_table(pa.table({"Subject_ID": ids}), path)
        assert read_table(path)["Subject_ID"].tolist() == texts
    for ids, words in (
        (pa.array([2.0**53]), "too large to be exact"),
        (pa.array([2.0**24], pa.float32()), "too large to be exact"),
        (pa.array([float("inf")]), "too large to be exact"),
        (pa.array([["a"]]), "holds lists"),
        (pa.array([b"\xff"]), "cannot be read as a table"),
    ):
        pq.write_table(pa.table({"subject_id": ids}), path)
        with pytest.raises(UserError, match=words):
            read_table(path)
    pd.DataFrame({"eid": ["2", "1"], "x": [1, 2]}).set_index("eid").to_parquet(path)
    assert read_table(path).sort_values("x")["eid"].tolist() == ["2", "1"]


def test_no_flipped_byte_of_parquet_goes_unnoticed(tmp_path):
    """The pages have checksums; in the footer a flip is named, or stands where nothing is read."""
    path = tmp_path / "a.parquet"
    table = pd.DataFrame({"subject_id": ["001", "2", "3"], "age": [1 / 3, 50.0, 61.5]})
    write_table(table, path)
    whole, named = path.read_bytes(), 0
    for place in range(len(whole)):
        path.write_bytes(
            whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :]
        )
        try:
            found = read_table(path)
        except UserError as error:
            named += "\n" not in str(error)
        else:
            assert found.to_dict("list") == table.to_dict("list"), place
    assert named > 200


def test_a_parquet_footer_cannot_fill_the_memory(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": pa.nulls(50_000_000, pa.int8())}), path)
    assert path.stat().st_size < 100_000
    with pytest.raises(UserError, match=r"cannot hold the 50,000,000 rows"):
        read_table(path)


def test_damaged_parquet_and_missing_tables(tmp_path):
    path = tmp_path / "a.parquet"
    write_table(pd.DataFrame({"x": np.arange(1000.0)}), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be read as a table"):
        read_table(path)
    with pytest.raises(UserError, match="no such table"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(UserError, match="is a folder, not a table"):
        read_table(tmp_path)
    with pytest.raises(UserError, match="cannot be read as a table"):
        read_table(tmp_path / ("a" * 300))
