"""Second looks at the pairs that the scan calls significant: one row a pair, every check beside the first result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.association.inference.missing_selection import selection_by_presence
from utils.association.inference.pair_checks import (
    NO_LEVELS,
    PairRows,
    RowSet,
    add_disattenuated,
    add_odds_ratios,
    add_quality_halves,
    linear_checks,
    overall_test_columns,
)
from utils.association.inference.recheck_columns import COLUMNS
from utils.association.inference.recheck_inputs import RecheckData, RecheckLimits
from utils.association.inference.shared_rows import ConfoundBases, SharedRows

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

TEXT_COLUMNS = ("contrast", "nidp", "logistic_method", "flags", "reasons")


@dataclass(frozen=True)
class Rechecks:
    """One row a pair (COLUMNS), in the order in which the pairs were given; and what the reader should know."""

    table: pd.DataFrame
    notes: tuple[str, ...]


def recheck(
    contrast: Indices,
    nidp: Indices,
    nlog10p: Array,
    data: RecheckData,
    limits: RecheckLimits | None = None,
    progress: Callable[[int], object] | None = None,
) -> Rechecks:
    """Make every check of COLUMNS for the given pairs, on the rows where both the delta and the nIDP exist.

    Pairs with the same rows share one basis of the confounds. A check that is not possible leaves NaN and a reason.

    Parameters
    ----------
    contrast, nidp : (N,) int
        The pairs, as columns of `data.predictors` and numbers for `data.targets_of`.
    nlog10p : (N,) float
        Their strength in the scan: above `limits.maximum` pairs only the strongest are looked at.
    data : RecheckData
        Predictors, targets, confounds.
    limits : RecheckLimits or None
        None: the defaults.
    progress : callable or None
        Called with the number of pairs done since the last call (`tqdm.update`).

    Returns
    -------
    Rechecks
        The table and notes.

    Raises
    ------
    ValueError
        A confound is missing somewhere.
    """
    limits = limits or RecheckLimits()
    if not np.isfinite(data.confounds).all():
        raise ValueError("confounds must be complete; fill missing values before the checks")
    kept, notes = _strongest(np.asarray(nlog10p, dtype=float), limits.maximum)
    pairs = _Pairs(np.asarray(contrast)[kept], np.asarray(nidp)[kept], np.arange(len(kept)))
    checks = _Checks(data, limits)
    parts: list[PairRows] = []
    wanted = np.unique(pairs.nidp)
    for start in range(0, len(wanted), limits.nidps_at_a_time):
        block = wanted[start : start + limits.nidps_at_a_time]
        targets = data.targets_of([int(j) for j in block])
        inside = pairs.take(np.flatnonzero(np.isin(pairs.nidp, block)))
        for group in _groups(inside, data.predictors, targets, block):
            parts.extend(checks.of_group(group, targets, block))
            if progress is not None:
                progress(len(group.place))
    table = _in_columns(parts, len(kept))
    table["flags"] = _flags(table, limits)
    return Rechecks(table, notes)


@dataclass(frozen=True)
class _Pairs:
    """Contrast, nIDP and row of the table of some pairs, each (N,)."""

    contrast: Indices
    nidp: Indices
    place: Indices

    def take(self, chosen: Indices) -> _Pairs:
        return _Pairs(self.contrast[chosen], self.nidp[chosen], self.place[chosen])


def _strongest(nlog10p: Array, maximum: int) -> tuple[Indices, tuple[str, ...]]:
    """Positions of the strongest pairs in their given order, and a note on those left out."""
    if len(nlog10p) <= maximum:
        return np.arange(len(nlog10p)), ()
    order = np.argsort(-np.nan_to_num(nlog10p, nan=-np.inf), kind="stable")
    weakest = nlog10p[order[maximum - 1]] if maximum else np.nan
    note = (
        f"{len(nlog10p)} pairs are significant; the {maximum} strongest (-log10 p from {weakest:.2f}) were checked "
        f"again, the other {len(nlog10p) - maximum} were not"
    )
    return np.sort(order[:maximum]), (note,)


def _groups(pairs: _Pairs, predictors: Array, targets: Array, block: Indices) -> Iterator[_Pairs]:
    """Pairs that share their rows, by the packed mask of these rows."""
    delta_bits = {c: np.packbits(np.isfinite(predictors[:, c])) for c in np.unique(pairs.contrast)}
    nidp_bits = {j: np.packbits(np.isfinite(targets[:, i])) for i, j in enumerate(block)}
    found: dict[bytes, list[int]] = {}
    for position, (c, j) in enumerate(zip(pairs.contrast, pairs.nidp)):
        found.setdefault((delta_bits[c] & nidp_bits[j]).tobytes(), []).append(position)
    for positions in found.values():
        yield pairs.take(np.asarray(positions))


class _Checks:
    """The checks of groups of pairs; keeps what groups have in common."""

    def __init__(self, data: RecheckData, limits: RecheckLimits):
        self.data, self.limits = data, limits
        self.full = ConfoundBases.of(data.confounds)
        self.minimal = ConfoundBases.of(data.confounds[:, list(data.minimal_columns)])
        self.levels: dict[str, list[int]] = {}
        for number, parent in enumerate(data.parents):
            if parent:
                self.levels.setdefault(parent, []).append(number)
        self.delta_rows: dict[bytes, SharedRows] = {}

    def of_group(self, group: _Pairs, targets: Array, block: Indices) -> list[PairRows]:
        """All pairs of one set of rows, a contrast at a time."""
        column = int(np.searchsorted(block, group.nidp[0]))
        present = np.isfinite(self.data.predictors[:, group.contrast[0]])
        at = np.flatnonzero(present & np.isfinite(targets[:, column]))
        rows = RowSet(self.full.on(at), self.minimal.on(at))
        return [
            self._of_contrast(
                int(contrast),
                group.take(np.flatnonzero(group.contrast == contrast)),
                rows,
                targets,
                block,
            )
            for contrast in np.unique(group.contrast)
        ]

    def _of_contrast(
        self, contrast: int, pairs: _Pairs, rows: RowSet, targets: Array, block: Indices
    ) -> PairRows:
        """The rows of the table for one delta and some nIDPs."""
        data, shared = self.data, rows.full
        columns = np.searchsorted(block, pairs.nidp)
        delta = data.predictors[shared.rows, contrast]
        nidps = targets.T[np.ix_(columns, shared.rows)].T
        out = linear_checks(delta, nidps, rows)
        add_odds_ratios(out, delta, nidps, shared, self.limits.logistic)
        if data.quality is not None:
            quality = data.quality[shared.rows]
            add_quality_halves(out, delta, nidps, quality, shared.rows, self.full)
        if data.reliability is not None:
            add_disattenuated(out, data.reliability[contrast])
        self._add_selection(out, contrast, np.isfinite(targets[:, columns]))
        self._add_overall_tests(out, delta, pairs.nidp, shared)
        out.columns |= {
            "contrast": [data.contrasts[contrast]] * out.n_pairs,
            "nidp": [data.nidps[j] for j in pairs.nidp],
            "place": pairs.place,
            "reasons": ["; ".join(reasons) for reasons in out.reasons],
        }
        return out

    def _add_selection(self, out: PairRows, contrast: int, present: NDArray[np.bool_]) -> None:
        """Compare the subjects with and without the nIDP, among all with this delta."""
        delta = self.data.predictors[:, contrast]
        mask = np.isfinite(delta)
        key = np.packbits(mask).tobytes()
        if key not in self.delta_rows:
            self.delta_rows[key] = self.full.on(np.flatnonzero(mask))
        shared = self.delta_rows[key]
        found = selection_by_presence(
            delta[mask],
            self.data.age_years[mask],
            present[mask],
            shared,
            self.limits.fewest_without,
        )
        out.columns |= dict(vars(found))
        few = np.isnan(found.presence_r)
        out.explain("selection", "too_few_with_or_without_the_nidp", few)

    def _add_overall_tests(
        self, out: PairRows, delta: Array, nidps: Indices, shared: SharedRows
    ) -> None:
        """The F of the nominal nIDPs that some of these nIDPs are levels of."""
        tested: dict[str, dict[str, float]] = {}
        for pair, nidp in enumerate(nidps):
            parent = self.data.parents[nidp]
            if not parent:
                continue
            if parent not in tested:
                levels = self.data.targets_of(self.levels[parent])[shared.rows]
                # Levels of one column are missing together; a level filled otherwise has no place in a joint test.
                complete = np.isfinite(levels).all(axis=0)
                tested[parent] = overall_test_columns(delta, levels[:, complete], shared)
            for name, value in tested[parent].items():
                out.columns.setdefault(name, np.full(out.n_pairs, np.nan))
                out.columns[name][pair] = value
            if np.isnan(tested[parent]["nominal_nlog10p"]):
                out.reasons[pair].append(f"nominal: {NO_LEVELS}")


def _flags(table: pd.DataFrame, limits: RecheckLimits) -> list[str]:
    """What asks for a closer look (recheck_columns.FLAGS), separated by ';'."""

    def column(name: str) -> Array:
        return table[name].to_numpy(dtype=float)

    r = column("r")
    minimal, ranks = column("r_minimal") * np.sign(r), column("spearman_r") * np.sign(r)
    noticeable = limits.noticeable_nlog10p
    raised = {
        "unequal_variances": column("hc3_ratio") > limits.hc3_ratio,
        "ranks_disagree": ranks < np.abs(r) / 2,
        "confounds_matter": (minimal < np.abs(r) / 2) | (minimal > 2 * np.abs(r)),
        "curved": column("squared_nlog10p") >= noticeable,
        "quality_matters": column("quality_nlog10p") >= noticeable,
        "selected_subjects": column("presence_nlog10p") >= noticeable,
    }
    return [
        ";".join(name for name, where in raised.items() if where[row]) for row in range(len(table))
    ]


def _in_columns(parts: list[PairRows], n_pairs: int) -> pd.DataFrame:
    """The parts in the order of their pairs and of COLUMNS; what no pair needed is NaN, or empty text."""
    full = {
        name: np.full(n_pairs, "", dtype=object)
        if name in TEXT_COLUMNS
        else np.full(n_pairs, np.nan)
        for name in COLUMNS
    }
    for part in parts:
        place = part.columns["place"]
        for name in COLUMNS.keys() & part.columns.keys():
            full[name][place] = part.columns[name]
    return pd.DataFrame(full)
