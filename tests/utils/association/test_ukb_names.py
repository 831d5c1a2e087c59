"""UK Biobank column names: field, instance and index in every form."""

import pytest

from utils.association.ukb_names import UkbName, parse_ukb_name, ukb_field


@pytest.mark.parametrize(
    ("column", "field", "instance", "index", "code"),
    [
        ("f.31.0.0", "31", "0", "0", ""),
        ("f.20002.2.17", "20002", "2", "17", ""),
        ("f.42..1.0", "42", "-1", "0", ""),
        ("31-0.0", "31", "0", "0", ""),
        ("20002-3.12", "20002", "3", "12", ""),
        ("4080-2.1", "4080", "2", "1", ""),
        ("x31_0_0", "31", "0", "0", ""),
        ("X31_0_0", "31", "0", "0", ""),
        ("f_31_0_0", "31", "0", "0", ""),
        ("X31.0.0", "31", "0", "0", ""),
        ("31_0_0", "31", "0", "0", ""),
        ("p31", "31", "", "", ""),
        ("p31_i2", "31", "2", "", ""),
        ("p4080_i2_a1", "4080", "2", "1", ""),
        ("p41270_a258", "41270", "", "258", ""),
        (" p31 ", "31", "", "", ""),
        ("41270-A00", "41270", "", "", "A00"),
        ("20002-1065", "20002", "", "", "1065"),
        ("6150--7", "6150", "", "", "-7"),
        ("41202-0.A00", "41202", "0", "", "A00"),
        ("41202-0.0.A00", "41202", "0", "", "A00"),
        ("6155-2.1", "6155", "2", "1", ""),  # an array index, not the code 1
    ],
)
def test_forms_of_names(column, field, instance, index, code):
    assert parse_ukb_name(column) == UkbName(field, instance, index, code)
    assert ukb_field(column) == (field, instance)


@pytest.mark.parametrize(
    "column",
    ["", "bmi", "p", "pulse", "31", "p31_x", "f.31", "31-A00", "2020-01", "f.31.0", "p31=1"],
)
def test_other_names_have_no_field(column):
    assert parse_ukb_name(column) is None
    assert ukb_field(column) == ("", "")
