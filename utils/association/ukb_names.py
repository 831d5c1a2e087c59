"""UK Biobank's names of columns: field, instance (visit) and array index, in the forms that programs write them."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Fields whose answer is a list of codes, spread over many columns; FUNPACK makes an indicator of every code.
# Source: processing.tsv of fmrib-unpack-fmrib-config 1.8.0 (read).
MULTIPLE_CHOICE_FIELDS = frozenset(
    {"6150", "6155", "20001", "20002", "20003", "20004", "20199"}
    | {"40001", "40002", "40006", "40011", "40012", "40013"}
    | {"41200", "41201", "41202", "41203", "41204", "41205", "41210", "41256", "41258"}
    | {"41270", "41271", "41272", "41273"}
)
# Secondary diagnoses repeat the main ones, and the same source keeps them out of the search for redundant columns.
SECONDARY_DIAGNOSES = frozenset({"41202", "41203", "41204", "41205"})

_INSTANCE_AND_INDEX = (
    re.compile(r"f\.(?P<field>\d+)\.(?P<instance>\.?\d+)\.(?P<index>\d+)"),  # ukbconv r
    re.compile(r"(?P<field>\d+)-(?P<instance>-?\d+)\.(?P<index>\d+)"),  # ukbconv csv, FUNPACK
    re.compile(r"[xf][._]?(?P<field>\d+)[-._](?P<instance>\d+)[._](?P<index>\d+)"),  # R's names
    re.compile(r"(?P<field>\d+)[-._](?P<instance>\d+)[._](?P<index>\d+)"),
    re.compile(
        r"p(?P<field>\d+)(?:_i(?P<instance>\d+))?(?:_a(?P<index>\d+))?"
    ),  # Research Analysis Platform
)
_CODE = (
    re.compile(r"(?P<field>\d{2,})-(?P<instance>-?\d+)\.\d+\.(?P<code>.+)"),  # of one column
    re.compile(r"(?P<field>\d{2,})-(?P<instance>-?\d+)\.(?P<code>.+)"),  # one visit of FUNPACK's
    re.compile(r"(?P<field>\d{2,})-(?P<code>.+)"),  # FUNPACK, across visits
)


@dataclass(frozen=True)
class UkbName:
    """What a column's name says: texts, empty where it does not; `code` where it is an indicator of one code."""

    field: str
    instance: str = ""
    index: str = ""
    code: str = ""


def parse_ukb_name(column: str) -> UkbName | None:
    """The parts of a UK Biobank column name; None for other names.

    f.31.0.0, 31-0.0, x31_0_0 and p31_i0_a3 name a field, its instance and its array index; 20002-1065 and 41202-0.A00
    are indicators that FUNPACK made of a code.
    """
    name = str(column).strip()
    name = name[0].lower() + name[1:] if name else name  # X31_0_0, as R writes it
    for form in _INSTANCE_AND_INDEX:
        if found := form.fullmatch(name):
            parts = {key: value or "" for key, value in found.groupdict().items()}
            return UkbName(parts["field"], parts["instance"].replace(".", "-"), parts["index"])
    for form in _CODE:
        found = form.fullmatch(name)
        if found and found["field"] in MULTIPLE_CHOICE_FIELDS:
            parts = found.groupdict()
            return UkbName(parts["field"], parts.get("instance", ""), "", parts["code"])
    return None


def ukb_field(column: str) -> tuple[str, str]:
    """(field, instance) of a UK Biobank column name; empty texts for others."""
    name = parse_ukb_name(column)
    return (name.field, name.instance) if name else ("", "")
