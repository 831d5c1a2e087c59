"""Which subjects may change places in a permutation: patterns of present predictors, blocks, and families."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.common.errors import UserError

# A pattern of present predictors shared by fewer subjects is left out: hardly anything could change places in it.
MINIMUM_PATTERN = 20
# Of the 64 random bits of a key, the upper hold the block, so that one sort shuffles within every block.
KEY_BITS = np.uint64(40)


@dataclass(frozen=True)
class ExchangeableRows:
    """Rows that may change places with one another.

    blocks : (S,) int
        Rows with the same number may change places; -1: the row takes no part.
    notes : tuple of str
        What the user should know: subjects left out, subjects that cannot move.
    """

    blocks: NDArray[np.int64]
    notes: tuple[str, ...]

    def order(self, rng: np.random.Generator) -> NDArray[np.intp]:
        """A random order of the rows, uniform within each block; rows that take no part stay.

        Raw bits of the generator are sorted, as they are the same in every version of NumPy.
        """
        taking_part = np.flatnonzero(self.blocks >= 0)
        block = self.blocks[taking_part]
        bits = rng.bit_generator.random_raw(taking_part.size) >> (np.uint64(64) - KEY_BITS)
        keys = (block.astype(np.uint64) << KEY_BITS) | bits
        order = np.arange(self.blocks.size)
        order[taking_part[np.argsort(block, kind="stable")]] = taking_part[
            np.argsort(keys, kind="stable")
        ]
        return order


def exchangeable_rows(
    present: NDArray[np.bool_],
    labels: Sequence | NDArray | None = None,
    minimum_pattern: int = MINIMUM_PATTERN,
) -> ExchangeableRows:
    """Rows that may change places: same pattern of present predictors and same exchangeability label.

    A predictor that is missing stays missing in the same subjects under every permutation, so that each permuted
    statistic rests on as many rows as the observed one. Patterns shared by fewer than `minimum_pattern` subjects
    take no part, except the pattern that is the only one. Labels (a site, say) forbid moves from one to another, as
    in within-block shuffles.

    Parameters
    ----------
    present : (S, C) bool
        Which subject has which predictor. A subject without any takes no part.
    labels : (S,) or None
        Exchangeability block of each subject; None: all in one.
    minimum_pattern : int
        Subjects that a pattern needs.

    Returns
    -------
    ExchangeableRows

    Raises
    ------
    UserError
        A label is missing, or no row could move.

    Source: Winkler et al. 2014, NeuroImage 92:381 and 2015, NeuroImage 123:253 (whole and within-block
    exchangeability; the papers were not re-read).
    """
    n_subjects = len(present)
    patterns = _pattern_numbers(present)
    has_any = present.any(axis=1)
    size = np.bincount(patterns[has_any], minlength=patterns.max(initial=0) + 1)
    n_patterns = int((size > 0).sum())
    large = has_any & ((size[patterns] >= minimum_pattern) | (n_patterns == 1))
    notes = []
    if not large.any():
        raise UserError(
            f"permutations: each of the {n_patterns} patterns of present contrasts is shared by fewer than "
            f"{minimum_pattern} subjects, so that no subject could change places with another; analyse fewer "
            "contrasts at once, or switch permutations off"
        )
    if (has_any & ~large).any():
        rare = int(((size > 0) & (size < minimum_pattern)).sum())
        notes.append(
            f"permutations: {int((has_any & ~large).sum())} subjects are left out of the permuted statistic: "
            f"their patterns of present contrasts ({rare} in all) are each shared by fewer than "
            f"{minimum_pattern} subjects"
        )
    codes = _label_numbers(labels, n_subjects, large)
    joint = patterns.astype(np.int64) * (codes.max(initial=0) + 1) + codes
    blocks = np.full(n_subjects, -1, dtype=np.int64)
    _, blocks[large] = np.unique(joint[large], return_inverse=True)
    members = np.bincount(blocks[large])
    if (members == 1).all():
        raise UserError(
            f"permutations: no subject could move: each of the {members.size} exchangeability blocks (within a "
            "pattern of present contrasts) holds one subject; give coarser blocks, or none"
        )
    alone = int((members == 1).sum())
    if alone:
        notes.append(
            f"permutations: {alone} of {members.size} exchangeability blocks hold one subject each, who cannot "
            "change places with anyone"
        )
    return ExchangeableRows(blocks, tuple(notes))


def unrelated_rows(
    families: Sequence | NDArray, n_present: NDArray[np.integer]
) -> NDArray[np.bool_]:
    """One subject of each family: the one with the most present values, the first of those with equally many.

    Relatives are no independent observations; leaving all but one out is the simplest analysis that is right.

    Parameters
    ----------
    families : (S,)
        Family of each subject; a missing label (None, NaN, "") is a subject without relatives here.
    n_present : (S,) int
        Present values (of nIDPs, or of contrasts) of each subject.

    Returns
    -------
    (S,) bool
        Subjects to keep.

    Raises
    ------
    UserError
        Not as many labels as subjects.
    """
    codes = _codes(families, len(n_present), "families")
    kept = codes < 0
    with_family = np.flatnonzero(~kept)
    by_family_then_most = with_family[
        np.lexsort((with_family, -np.asarray(n_present)[with_family], codes[with_family]))
    ]
    _, first = np.unique(codes[by_family_then_most], return_index=True)
    kept[by_family_then_most[first]] = True
    return kept


def _pattern_numbers(present: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The rows of (S, C) numbered by their pattern."""
    packed = np.packbits(present, axis=1)
    _, numbers = np.unique(packed, axis=0, return_inverse=True)
    return numbers.reshape(-1).astype(np.int64)


def _label_numbers(
    labels: Sequence | NDArray | None, n_subjects: int, needed: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Labels as numbers; a label missing where one is needed is an error, elsewhere 0."""
    if labels is None:
        return np.zeros(n_subjects, dtype=np.int64)
    codes = _codes(labels, n_subjects, "exchangeability blocks")
    if (codes[needed] < 0).any():
        raise UserError(
            f"exchangeability blocks: {int((codes[needed] < 0).sum())} of {int(needed.sum())} subjects have no "
            "label; fill the column in, or leave these subjects out"
        )
    return np.maximum(codes, 0)


def _codes(labels: Sequence | NDArray, n_subjects: int, what: str) -> NDArray[np.int64]:
    """Labels as numbers in the order of their appearance, -1 where missing or an empty text."""
    if len(labels) != n_subjects:
        raise UserError(f"{what}: {len(labels)} labels for {n_subjects} subjects")
    series = pd.Series(np.asarray(labels, dtype=object))
    codes, _ = pd.factorize(series.where(series.map(lambda label: str(label).strip() != "")))
    return codes.astype(np.int64)
