"""What is known of nIDPs besides their values: name, category, kind, codes of missing answers.

Two forms are read: this program's (a row an nIDP) and UK Biobank's Data_Dictionary_Showcase (a row a field), recognised
by their columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pandas as pd

from utils.association.missing_codes import Coding, parse_codes, ukb_codings
from utils.association.recognition import find_column
from utils.association.ukb_names import MULTIPLE_CHOICE_FIELDS, SECONDARY_DIAGNOSES, parse_ukb_name
from utils.common.errors import UserError
from utils.common.tables import cell_text
from utils.common.text import listed

KINDS = ("continuous", "ordinal", "binary", "nominal", "multiple")
# Codings whose classes have no order, so that their codes are not numbers: 10 assessment centre, 89 and 100420 country,
# 1001 ethnic background, 100286 type of accommodation, 100287 own or rent. (From knowledge of the codings.)
UNORDERED_CODINGS = frozenset({"10", "89", "1001", "100286", "100287", "100420"})
# How the field's value type is written in the Showcase and, as a number, in its schema.
_SINGLE, _MULTIPLE = ("categorical single", "21"), ("categorical multiple", "22")

_FIELD_NAMES = ("fieldid", "field_id")
_VALUE_TYPE_NAMES = ("valuetype", "value_type")
_CODING_NAMES = ("coding", "encoding_id", "coding_id")


@dataclass(frozen=True)
class NidpFacts:
    """One nIDP or field; texts are empty where nothing is known.

    kind: one of KINDS, or 'categorical' (classes whose values decide whether they are binary, ordinal or nominal).
    missing_codes: values that mean 'no answer' in this nIDP, whatever its kind. coding: UK Biobank's number of it.
    """

    name: str = ""
    category: str = ""
    kind: str = ""
    unit: str = ""
    missing_codes: tuple[str, ...] = ()
    coding: str = ""

    @property
    def known_coding(self) -> Coding:
        """What is known of its coding."""
        return ukb_codings().get(self.coding, Coding())


NOTHING_KNOWN = NidpFacts()


@dataclass(frozen=True)
class NidpDictionary:
    """Facts by name of the nIDP (or column), and by UK Biobank field."""

    by_name: dict[str, NidpFacts] = field(default_factory=dict)
    by_field: dict[str, NidpFacts] = field(default_factory=dict)
    note: str = ""

    def facts(self, column: str) -> NidpFacts:
        """What is known of a column: by its name, else by its field."""
        if (found := self.by_name.get(column)) is not None:
            return found
        name = parse_ukb_name(column)
        if name is None:
            return NOTHING_KNOWN
        found = self.by_field.get(name.field, NOTHING_KNOWN)
        # An indicator of one code has not its field's kind.
        return replace(found, kind="", missing_codes=(), coding="") if name.code else found

    def is_multiple_choice(self, column: str) -> bool:
        """Whether a column holds one of the codes of a field with several answers (not an indicator of one)."""
        name = parse_ukb_name(column)
        if name is None or name.code:
            return False
        kind = self.facts(column).kind
        return kind == "multiple" or (not kind and name.field in MULTIPLE_CHOICE_FIELDS)


def read_dictionary(table: pd.DataFrame | None) -> NidpDictionary:
    """The dictionary of a table, in either form; an empty one for None.

    Raises
    ------
    UserError
        Neither form, or a kind that does not exist.
    """
    if table is None:
        return NidpDictionary()
    if "nidp" in table.columns:
        return _own_form(table)
    fields, types = (
        find_column(table.columns, _FIELD_NAMES),
        find_column(table.columns, _VALUE_TYPE_NAMES),
    )
    if fields and types:
        return _showcase_form(table, fields, types)
    raise UserError(
        f"the nIDP dictionary has no column 'nidp'; columns found: {listed(table.columns)}. (UK Biobank's own "
        "Data_Dictionary_Showcase, with FieldID and ValueType, is read as well.)"
    )


def column_groups(columns: list[str], dictionary: NidpDictionary) -> list[tuple[str, ...]]:
    """Columns that are decoded together, in the order of the table: those of one multiple-choice field, others alone.

    A multiple-choice field stands where its first column does.
    """
    groups: dict[str, list[str]] = {}
    for column in columns:
        name = parse_ukb_name(column)
        together = name is not None and dictionary.is_multiple_choice(column)
        groups.setdefault(f"field {name.field}" if name and together else f"= {column}", []).append(
            column
        )
    return [tuple(group) for group in groups.values()]


def may_be_redundant(column: str) -> bool:
    """Whether a column takes part in the search for redundant ones; secondary diagnoses do not (FUNPACK's rule)."""
    name = parse_ukb_name(column)
    return name is None or name.field not in SECONDARY_DIAGNOSES


def _own_form(table: pd.DataFrame) -> NidpDictionary:
    known: dict[str, NidpFacts] = {}
    columns = [
        c for c in ("name", "category", "kind", "unit", "missing_codes", "coding") if c in table
    ]
    for nidp, *cells in zip(table["nidp"], *(table[c] for c in columns)):
        texts = {column: cell_text(cell) for column, cell in zip(columns, cells)}
        texts["kind"] = texts.get("kind", "").lower()
        codes = parse_codes(texts.pop("missing_codes", ""))
        known.setdefault(cell_text(nidp), NidpFacts(missing_codes=codes, **texts))
    known.pop("", None)
    unknown = sorted({facts.kind for facts in known.values()} - set(KINDS) - {""})
    if unknown:
        raise UserError(
            f"the nIDP dictionary gives the kind {', '.join(map(repr, unknown))}; "
            f"a kind is one of {', '.join(KINDS)}, or empty to have it detected."
        )
    fields = {_field_named(nidp): facts for nidp, facts in reversed(known.items())}
    fields.pop("", None)
    return NidpDictionary(known, fields, f"nIDP dictionary: {len(known):,} nIDPs")


def _field_named(nidp: str) -> str:
    """The field that a row stands for as a whole: '31' and 'p31' do, '31-0.0' does not."""
    stem = nidp[1:] if nidp.startswith("p") else nidp
    return stem if stem.isdecimal() else ""


def _showcase_form(table: pd.DataFrame, fields: str, types: str) -> NidpDictionary:
    named = find_column(table.columns, ("field", "title", "name"))
    grouped = find_column(table.columns, ("path", "category", "main_category"))
    codings = find_column(table.columns, _CODING_NAMES)
    units = find_column(table.columns, ("units", "unit"))

    def texts(column: str | None) -> list[str]:
        return [""] * len(table) if column is None else [cell_text(cell) for cell in table[column]]

    known = {}
    for number, value_type, name, category, coding, unit in zip(
        texts(fields), texts(types), texts(named), texts(grouped), texts(codings), texts(units)
    ):
        coding = "" if coding == "0" else coding
        known[number] = NidpFacts(
            name=name,
            category=category.split(">")[-1].strip(),
            kind=_kind_of(value_type.strip().lower(), coding),
            unit=unit,
            missing_codes=ukb_codings().get(coding, Coding()).missing,
            coding=coding,
        )
    return NidpDictionary({}, known, f"UK Biobank's data dictionary: {len(known):,} fields")


def _kind_of(value_type: str, coding: str) -> str:
    """Numbers have their kind detected; single choices are 'categorical', without order where their coding has none."""
    if value_type in _MULTIPLE:
        return "multiple"
    if value_type in _SINGLE:
        return "nominal" if coding in UNORDERED_CODINGS else "categorical"
    return ""
