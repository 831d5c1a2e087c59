"""What a check found: one sentence each, with where, whom and what to do about it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Level = Literal["error", "warning", "note"]
Part = Literal["settings", "lists", "files", "headers", "contents", "machine"]

LEVELS: tuple[Level, ...] = ("error", "warning", "note")
PARTS: tuple[Part, ...] = ("settings", "lists", "files", "headers", "contents", "machine")
COLUMNS = ("level", "part", "contrast", "subject_id", "reason", "remedy")
# So many findings of one kind are named one by one; a study of 57 contrasts may lack a million files.
MOST_OF_A_KIND = 1000
MOST_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One thing found. An error without a subject stops the run; one with a subject leaves that one out."""

    level: Level
    part: Part
    reason: str
    remedy: str = ""
    contrast: str = ""
    subject_id: str = ""
    n: int = 1  # how many it stands for

    @property
    def stops(self) -> bool:
        """Whether the run is impossible as it is set."""
        return self.level == "error" and not self.subject_id

    @property
    def kind(self) -> tuple[int, int, str, bool, str]:
        """Findings that differ in their numbers alone are of one kind."""
        reason = re.sub(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?", "#", self.reason)
        place = LEVELS.index(self.level), PARTS.index(self.part)
        return (*place, self.contrast, bool(self.subject_id), reason)

    @property
    def sentence(self) -> str:
        """Where and what, with what to do."""
        contrast = "" if self.reason.startswith(self.contrast) else self.contrast
        who = " ".join(word for word in (contrast, self.subject_id) if word)
        remedy = f" {self.remedy}" if self.remedy else ""
        return f"{who}: {self.reason}.{remedy}" if who else f"{self.reason}.{remedy}"


def ordered(findings: Iterable[Finding], most: int = MOST_OF_A_KIND) -> list[Finding]:
    """By level, part, contrast and kind; beyond `most` of a kind one line stands for the others."""
    kinds: dict[tuple, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(finding.kind, []).append(finding)
    found: list[Finding] = []
    for kind in sorted(kinds):
        same = sorted(kinds[kind], key=lambda finding: (finding.subject_id, finding.reason))
        found += same[:most]
        rest = sum(finding.n for finding in same[most:])
        if rest:
            found.append(replace(same[most], subject_id=f"({rest} more)", n=rest))
    return found


def counts(findings: Iterable[Finding]) -> dict[str, dict[str, int]]:
    """Level -> part -> how many, both in their order; parts without a finding are left out."""
    number: Counter[tuple[str, str]] = Counter()
    for finding in findings:
        number[finding.level, finding.part] += finding.n
    return {
        level: {part: number[level, part] for part in PARTS if number[level, part]}
        for level in LEVELS
    }


def n_of(findings: Iterable[Finding], level: Level) -> int:
    """How many findings of a level."""
    return sum(finding.n for finding in findings if finding.level == level)


def subjects_in_error(findings: Iterable[Finding]) -> list[str]:
    """Findings by which single subjects would be left out, as sentences."""
    return [f.sentence for f in findings if f.level == "error" and f.subject_id]


def text_table(findings: Iterable[Finding], most: int = MOST_SHOWN) -> str:
    """Aligned columns for a terminal, a few rows of each kind."""
    rows: list[tuple[str, ...]] = [COLUMNS]
    for finding in ordered(findings, most):
        rows.append(tuple(_on_one_line(getattr(finding, name)) or "-" for name in COLUMNS))
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS) - 1)]
    # reasons that are much longer than the others do not push every remedy to the right
    widths[-1] = min(widths[-1], 100)
    lines = [
        "  ".join([*(text.ljust(width) for text, width in zip(row, widths)), row[-1]]).rstrip()
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _on_one_line(text: str) -> str:
    return " ".join(text.split())
