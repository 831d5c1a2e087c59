"""Deltas of this and other programs: what is recognised, and what is said when it is not."""

import numpy as np
import pandas as pd
import pytest

from utils.association.deltas_table import read_deltas, recognise_deltas
from utils.association.recognition import as_subject_ids, describe_id_form, read_sex
from utils.common.errors import UserError


def recognise(**columns):
    return recognise_deltas(pd.DataFrame(columns))


def test_our_deltas_prefer_the_corrected_one():
    out = recognise(
        subject_id=["01", "02"], sex=["female", "male"], contrast=["T1", "T1"], age_years=[50.0, 60.0],
        predicted_years=[51.0, 62.0], delta_years=[1.0, 2.0], corrected_delta_years=[0.5, 1.5], note=["", ""],
    )  # fmt: skip
    assert list(out.table.columns) == ["subject_id", "sex", "contrast", "age_years", "delta_years"]
    assert out.table["delta_years"].tolist() == [0.5, 1.5]
    assert out.recognised["delta"] == "corrected_delta_years"


def test_a_refused_correction_falls_back_to_the_raw_delta_of_that_cell_alone():
    out = recognise(
        subject_id=list("abcd"), sex=["female", "female", "male", "male"], contrast=["T1"] * 4,
        age_years=[50.0] * 4, delta_years=[1.0, 2.0, 3.0, 4.0], corrected_delta_years=[np.nan, np.nan, 7.0, np.nan],
    )  # fmt: skip
    assert out.table["delta_years"].tolist() == [1.0, 2.0, 7.0]
    assert out.notes[0] == "T1, female: no corrected delta, the raw delta was read instead"


@pytest.mark.parametrize(
    ("columns", "delta"),
    [
        ({"eid": [1000001, 1000002], "Age": [50, 60], "Brain Age": [53, 58]}, [3, -2]),
        ({"f.eid": [1, 2], "f.21003.2.0": [50, 60], "PAD": [3, -2]}, [3, -2]),
        ({"participant_id": ["s1", "s2"], "chronological_age": [50, 60], "brain-PAD": [3, -2]}, [3, -2]),
        ({"ID": ["s1", "s2"], "target_age": [50, 60], "output_age": [53, 58], "loss": [9, 4]}, [3, -2]),
        ({"subject_id": ["s1", "s2"], "age_years": ["50,5", "89"], "predicted": [53.5, 87]}, [3, -2]),
    ],
)  # fmt: skip
def test_other_tools_tables(columns, delta):
    out = recognise(**columns)
    assert out.table["delta_years"].tolist() == delta
    assert out.table["sex"].tolist() == ["both", "both"]
    assert out.table["contrast"].tolist() == ["delta", "delta"]


def test_a_censored_age_is_missing_not_a_number():
    out = recognise(subject_id=["s1", "s2"], age_years=["50", "89+"], predicted=[53, 87])
    assert out.table["subject_id"].tolist() == ["s1"]
    assert out.notes[0] == "1 censored ages such as '89+' are not used"


def test_predictions_of_failed_subjects_are_left_out_and_counted(tmp_path):
    path = tmp_path / "predictions_test.csv"
    path.write_text("subject_id,age_years,predicted_years,status\n007,50,52,ok\n008,60,,failed\n")
    out = read_deltas(path)
    assert out.table["subject_id"].tolist() == ["007"]
    assert out.notes == ("1 rows without id, age or delta were left out",)
    assert out.recognised["delta"] == "predicted_years - age_years"


def test_unknown_tables_list_what_was_found_and_what_would_do():
    with pytest.raises(UserError) as error:
        recognise(file=["a"], how_old=[50.0], guess=[51.0])
    message = str(error.value)
    for part in (
        "the subject (subject_id, participant_id",
        "nor as the age in years (age_years",
        "the delta or the predicted age (corrected_delta_years",
        "Columns found: file, how_old, guess",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"subject_id": ["a", "a"], "delta": [1.0, 2.0]}, "1 rows repeat a subject and contrast"),
        ({"subject_id": ["a", "b"], "delta": ["1.0", "x"]}, "'delta' holds 1 values that are not numbers"),
        ({"subject_id": ["a", "b"], "delta": [np.nan, np.nan]}, "no row has a subject, an age and a delta"),
        ({"subject_id": ["a", "b"], "delta": [1.0, 2.0], "sex": ["f", "q"]}, "the sex column holds 'q'"),
        ({"subject_id": ["a", "a"], "delta": [1.0, 2.0], "contrast": ["T1", "T2"], "age": [50.0, 51.0]},
         "1 subjects have different ages"),
        ({"subject_id": ["a", "a"], "delta": [1.0, 2.0], "contrast": ["T1", "T2"], "sex": ["f", "m"]},
         "1 different sexes"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_used(columns, message):
    with pytest.raises(UserError, match=message):
        recognise(**({"age": [50.0, 50.0]} | columns))


def test_sexes():
    assert read_sex(pd.Series(["F", "male", "M,", None]))[0].fillna("?").tolist() == [
        "female",
        "male",
        "male",
        "?",
    ]
    assert read_sex(pd.Series([0, 1]))[0].tolist() == ["female", "male"]
    assert read_sex(pd.Series([2.0, 1.0, 0.0]))[0].fillna("?").tolist() == ["female", "male", "?"]
    assert "1 = male, 2 = female" in read_sex(pd.Series([0, 1]))[1]
    unknown = recognise(subject_id=["a", "b"], age=[50.0, 60.0], delta=[1.0, 2.0], sex=[None, None])
    assert unknown.table["sex"].tolist() == ["both", "both"]


def test_ids_and_their_forms():
    assert as_subject_ids(pd.Series([1000001.0, np.nan])) == ["1000001", ""]
    assert as_subject_ids(pd.Series([" 007 ", None])) == ["007", ""]
    assert describe_id_form(["1000001", "1000002"]) == "7 digits"
    assert describe_id_form(["sub-0001", "sub-0002"]) == "'sub-' and 4 digits with leading zeros"
    assert describe_id_form(["1234", "1235", "x y z"]) == "mostly 4 digits"
    assert describe_id_form(["1", "12", "123"]) == "ids of several forms"
    assert describe_id_form([]) == "no ids"


def test_deltas_of_different_patterns_come_to_one_spread():
    """Three subjects have all contrasts (SD 2), two lack one (SD 4)."""
    z, sd = np.array([1.0, -1.0, 0.5, 1.0, -0.5]), np.array([2.0, 2.0, 2.0, 4.0, 4.0])
    table = pd.DataFrame(
        {"subject_id": list("abcde"), "sex": "female", "contrast": "ensemble", "age_years": 60.0,
         "corrected_delta_years": z * sd, "delta_z": z}
    )  # fmt: skip
    read = recognise_deltas(table)
    np.testing.assert_allclose(read.table["delta_years"], z * 2.0)
    assert any("brought to one spread" in note for note in read.notes)
    three = recognise_deltas(table.assign(corrected_delta_years=z * sd - 1.0))
    np.testing.assert_allclose(
        three.table["delta_years"], z * sd - 1.0
    )  # not this program's delta_z
    assert three.notes == ()
    same = recognise_deltas(table.assign(corrected_delta_years=z * 3.0))
    np.testing.assert_allclose(same.table["delta_years"], z * 3.0)
    assert same.notes == ()


@pytest.mark.parametrize("decimals", [4, 6])
def test_rounded_deltas_of_one_spread_stay_as_they_are(decimals):
    z = np.random.default_rng(2).normal(size=400)
    table = pd.DataFrame(
        {"subject_id": np.arange(400).astype(str), "sex": "male", "contrast": "T1", "age_years": 60.0,
         "corrected_delta_years": (2.7 * z).round(decimals), "delta_z": z.round(decimals)}
    )  # fmt: skip
    read = recognise_deltas(table)
    np.testing.assert_array_equal(read.table["delta_years"], table["corrected_delta_years"])
    assert read.notes == ()


def test_ids_that_became_numbers_with_a_point_are_the_same_ids():
    ids = ["1000001.0", "0023.0", "sub-1.0", "12.5", None]
    assert as_subject_ids(pd.Series(ids, dtype=object)) == [
        "1000001",
        "0023",
        "sub-1.0",
        "12.5",
        "",
    ]
