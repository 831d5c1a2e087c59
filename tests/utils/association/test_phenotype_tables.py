"""Tables of nIDPs of any width: every way of reading gives the same, in pieces or at once."""

import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.association.decoding import decode_columns
from utils.association.phenotype_tables import open_phenotypes, table_in_memory
from utils.association.text_pieces import strict_pieces
from utils.common.errors import UserError
from utils.common.files import writer_name
from utils.common.tables import read_table

N = 300


def cohort():
    rng = np.random.default_rng(0)
    numbers = pd.DataFrame(
        np.where(rng.random((N, 600)) < 0.2, np.nan, rng.normal(size=(N, 600))),
        columns=[f"f.{1000 + k}.2.0" for k in range(600)],
    )
    others = pd.DataFrame(
        {
            "whole": rng.integers(0, 6, N),
            "whole then broken": [*range(N - 1), 0.5],
            "late text": ["1"] * (N - 1) + ["unknown"],
            "text": rng.choice(["a", "b, c", 'say "d"', "über"], N),
            "truth": rng.choice([True, False], N),
            "gaps in truth": rng.choice(np.array([True, False, None], dtype=object), N),
            "date": pd.date_range("2010-01-01", periods=N).strftime("%Y-%m-%d"),
            "nothing": [np.nan] * N,
            "site": rng.integers(1, 4, N),
            "huge": rng.choice([1e300, -1e-300, 12345678901234567890.0], N),
        }
    )
    ids = pd.DataFrame({"eid": [f"{k:07d}" for k in range(N)]})
    return pd.concat([numbers.iloc[:, :300], ids, numbers.iloc[:, 300:], others], axis=1)


COHORT = cohort()


def written(folder, form):
    path = folder / f"cohort.{form.split()[0]}"
    if path.suffix == ".parquet":
        table = COHORT.set_index("eid") if "index" in form else COHORT
        table.to_parquet(path)
    else:
        separator = "\t" if path.suffix == ".tsv" else ";" if "semicolon" in form else ","
        COHORT.to_csv(path, index=False, sep=separator)
    if "windows" in form:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    if "mac" in form:
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r").rstrip(b"\r"))
    return path


def decoded(table, columns):
    return {column.name: column for column in decode_columns(table.read(columns))}


@pytest.fixture(scope="module")
def reference():
    with table_in_memory(COHORT) as table:
        return decoded(table, table.columns)


FORMS = ("csv", "tsv", "csv semicolon", "csv windows", "tsv mac", "parquet", "parquet index")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("in_pieces", [False, True])
def test_every_form_gives_the_same(form, in_pieces, tmp_path, reference):
    limits = {"largest_text_at_once": 0, "memory_gb": 1e-3} if in_pieces else {}
    scratch = tmp_path / "scratch"
    with open_phenotypes(written(tmp_path, form), scratch=scratch, **limits) as table:
        if in_pieces and "parquet" not in form:
            assert len(list(scratch.glob("*/*.parquet"))) == 2
        assert set(table.columns) == set(COHORT.columns) - {"eid"}
        if "index" not in form:
            assert table.columns == [name for name in COHORT.columns if name != "eid"]
        assert table.subject_ids == COHORT["eid"].tolist()
        found = decoded(table, table.columns)
    for name, column in reference.items():
        other = found[name]
        assert (other.kind, other.reason) == (column.kind, column.reason), name
        np.testing.assert_array_equal(other.values, column.values, err_msg=name)
    assert not scratch.exists() or not list(scratch.iterdir())


@pytest.mark.parametrize("in_pieces", [False, True])
def test_rows_and_columns_are_chosen(in_pieces, tmp_path):
    limits = {"largest_text_at_once": 0} if in_pieces else {}
    rows = np.array([5, 299, 0])
    columns = ["site", "f.1599.2.0", "f.1000.2.0", "late text"]
    with open_phenotypes(written(tmp_path, "csv"), scratch=tmp_path / "s", **limits) as table:
        out = table.read(columns, rows)
        assert list(out.columns) == columns and list(out.index) == [0, 1, 2]
        np.testing.assert_array_equal(
            out["f.1599.2.0"], COHORT["f.1599.2.0"].to_numpy()[rows], strict=False
        )
        # The type is that of the whole column, whichever rows are read.
        assert table.read(["late text"], rows[:1])["late text"].tolist() == ["1"]
        with pytest.raises(UserError, match="no column eid, weight"):
            table.read(["eid", "weight"])


def test_subjects_without_id_and_unnamed_columns_are_passed_over(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(",eid,x\n0,01,5\n1,,6\n2,NA,7\n3,03,8\n", encoding="utf-8")
    for limit in (0, 10**9):
        with open_phenotypes(path, scratch=tmp_path, largest_text_at_once=limit) as table:
            assert table.columns == ["x"] and table.subject_ids == ["01", "03"]
            assert table.read(["x"])["x"].tolist() == [5, 8]
            assert table.read(["x"], np.array([1]))["x"].tolist() == [8]


HEAD = "eid,a,b\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("eid,a,a\n1,2,3\n", "column names occur twice: a"),
        (HEAD + "1,2,3\n2,3,4,5\n", "line 3 has more fields|more fields .* line 3"),
        (HEAD + "1,2\n2,3,4\n", "line 2 has fewer fields|fewer fields .* line 2"),
        (HEAD + "1,2,3\n2,3", "line 3.*2.* fields"),
        (HEAD + '1,"2,3\n2,3,4\n', "quote that opens a value in line 2 is never closed"),
        (HEAD + '1,"2"x,3\n', "line 2 has text after a closing double quote"),
        (HEAD + "1,2,3\n1,3,4\n", "1 rows whose subject already has a row"),
        ("name,a,b\nx,2,3\n", "no subject column. Columns found: name, a, b"),
        (b"\x1f\x8b" + b"0" * 50, "is compressed"),
        (HEAD.encode() + b"1,2,\xe9\n2,3,4\n", "is not UTF-8 text .*line 2"),
        (HEAD.encode() + b"1,2,\xc3", "ends in the middle of a character"),
        (HEAD.encode() + b"1,2,\x00\n", "holds NUL bytes"),
        ("<!doctype html>\n<p>", "is a web page"),
        ("\n\n \n", "is empty"),
    ],
)
@pytest.mark.parametrize("limit", [0, 10**9])
def test_malformed_tables_are_named(content, message, limit, tmp_path):
    path, scratch = tmp_path / "t.csv", tmp_path / "s"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    with pytest.raises(UserError, match=message):
        open_phenotypes(path, scratch=scratch, largest_text_at_once=-1 if limit == 0 else limit)
    assert not scratch.exists() or not list(scratch.iterdir())


def test_wide_text_of_other_encodings_is_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("eid,x\n1,2\n", encoding="utf-16")
    with pytest.raises(UserError, match="UTF-16 text; a table of this size"):
        open_phenotypes(path, scratch=tmp_path, largest_text_at_once=0)
    with open_phenotypes(path) as table:
        assert table.read(["x"])["x"].tolist() == [2]


def test_missing_and_damaged_files_are_named(tmp_path):
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(UserError, match="no such table"):
            open_phenotypes(tmp_path / name)
    with pytest.raises(UserError, match="is a folder"):
        open_phenotypes(tmp_path)
    path = written(tmp_path, "parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(UserError, match="cut or damaged"):
        open_phenotypes(path)
    twice = pd.DataFrame([[1, 2, 3]], columns=["eid", "x", "x"])
    with pytest.raises(UserError, match="occur twice: x"):
        table_in_memory(twice)


def test_a_flipped_byte_of_parquet_is_found_when_its_column_is_read(tmp_path):
    path = tmp_path / "t.parquet"
    table = pd.DataFrame(
        {"eid": [str(k) for k in range(500)], "x": np.random.default_rng(0).normal(size=500)}
    )
    table.to_parquet(path, compression="none", write_page_checksum=True, use_dictionary=False)
    data = bytearray(path.read_bytes())
    place = bytes(data).find(table["x"].to_numpy()[250].tobytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))
    with open_phenotypes(path) as opened, pytest.raises(UserError, match="cut or damaged"):
        opened.read(["x"])


def test_what_was_converted_goes_when_reading_fails(tmp_path):
    path = written(tmp_path, "csv")
    scratch = tmp_path / "s"
    with pytest.raises(UserError, match="cannot be read again"):  # noqa: SIM117
        with open_phenotypes(path, scratch=scratch, largest_text_at_once=0) as table:
            for file in scratch.glob("*/*.parquet"):
                file.write_bytes(b"x")
            table.read(["site"])
    assert not list(scratch.iterdir())


CELLS = st.sampled_from(
    ["1", "2.5", "", "NA", " 3", "-1e5", "word", 'a "quoted" one', "a,b", "two\nlines", "é"]
)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=12),
    piece=st.integers(1, 200),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_pieces_are_cut_anywhere(rows, piece, ending, tmp_path_factory):
    path = tmp_path_factory.mktemp("pieces") / "t.csv"
    table = pd.DataFrame(
        [[str(k), *row] for k, row in enumerate(rows)], columns=["eid", "a", "b", "c"]
    )
    text = table.to_csv(index=False, lineterminator="\n").replace("\n", ending)
    path.write_bytes(text.encode("utf-8"))
    pieces = list(strict_pieces(path, piece))
    assert sum(found.n_rows for found in pieces) == len(rows)
    with (
        open_phenotypes(path) as whole,
        open_phenotypes(path, 1e-9, path.parent, largest_text_at_once=0) as wide,
    ):
        expected = whole.read(whole.columns).astype(object)
        found = wide.read(wide.columns).astype(object)
        for name in "abc":
            for one, other in zip(expected[name], found[name]):
                assert one == other or (pd.isna(one) and pd.isna(other))


def test_conversions_of_runs_that_died_are_removed(tmp_path):
    host = writer_name().partition("-")[0]
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    names = (f".nidps.{host}-{child}.a", f".nidps.{host}-{os.getppid()}.b", "key")
    for name in names:
        (tmp_path / "s" / name).mkdir(parents=True)
        (tmp_path / "s" / name / "00000.parquet").write_bytes(b"x")
    path = tmp_path / "t.csv"
    path.write_text(HEAD + "1,2,3\n", encoding="utf-8")
    with open_phenotypes(path, scratch=tmp_path / "s", largest_text_at_once=-1):
        pass
    assert {folder.name for folder in (tmp_path / "s").iterdir()} == set(names[1:])


def test_a_folder_for_conversions_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "t.csv").write_text(HEAD + "1,2,3\n", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be written"):
        open_phenotypes(
            tmp_path / "t.csv", scratch=tmp_path / "t.csv" / "s", largest_text_at_once=-1
        )


def test_not_a_number_is_missing_however_it_is_written(tmp_path):
    words = ["NAN", "Nan", "-nan", "NA", "n/a", "", "nan"]
    table = pd.DataFrame({"eid": [f"{k}" for k in range(30)]})
    table["x"] = [words[k] if k < len(words) else str(k / 7) for k in range(30)]
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    for name, limit in (("t.csv", -1), ("t.csv", 10**9), ("t.parquet", 0)):
        with open_phenotypes(tmp_path / name, scratch=tmp_path, largest_text_at_once=limit) as read:
            (column,) = decode_columns(read.read(["x"]))
        assert column.kind == "continuous"
        expected = [np.nan if k < len(words) else k / 7 for k in range(30)]
        np.testing.assert_array_equal(column.values, expected)


def test_ids_that_are_no_text_are_named(tmp_path):
    path = tmp_path / "t.parquet"
    pd.DataFrame({"eid": [b"\xff\xfe1", b"\xff\xfe2"], "x": [1, 2]}).to_parquet(path)
    with pytest.raises(UserError, match=r"column eid cannot be read as ids .* write it as text"):
        open_phenotypes(path)


@pytest.mark.parametrize(
    "name", ["Subject ID", "SubjectID", "IID", "Participant", "f.eid", "F_EID"]
)
def test_ids_keep_their_zeros_under_every_name_that_is_accepted(name, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(f"{name},x\n001,5\n002,6\n", encoding="utf-8")
    assert read_table(path)[name].tolist() == ["001", "002"]
    for limit in (-1, 10**9):
        with open_phenotypes(path, scratch=tmp_path, largest_text_at_once=limit) as table:
            assert table.subject_ids == ["001", "002"]
