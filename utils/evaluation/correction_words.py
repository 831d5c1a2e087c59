"""What to know of a correction, in sentences: refusals, stamps, ages outside the fit, uneven spread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from utils.evaluation.deltas import MINIMUM_N_FIT
from utils.evaluation.pattern_deltas import RARE_PATTERN

# -log10 p of the test of equal spread below which nothing is said: with 57 contrasts and 2 sexes chance rarely does.
SAID_FROM_NLOG10P = 4.0
MOST_NAMED = 4  # contrasts


def correction_sentences(records: dict[str, dict[str, Any]]) -> list[str]:
    """Sentences about the corrections of one sex and split, each once with the contrasts that it is about.

    Parameters
    ----------
    records : dict
        Contrast (or the combination) -> its record, of `SexDeltas.apply`.
    """
    found: dict[str, list[str]] = {}
    for contrast, record in records.items():
        for sentence in _sentences(record):
            found.setdefault(sentence, []).append(contrast)
    return [f"{_named(contrasts)}: {sentence}" for sentence, contrasts in found.items()]


def _named(contrasts: list[str]) -> str:
    if len(contrasts) <= MOST_NAMED:
        return ", ".join(contrasts)
    return f"{', '.join(contrasts[:MOST_NAMED])} and {len(contrasts) - MOST_NAMED} others"


def _sentences(record: dict[str, Any]) -> Iterator[str]:
    if "refused" in record:
        yield f"raw deltas only: {record['refused']}."
        return
    fitted = [entry for entry in _fits(record) if "refused" not in entry]
    n_overlap = sum(entry["n_overlap"] for entry in fitted)
    if n_overlap:
        yield (
            f"in-sample: the correction was fitted on {n_overlap} of these subjects, whose deltas look free "
            "of age bias by construction."
        )
    n_refused = sum(entry["n_refused_for_age"] for entry in fitted)
    n_outside = sum(entry["n_extrapolated"] for entry in fitted) - n_refused
    if n_refused:
        yield (
            f"no corrected delta for {_subjects(n_refused)} outside the ages of the fit: "
            f"'{record['method']}' does not extrapolate."
        )
    if n_outside:
        yield f"the line was extrapolated for {_subjects(n_outside)} outside the ages of the fit."
    yield from _of_patterns(record)
    spread = record.get("heteroscedasticity", {})
    if spread.get("sd_ratio") and spread["nlog10p"] >= SAID_FROM_NLOG10P:
        yield (
            f"the spread of corrected deltas changes with age (SD of the oldest third {spread['sd_ratio']:.2f} times "
            "that of the youngest): the same delta does not mean the same at every age."
        )


def _fits(record: dict[str, Any]) -> list[dict[str, Any]]:
    return list(record["patterns"].values()) if "patterns" in record else [record]


def _of_patterns(record: dict[str, Any]) -> Iterator[str]:
    """Of a combination: rare patterns of contrasts, and those without a correction by reason."""
    if record.get("n_of_rare_patterns"):
        yield (
            f"fewer than {RARE_PATTERN} share the set of contrasts of "
            f"{_subjects(record['n_of_rare_patterns'])}; their notes say so."
        )
    if record.get("n_of_moment_lines"):
        yield (
            f"fewer than {MINIMUM_N_FIT} validation subjects have all the contrasts of "
            f"{_subjects(record['n_of_moment_lines'])}: their line is from the combination's moments; their notes say "
            "so."
        )
    refused: dict[str, int] = {}
    for entry in _fits(record):
        if "refused" in entry:
            refused[entry["refused"]] = refused.get(entry["refused"], 0) + entry["n"]
    for reason, n in refused.items():
        yield f"no corrected delta for {_subjects(n)}: {reason}."


def _subjects(n: int) -> str:
    return "1 subject" if n == 1 else f"{n} subjects"
