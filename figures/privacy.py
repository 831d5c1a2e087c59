"""What may leave the platform: counts of at least ten, never a person, never an id.

UK Biobank lets summaries leave its platform and keeps rows about persons inside. Every figure and the report
go through these functions unless individual-level points were asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

MINIMUM_COUNT = 10  # the smallest count that is shown
SUPPRESSED = f"<{MINIMUM_COUNT}"
ID_REMOVED = "[id removed]"
_ID_COLUMNS = ("subject_id", "participant_id", "eid", "f.eid", "subject_ids", "subjects")
_NICE_WIDTHS = (0.5, 1.0, 2.0, 2.5, 5.0, 10.0, 20.0, 50.0, 100.0)


@dataclass(frozen=True)
class BinnedCounts:
    """Counts on a grid; cells under the minimum count are zero and counted in `n_hidden`."""

    x_edges: np.ndarray  # (X + 1,)
    y_edges: np.ndarray  # (Y + 1,)
    counts: np.ndarray  # (X, Y) int, each 0 or >= MINIMUM_COUNT
    n: int
    n_hidden: int

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to show."""
        return not bool((self.counts > 0).any())


def binned_counts(x: np.ndarray, y: np.ndarray) -> BinnedCounts:
    """Counts of persons in squares, squares of fewer than ten left out.

    The finest grid of round steps that still shows most of the persons is taken, so that small studies show a
    shape as well. If the persons left out are fewer than ten together, the smallest shown square is left out
    too: otherwise a subtraction from the total would give their number back.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    keep = np.isfinite(x) & np.isfinite(y)
    x, y = x[keep], y[keep]
    best = _counts_on_grid(x, y, _FINEST_STEPS)
    for n_steps in _COARSER_STEPS:
        if best.n_hidden <= _MOST_HIDDEN * best.n:
            break
        coarser = _counts_on_grid(x, y, n_steps)
        if coarser.n_hidden < best.n_hidden:
            best = coarser
    return best


_FINEST_STEPS = 28
_COARSER_STEPS = (20, 14, 10, 7, 5, 4, 3)
_MOST_HIDDEN = 0.2  # of the persons; beyond it a coarser grid is tried


def _counts_on_grid(x: np.ndarray, y: np.ndarray, n_steps: int) -> BinnedCounts:
    x_edges, y_edges = _edges(x, n_steps), _edges(y, n_steps)
    counts = np.zeros((len(x_edges) - 1, len(y_edges) - 1), dtype=np.int64)
    if len(x):
        counts = np.histogram2d(x, y, bins=(x_edges, y_edges))[0].astype(np.int64)
    shown = np.where(counts >= MINIMUM_COUNT, counts, 0)
    hidden = int(len(x) - shown.sum())
    while 0 < hidden < MINIMUM_COUNT and shown.any():
        smallest = np.unravel_index(
            np.where(shown > 0, shown, np.iinfo(np.int64).max).argmin(), shown.shape
        )
        hidden += int(shown[smallest])
        shown[smallest] = 0
    return BinnedCounts(x_edges, y_edges, shown, len(x), hidden)


def _edges(values: np.ndarray, n_steps: int) -> np.ndarray:
    """Edges at round numbers that cover the values with at most about `n_steps` steps."""
    if len(values) == 0:
        return np.array([0.0, 1.0])
    low, high = float(values.min()), float(values.max())
    wanted = (high - low) / n_steps
    width = next((w for w in _NICE_WIDTHS if w >= wanted), _NICE_WIDTHS[-1])
    first = np.floor(low / width)
    n_edges = max(int(np.floor(high / width) - first) + 1, 1)
    return (first + np.arange(n_edges + 1)) * width


def means_by_age(age_years: np.ndarray, values: np.ndarray) -> pd.DataFrame:
    """Mean, SD and n of a value in age bins of at least ten persons: columns age_from, age_to, n, mean, sd."""
    age, value = np.asarray(age_years, float), np.asarray(values, float)
    keep = np.isfinite(age) & np.isfinite(value)
    age, value = age[keep], value[keep]
    edges = _edges(age, int(np.clip(len(age) // 25, 4, 28)))
    place = np.clip(np.digitize(age, edges) - 1, 0, len(edges) - 2)
    rows = []
    for step in range(len(edges) - 1):
        inside = value[place == step]
        if len(inside) >= MINIMUM_COUNT:
            rows.append(
                (edges[step], edges[step + 1], len(inside), inside.mean(), inside.std(ddof=1))
            )
    # One bin left out with fewer than ten persons would follow from the total; its neighbour goes with it.
    hidden = len(age) - sum(row[2] for row in rows)
    while 0 < hidden < MINIMUM_COUNT and rows:
        smallest = min(rows, key=lambda row: row[2])
        hidden += smallest[2]
        rows.remove(smallest)
    return pd.DataFrame(rows, columns=["age_from", "age_to", "n", "mean", "sd"])


def shown_count(n: float | int | None, individual_level: bool = False) -> str:
    """A count as text: thousands separated, "<10" for a small one, a dash for none."""
    if n is None or not np.isfinite(n):
        return "–"
    if 0 < n < MINIMUM_COUNT and not individual_level:
        return SUPPRESSED
    return f"{round(n):,}"


def known_ids(tables: Iterable[pd.DataFrame | None]) -> frozenset[str]:
    """All subject ids of some tables that could be told from an ordinary number or word (a digit, four signs)."""
    found: set[str] = set()
    for table in tables:
        for column in _ID_COLUMNS:
            if table is not None and column in table.columns:
                found.update(str(value) for value in table[column].dropna().unique())
    return frozenset(i for i in found if len(i) >= 4 and any(letter.isdigit() for letter in i))


def without_ids(content: Any, ids: frozenset[str]) -> Any:
    """A copy of plain content (dict, list, text) with id entries dropped and ids inside text replaced."""
    if isinstance(content, dict):
        return {
            without_ids(str(key), ids): without_ids(value, ids)
            for key, value in content.items()
            if str(key) not in _ID_COLUMNS
        }
    if isinstance(content, (list, tuple, set)):
        return [without_ids(value, ids) for value in content]
    if isinstance(content, str):
        return _text_without_ids(content, ids)
    if str(content) in ids:
        return ID_REMOVED
    return content


def _text_without_ids(text: str, ids: frozenset[str]) -> str:
    """Whole words that are an id, with or without the dots and dashes that some ids hold."""
    for pattern in (r"[\w.-]+", r"[\w-]+", r"\w+", r"[^\W_]+", r"[0-9A-Za-z-]+"):
        text = re.sub(pattern, lambda m: ID_REMOVED if m.group(0) in ids else m.group(0), text)
    return text


# Counts of things, not of persons: they stay as they are however small.
_COUNTS_OF_THINGS = (
    "n_tests", "n_tested", "n_untested", "n_rows", "n_bonferroni", "n_bh", "n_nidps", "n_nidps_kept",
    "n_networks", "n_contrasts", "n_patterns", "n_parameters", "n_epochs", "n_resamples", "n_confounds",
    "n_columns", "n_cells", "n_families", "n_units", "n_units_selected", "n_rejected_within", "n_redundant",
    "n_permutations", "n_significant", "n_hits", "n_rechecked", "n_pairs_compared", "n_discoveries",
    "n_discoveries_tested", "n_replicated", "n_same_sign", "n_rows_compared", "n_hits_a", "n_hits_b",
    "n_hits_both", "n_hits_a_only", "n_hits_b_only", "n_stronger_a", "n_stronger_b", "n_different",
)  # fmt: skip
_PERSONS_BELOW = (
    "subjects",
    "n_by_contrast",
    "counts",
)  # every number under these keys counts persons


# "3 subjects", "2 of 395 subjects", "3 missing values": rows and values of tables of persons count persons.
_SMALL_COUNT = re.compile(
    r"(?<![\w.,])[1-9](?: of [\d,]+)? (analysed |missing |censored |validation )?"
    r"(subject|person|volume|row|value|age)(?=s?\b)"
)


def text_for_export(text: str) -> str:
    """A sentence with "3 subjects", "2 of 395 subjects" and the like as "fewer than 10 subjects"."""
    return _SMALL_COUNT.sub(
        lambda m: f"fewer than {MINIMUM_COUNT} {m.group(1) or ''}{m.group(2)}", text
    )


def record_for_export(content: Any, key: str = "", counts_persons: bool = False) -> Any:
    """A copy of a record with small counts of persons hidden and the youngest's and oldest's ages in whole years."""
    if isinstance(content, dict):
        return {
            name: record_for_export(value, str(name), counts_persons or key in _PERSONS_BELOW)
            for name, value in content.items()
        }
    if isinstance(content, (list, tuple)):
        return [record_for_export(value, key, counts_persons) for value in content]
    if isinstance(content, str):
        return text_for_export(content)
    if isinstance(content, bool) or not isinstance(content, (int, float, np.number)):
        return content
    if key == "age_min_years" and np.isfinite(content):
        return int(np.floor(content))
    if key == "age_max_years" and np.isfinite(content):
        return int(np.ceil(content))
    is_count = key == "n" or (key.startswith("n_") and key not in _COUNTS_OF_THINGS)
    if (is_count or counts_persons or key in _PERSONS_BELOW) and 0 < content < MINIMUM_COUNT:
        return SUPPRESSED
    return content
