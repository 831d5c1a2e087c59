"""Findings: what stops, how they are ordered, counted and shown, and that a million of a kind stay readable."""

from __future__ import annotations

from utils.experiment.checks.findings import (
    Finding,
    counts,
    n_of,
    ordered,
    subjects_in_error,
    text_table,
)


def missing(number: int) -> Finding:
    return Finding("error", "files", "no such file", "look", "T1", f"s{number:04d}")


def test_an_error_without_a_subject_stops():
    assert Finding("error", "lists", "two lists").stops
    assert not missing(1).stops and not Finding("warning", "lists", "x").stops


def test_errors_come_first_and_parts_in_their_order():
    found = [
        Finding("note", "settings", "n"),
        Finding("warning", "lists", "w"),
        missing(2),
        missing(1),
        Finding("error", "settings", "e"),
    ]
    texts = [(f.level, f.part, f.subject_id) for f in ordered(found)]
    assert texts == [
        ("error", "settings", ""),
        ("error", "files", "s0001"),
        ("error", "files", "s0002"),
        ("warning", "lists", ""),
        ("note", "settings", ""),
    ]
    assert ordered(reversed(found)) == ordered(found)


def test_beyond_a_number_one_line_stands_for_the_others_and_none_is_lost():
    found = [missing(number) for number in range(1500)]
    short = ordered(found)
    assert len(short) == 1001 and short[-1].subject_id == "(500 more)" and not short[-1].stops
    assert n_of(short, "error") == 1500
    assert counts(short)["error"] == {"files": 1500} and counts(short)["note"] == {}
    assert len(subjects_in_error(found)) == 1500


def test_findings_that_differ_in_numbers_alone_are_of_one_kind():
    found = [
        Finding("warning", "contents", f"z {z}", "", "T1", str(z)) for z in (-6.1, 7, 8e9, "+9.25")
    ]
    assert len({finding.kind for finding in found}) == 1


def test_the_table_is_aligned_and_says_what_to_do():
    lines = text_table([missing(number) for number in range(9)]).splitlines()
    assert lines[0].split() == ["level", "part", "contrast", "subject_id", "reason", "remedy"]
    assert len(lines) == 1 + 5 + 1 and "(4 more)" in lines[-1] and lines[1].endswith("look")
    assert len({line.index("no such file") for line in lines[1:]}) == 1
    assert text_table([]).splitlines()[0].startswith("level")


def test_a_sentence_names_contrast_and_subject_once():
    assert missing(1).sentence == "T1 s0001: no such file. look"
    assert (
        Finding("error", "files", "T1_female: none", "do", "T1").sentence == "T1_female: none. do"
    )
