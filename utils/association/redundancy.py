"""nIDPs that say the same: of two that are all but the same, the one with fewer missing values represents both.

Decided once, on all matched subjects of both sexes, over the columns that are testable there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.association.decoding import DecodedColumn
from utils.association.dictionary import may_be_redundant
from utils.association.phenotypes import PhenotypeRules, why_untestable
from utils.association.redundancy_candidates import Sketches

Block = TypeVar("Block")
REDUNDANT_WITH = "redundant_with:"


@dataclass(frozen=True)
class RedundancyRules:
    """When one nIDP represents another.

    correlation and missingness: |r| over the subjects that have both, and |r| of 'is it missing', must both be
    exceeded. A pair of which one has no missing value fulfils the rule of missingness. duplicate: an |r| beyond which
    missingness does not matter. minimum_shared: with fewer subjects in common nothing is said.

    Source: removeIfRedundant(0.99, 0.2) of fmrib-unpack 4.0.1 and its configuration 1.8.0 (code read); two differences:
    `minimum_shared` (there, two subjects in common are enough), and that what represents others is never dropped itself
    (there, of a chain of three only the first is left). `duplicate` is a rule of this program.
    """

    correlation: float = 0.99
    missingness: float = 0.2
    duplicate: float = 0.9999
    minimum_shared: int = 51

    @staticmethod
    def named(name: str) -> RedundancyRules | None:
        """'funpack', 'duplicates' (the rule of missingness never holds), or None for 'none'."""
        known = {
            "funpack": RedundancyRules(),
            "duplicates": RedundancyRules(correlation=0.9999, missingness=1.0),
            "none": None,
        }
        return known[name]


@dataclass(frozen=True)
class Representation:
    """One nIDP that another stands for, and how alike they are."""

    nidp: str
    represented_by: str
    r: float
    r_of_missingness: float
    n_shared: int


@dataclass(frozen=True)
class Redundancy:
    """Which nIDPs are represented by others; `same_missing`: those that miss the same subjects as one before them."""

    represented: dict[str, Representation] = field(default_factory=dict)
    same_missing: frozenset[str] = frozenset()

    def applied(self, columns: Sequence[DecodedColumn]) -> list[DecodedColumn]:
        """The columns, redundant ones with the reason `redundant_with:NAME`."""
        return [self._applied(column) for column in columns]

    def table(self) -> pd.DataFrame:
        """Who represents whom, one row a represented nIDP, in the order of the table."""
        return pd.DataFrame(
            [vars(found) for found in self.represented.values()],
            columns=list(Representation.__annotations__),
        )

    def _applied(self, column: DecodedColumn) -> DecodedColumn:
        if column.name in self.same_missing:
            column = replace(column, with_missingness=False)
        found = self.represented.get(column.name)
        if found is None or column.reason:
            return column
        return replace(column, reason=f"{REDUNDANT_WITH}{found.represented_by}")


def find_redundant(
    blocks: Sequence[Block],
    decoded: Callable[[Block], list[DecodedColumn]],
    n_subjects: int,
    phenotypes: PhenotypeRules,
    rules: RedundancyRules,
    memory_bytes: int = 2_000_000_000,
) -> Redundancy:
    """Find the redundant nIDPs of a table of any width.

    Every block is read once for the search; blocks with columns that may be redundant are read again for the verdict,
    which is computed in float64 over all subjects.

    Parameters
    ----------
    blocks : sequence
        Blocks of the table.
    decoded : callable
        A block's columns on all matched subjects.
    n_subjects : int
        Matched subjects S.
    phenotypes : PhenotypeRules
        Columns that they leave out neither represent others nor are represented.
    rules : RedundancyRules
        The limits.
    memory_bytes : int
        For the columns in float64 whose verdict is computed; the search takes about 10 kB a column besides.

    Returns
    -------
    Redundancy
        The same whatever the blocks and the memory; ties are decided by the order in the table.
    """
    sketches, block_of, same_missing = Sketches(n_subjects), [], set()
    for number, block in enumerate(blocks):
        for column in _comparable(decoded(block), phenotypes):
            block_of.append(number)
            if sketches.add(column.name, column.values):
                same_missing.add(column.name)
    pairs = _pairs_to_judge(sketches, rules, n_subjects)
    r = _exact_correlations(
        sketches.names, pairs, _Reader(blocks, decoded, block_of), memory_bytes, n_subjects
    )
    alike = np.abs(r) > pairs.limit
    represented = _represented(sketches, pairs.chosen(alike), r[alike])
    return Redundancy(represented, frozenset(same_missing))


@dataclass(frozen=True)
class _Pairs:
    """Pairs of columns (N,): subjects that have both, r of their missingness (NaN: one is complete), the |r| needed."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    n_shared: NDArray[np.int64]
    r_of_missingness: NDArray[np.float64]
    limit: NDArray[np.float64]

    def chosen(self, which: NDArray) -> _Pairs:
        return _Pairs(*(values[which] for values in vars(self).values()))


class _Reader:
    """Columns by their position among those compared."""

    def __init__(
        self,
        blocks: Sequence[Block],
        decoded: Callable[[Block], list[DecodedColumn]],
        block_of: list[int],
    ):
        self._blocks, self._decoded, self._block_of = blocks, decoded, np.array(block_of, dtype=int)

    def read(
        self, positions: NDArray[np.int64], names: list[str]
    ) -> dict[int, NDArray[np.float64]]:
        """The values (S,) of some columns."""
        out = {}
        for number in np.unique(self._block_of[positions]):
            of_block = positions[self._block_of[positions] == number]
            wanted = {names[position]: int(position) for position in of_block}
            for column in self._decoded(self._blocks[number]):
                if column.name in wanted:
                    out[wanted[column.name]] = column.values
        return out


def _comparable(columns: list[DecodedColumn], rules: PhenotypeRules) -> list[DecodedColumn]:
    return [
        column
        for column in columns
        if not column.reason
        and column.kind in ("continuous", "ordinal", "binary")
        and may_be_redundant(column.source)
        and not why_untestable(column.values, column.kind, rules)
    ]


def _pairs_to_judge(sketches: Sketches, rules: RedundancyRules, n_subjects: int) -> _Pairs:
    limit = min(rules.correlation, rules.duplicate)
    n_present = np.array(sketches.n_present, dtype=float)

    def missing_together(pairs: NDArray[np.int64]) -> NDArray[np.float64]:
        first, second, n_shared = pairs.T
        return _correlation_of_missingness(
            n_present[first], n_present[second], n_shared, n_subjects
        )

    def needed(missing: NDArray[np.float64]) -> NDArray[np.float64]:
        together = np.isnan(missing) | (np.abs(missing) > rules.missingness)
        return np.where(together, limit, rules.duplicate)

    found = list(
        sketches.candidates(
            limit, rules.minimum_shared, lambda pairs: needed(missing_together(pairs))
        )
    )
    pairs = np.concatenate(found) if found else np.empty((0, 3), dtype=np.int64)
    missing = missing_together(pairs)
    return _Pairs(pairs[:, 0], pairs[:, 1], pairs[:, 2], missing, needed(missing))


def _correlation_of_missingness(
    n_first: NDArray[np.float64],
    n_second: NDArray[np.float64],
    n_shared: NDArray[np.int64],
    n_subjects: int,
) -> NDArray[np.float64]:
    """r of two 0/1 columns from their counts; NaN where one of them has one value."""
    spread = n_first * (n_subjects - n_first) * n_second * (n_subjects - n_second)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(
            spread > 0, (n_subjects * n_shared - n_first * n_second) / np.sqrt(spread), np.nan
        )


def _exact_correlations(
    names: list[str], pairs: _Pairs, reader: _Reader, memory_bytes: int, n_subjects: int
) -> NDArray[np.float64]:
    """r (N,) of the pairs over the subjects that have both, in float64; columns in chunks that fit the memory twice."""
    r = np.zeros(len(pairs.first))
    needed = np.unique(np.concatenate([pairs.first, pairs.second]))
    size = max(1, memory_bytes // (2 * 8 * max(n_subjects, 1)))
    chunk_of = {int(position): k // size for k, position in enumerate(needed)}
    chunks = [needed[start : start + size] for start in range(0, len(needed), size)]
    by_chunks: dict[tuple[int, int], list[int]] = {}
    for k, (a, b) in enumerate(zip(pairs.first.tolist(), pairs.second.tolist())):
        by_chunks.setdefault((chunk_of[a], chunk_of[b]), []).append(k)
    held: dict[int, dict[int, NDArray[np.float64]]] = {}
    for (one, other), members in sorted(by_chunks.items()):
        held = {number: values for number, values in held.items() if number in (one, other)}
        for number in (one, other):
            if number not in held:
                held[number] = reader.read(chunks[number], names)
        for k in members:
            r[k] = _correlation(held[one][int(pairs.first[k])], held[other][int(pairs.second[k])])
    return r


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Pearson's r over the subjects that have both; 0 where one of them has one value there."""
    both = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    x, y = x[both], y[both]
    if x.size < 2 or (x == x[0]).all() or (y == y[0]).all():
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    x, y = x / np.abs(x).max(), y / np.abs(y).max()
    return float(np.sum(x * y) / np.sqrt(np.sum(x * x) * np.sum(y * y)))


def _represented(
    sketches: Sketches, pairs: _Pairs, r: NDArray[np.float64]
) -> dict[str, Representation]:
    """Who represents whom: from the fewest missing values on, each column that is left stands for those like it."""
    neighbours: dict[int, list[tuple[int, int]]] = {}
    for k, (a, b) in enumerate(zip(pairs.first.tolist(), pairs.second.tolist())):
        neighbours.setdefault(a, []).append((b, k))
        neighbours.setdefault(b, []).append((a, k))
    rank = {p: (-sketches.n_present[p], p) for p in neighbours}
    dropped: dict[int, Representation] = {}
    for position in sorted(neighbours, key=rank.__getitem__):
        before = [
            (rank[other], other, k)
            for other, k in neighbours[position]
            if rank[other] < rank[position] and other not in dropped
        ]
        if before:
            _, other, k = min(before)
            dropped[position] = Representation(
                sketches.names[position],
                sketches.names[other],
                float(r[k]),
                float(pairs.r_of_missingness[k]),
                int(pairs.n_shared[k]),
            )
    return {dropped[p].nidp: dropped[p] for p in sorted(dropped)}
