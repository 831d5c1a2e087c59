"""Who is in the study: published lists, tables as people write them, and no subject in two splits."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from datasets.ages import parse_age, parse_ages, read_age_array
from datasets.subjects import (
    PublishedLists,
    apply_split,
    families_in_two_splits,
    read_id_list,
    read_published_lists,
    read_subject_table,
    refuse_subjects_in_two_splits,
    subjects_hash,
)
from utils.common.errors import UserError


def write_lists(folder, sex_prefix, split, ids, ages, suffix=""):
    (folder / f"{sex_prefix}male_{split}{suffix}.txt").write_text("\n".join(ids) + "\n")
    np.save(folder / f"{sex_prefix}male_{split}_age{suffix}.npy", np.array(ages))
    return PublishedLists(folder, f"male_{split}", f"male_{split}_age", suffix)


def test_published_lists_of_both_sexes(tmp_path):
    names = {"train": write_lists(tmp_path, "", "train", ["0011", "12"], [50.5, 61.0], "_small")}
    write_lists(tmp_path, "fe", "train", ["13"], [70.25], "_small")
    women = read_published_lists(names, ("female",))
    assert women[["subject_id", "age_years", "sex", "split"]].values.tolist() == [
        ["13", 70.25, "female", "train"]
    ]
    everybody = read_published_lists(names, ("both",))
    assert everybody["subject_id"].tolist() == ["13", "0011", "12"]
    assert everybody["age_years"].tolist() == [70.25, 50.5, 61.0]


def test_published_lists_that_do_not_fit_together(tmp_path):
    train = write_lists(tmp_path, "", "train", ["1", "2", "3"], [50, 60])
    with pytest.raises(UserError, match=r"male_train.txt has 3 subjects, .*_age.npy 2 ages"):
        read_published_lists({"train": train}, ("male",))
    train = write_lists(tmp_path, "", "train", ["1", "2", "3"], [50, 60, 70])
    test = write_lists(tmp_path, "", "test", ["3", "2", "9"], [50, 60, 70])
    with pytest.raises(UserError, match=r"2 subject\(s\) .* \(2 in test and train\), e.g. 2"):
        read_published_lists({"train": train, "test": test}, ("male",))
    (tmp_path / "male_test_age.npy").write_bytes(b"no array")
    with pytest.raises(UserError, match="cannot be read as an array of ages"):
        read_published_lists({"test": test}, ("male",))
    with pytest.raises(UserError, match=r"female_test.txt: no such list"):
        read_published_lists({"test": test}, ("female",))


def test_a_subject_in_two_splits_is_refused_with_counts():
    table = pd.DataFrame(
        {
            "subject_id": ["a", "b", "c", "a", "b", "c", "d"],
            "split": ["train", "train", "train", "test", "test", "validation", "test"],
        }
    )
    with pytest.raises(UserError) as caught:
        refuse_subjects_in_two_splits(table)
    assert "3 subject(s)" in str(caught.value)
    assert "2 in test and train, 1 in train and validation" in str(caught.value)
    refuse_subjects_in_two_splits(table.iloc[[3, 4, 5, 6]])


@pytest.mark.parametrize(
    ("value", "age", "note"),
    [
        ("26,9", 26.9, ""), ("63.5", 63.5, ""), (71, 71.0, ""), (0, 0.0, ""),
        ("89+", math.nan, "age 89+ is censored"), (">90", math.nan, "age >90 is censored"),
        ("n/a", math.nan, "no age"), ("-9999", math.nan, "no age"), (-9999.0, math.nan, "no age"),
        (None, math.nan, "no age"), (math.nan, math.nan, "no age"), ("", math.nan, "no age"),
        ("old", math.nan, "age 'old' is not a number"), ("630", math.nan, "age 630 lies outside 0-120"),
        ("45 years", 45.0, ""), ("45.5y", 45.5, ""), ("045Y", 45.0, ""), ("5e1", 50.0, ""), (" 50. ", 50.0, ""),
        ("26,925 y", math.nan, "age 26,925 y has a comma that may be decimal or group thousands"),
        ("0,500", 0.5, ""), ("1234,5", math.nan, "age 1234.5 lies outside 0-120"),
        ("1,234.5", math.nan, "age '1,234.5' is not a number"), ("5_0", math.nan, "age '5_0' is not a number"),
        ("٥٠", math.nan, "age '٥٠' is not a number"), (True, math.nan, "age 'true' is not a number"),
        (b"50.5", 50.5, ""), (np.float32(50.5), 50.5, ""), (np.int64(50), 50.0, ""),
        ([50], math.nan, "age '[50]' is not a number"),
        ("1950-03-01", math.nan, "age 1950-03-01 is a date"), ("1.3.1950", math.nan, "age 1.3.1950 is a date"),
        ("01-Mar-50", math.nan, "age 01-mar-50 is a date"), ("40-45", math.nan, "age 40-45 is a range"),
        ("018M", math.nan, "age 018m is not in years"), ("3 weeks", math.nan, "age 3 weeks is not in years"),
        ("90 or older", math.nan, "age 90 or older is censored"), ("<18", math.nan, "age <18 is censored"),
        ("-9999.0", math.nan, "no age"), (".", math.nan, "no age"), ("−3", math.nan, "age -3 lies outside 0-120"),
        ("1e9", math.nan, "age 1e+09 lies outside 0-120"), ("9" * 5000, math.nan, "age inf lies outside 0-120"),
        ("a\nb", math.nan, "age 'a b' is not a number"),
        (pd.Timestamp(2020, 1, 1), math.nan, "age 2020-01-01 00:00:00 is a date"),
        ("inf", math.nan, "age inf lies outside 0-120"), (-3, math.nan, "age -3 lies outside 0-120"),
    ],
)  # fmt: skip
def test_ages_as_they_come(value, age, note):
    parsed, said = parse_age(value)
    assert said == note
    assert parsed == age or (math.isnan(parsed) and math.isnan(age))


def test_one_clear_decimal_comma_explains_the_others():
    assert [age for age, _ in parse_ages(["26,925", "73,5"])] == [26.925, 73.5]
    assert all(math.isnan(age) for age, _ in parse_ages(["26,925", "73,500", "50.5"][:2]))
    assert parse_ages([]) == []


def test_a_table_as_excel_writes_it(tmp_path):
    path = tmp_path / "participants.csv"
    path.write_bytes(
        "\ufeffParticipant_ID;Age;Sex;Split;Family;Site\r\n"
        "007;26,9;m;train;F01;1\r\n"
        "0010;89+;F;val;;2\r\n"
        "11;n/a;1;Test;F01;\r\n"
        "12;-9999;2;training;;3\r\n"
        "13;44;2.0;test;;3\r\n"
        ";;;;;\r\n"
        "14;45;M,;test;;3\r\n"
        "15;46;n/a;;;3\r\n".encode()
    )
    table = read_subject_table(path).set_index("subject_id")
    assert table.index.tolist() == ["007", "0010", "11", "12", "13", "14", "15"]
    assert table["sex"].tolist() == ["male", "female", "male", "female", "female", "male", ""]
    assert table["split"].tolist() == ["train", "validation", "test", "train", "test", "test", ""]
    assert table["family"].tolist() == ["F01", "", "F01", "", "", "", ""]
    assert table["site"].tolist() == ["1", "2", "", "3", "3", "3", "3"]
    assert table.loc["007", "age_years"] == 26.9
    assert table["note"].tolist()[1:4] == ["age 89+ is censored", "no age", "no age"]
    assert table["age_years"].isna().tolist() == [False, True, True, True, False, False, False]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,age\n1,2\n", "no column of subject ids .* Found: name, age"),
        ("subject_id,age\n1,2\n1,3\n", r"1 subject id\(s\) occur twice, e.g. 1"),
        ("subject_id,age\n1,2\n,3\n", r"1 row\(s\) have no subject id"),
        ("subject_id,age\n../1,2\n", r"cannot hold slashes, e.g. '../1'"),
        ("subject_id,sex\n1,unknown\n", "sex 'unknown' is not understood"),
        ("subject_id,split\n1,holdout\n", "split 'holdout' is not one of train, validation, test"),
        ("subject_id,Age,age\n1,50,60\n", "occur twice but for capitals: age"),
        ("subject_id,age,sex\n1,26,9,m\n", "more fields than the 3 column names"),
        ("subject_id,age\n1,2\n2,26,9\n", "more fields than the 2 column names .* line 3"),
    ],
)
def test_tables_that_are_refused(tmp_path, text, words):
    path = tmp_path / "people.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        read_subject_table(path)
    assert str(path) in str(caught.value)


def test_only_ids_are_enough(tmp_path):
    path = tmp_path / "people.tsv"
    path.write_text("eid\n001\n2\n")
    table = read_subject_table(path)
    assert table["subject_id"].tolist() == ["001", "2"]
    assert table["note"].tolist() == ["no age", "no age"] and (table["sex"] == "").all()
    path.write_text("eid\n")
    assert read_subject_table(path).empty


def test_id_lists(tmp_path):
    path = tmp_path / "exclude.txt"
    path.write_bytes(b"\xef\xbb\xbf001\r\n\r\n  22 \r\n")
    assert read_id_list(path) == ["001", "22"]
    path.write_text("1\n2\n1\n")
    with pytest.raises(UserError, match=r"occur twice, e\.g\. 1"):
        read_id_list(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="begins as UTF-16 text and is not"):
        read_id_list(path)
    with pytest.raises(UserError, match="is a folder, not a list of subjects"):
        read_id_list(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"001\r22\rsub 3",
        "001\n22\nsub 3\n".encode("utf-16"),
        b'"eid"\n"001"\n"22"\n"sub 3"\n',
        b"Subject_ID\n001\n\t22\n\nsub 3 \n",
    ],
)
def test_the_same_list_in_other_forms(tmp_path, content):
    (tmp_path / "list.txt").write_bytes(content)
    assert read_id_list(tmp_path / "list.txt") == ["001", "22", "sub 3"]


def test_a_list_that_ends_oddly_is_remarked_upon(tmp_path, caplog):
    path = tmp_path / "list.txt"
    ids = [str(number) for number in range(1000, 1030)]
    for content, said in (
        ("\n".join(ids), ""),
        ("\n".join(ids) + "\n9\n", ""),
        ("\n".join(ids) + "\n9", "no line end and its id is shorter than every other"),
        ("\n", "holds no subject id"),
    ):
        caplog.clear()
        path.write_text(content)
        read_id_list(path)
        assert len(caplog.messages) == bool(said) and said in caplog.text


def test_ids_that_differ_by_capitals_or_zeros_are_different(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text("eid,age\nA1,50\na1,51\n01,52\n1,53\n001,54\n1e5,55\n sub 1 ,56\n")
    ids = ["A1", "a1", "01", "1", "001", "1e5", "sub 1"]
    assert read_subject_table(path)["subject_id"].tolist() == ids


def test_a_table_in_parquet(tmp_path):
    path = tmp_path / "people.parquet"
    table = pd.DataFrame(
        {"eid": [12.0, 13.0], "age": [50.5, np.nan], "sex": [0.0, 1.0], "site": [1.0, np.nan]}
    )
    table.to_parquet(path, index=False)
    read = read_subject_table(path)
    assert read["subject_id"].tolist() == ["12", "13"]
    assert read["sex"].tolist() == ["female", "male"] and read["site"].tolist() == ["1", ""]
    assert read["note"].tolist() == ["", "no age"] and read["age_years"][0] == 50.5
    pd.DataFrame({"eid": ["a", "b"], "age": [[50], [60, 61]]}).to_parquet(path)
    assert read_subject_table(path)["age_years"].isna().all()


@pytest.mark.parametrize(
    "ages",
    [
        np.array([50.5, 61.0]), np.array([[50.5], [61.0]]), np.array([[50.5, 61.0]], ">f4"),
        np.array(["50.5", "61"]), np.array([b"50,5", b"61 years"]), np.array([50.5, 61], np.float16),
    ],
)  # fmt: skip
def test_ages_in_arrays_of_every_kind(tmp_path, ages):
    np.save(tmp_path / "ages.npy", ages)
    read = parse_ages(read_age_array(tmp_path / "ages.npy"))
    assert read == [(50.5, ""), (61.0, "")]


def test_a_header_cannot_fill_the_memory(tmp_path):
    """10^12 ages are refused by the size of the file, and nothing is unpickled."""
    path = tmp_path / "ages.npy"
    for shape in ("(1000000000000,)", "(1000000000000, 1)"):
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n"
        path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
        tracemalloc.start()
        with pytest.raises(UserError, match="holds 0 of the 1000000000000 ages"):
            read_age_array(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
        tracemalloc.stop()


def test_a_frozen_split_fits_its_table_only():
    table = pd.DataFrame({"subject_id": ["1", "2"]})
    frozen = pd.DataFrame({"subject_id": ["2", "1", "5"], "split": ["test", "train", "test"]})
    assert apply_split(table, frozen, "splits.csv")["split"].tolist() == ["train", "test"]
    with pytest.raises(UserError, match=r"splits\.csv: 1 of 3 subjects have no split there"):
        apply_split(pd.DataFrame({"subject_id": ["1", "2", "3"]}), frozen, "splits.csv")


def test_the_hash_is_of_the_set():
    assert subjects_hash(["2", "1"]) == subjects_hash(["1", "2"]) != subjects_hash(["1", "3"])
    assert subjects_hash(["12", "3"]) != subjects_hash(["1", "23"])


def test_families_in_two_splits_are_counted():
    table = pd.DataFrame(
        {"family": ["a", "a", "b", "b", "c", "c", "", ""],
         "split": ["train", "train", "train", "test", "test", "", "train", "test"]}
    )  # fmt: skip
    assert families_in_two_splits(table) == 1
