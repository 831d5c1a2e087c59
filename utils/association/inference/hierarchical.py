r"""Which nIDPs, and within them which contrasts: error rates in two steps.

1. A nIDP's evidence over all its tests (contrasts, sexes, indicators of its levels) is Simes' p: the smallest of
   m p_(k) / k over its m tests in order of p.
2. Benjamini-Hochberg over the V nIDPs at level alpha selects R of them: of the nIDPs named, alpha are expected to
   have no association at all. This is the guarantee behind a count of unique nIDPs.
3. In each selected nIDP, Benjamini-Hochberg over its m tests at level alpha R / V: the false discovery rate within,
   averaged over the selected nIDPs, stays at alpha. A selected nIDP always has a rejected test.

The proofs ask for independent or positively dependent p within a nIDP (as Simes' test does); two-sided tests of
correlated deltas are not covered by them, and are not known to break them.

Sources: Simes 1986, Biometrika 73:751; Benjamini and Bogomolov 2014, J R Stat Soc B 76:297 (not
re-read: the level R alpha / V is simulated in the tests); Peterson, Bogomolov, Benjamini and Sabatti 2016, Genet
Epidemiol 40:45, for Simes and Benjamini-Hochberg as the selection (not re-read).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.association.inference.multiplicity import benjamini_hochberg_nlog10

# What `hierarchical_tests` adds to each row of the table of associations.
COLUMNS = {
    "nlog10p_simes": "-log10 of Simes' p of the row's nIDP over all its tests",
    "nlog10q_nidp": "-log10 of that nIDP's Benjamini-Hochberg q over nIDPs",
    "nlog10q_within": "-log10 of the row's Benjamini-Hochberg q within its nIDP",
    "nidp_selected": "whether the nIDP is selected at alpha",
    "rejected_within": "whether the row is rejected in a selected nIDP, at level alpha R / V",
}


@dataclass(frozen=True)
class HierarchicalResult:
    """rows: `COLUMNS`, aligned with the table. units: one row for each nIDP with a test. summary: counts and level."""

    rows: pd.DataFrame
    units: pd.DataFrame
    summary: dict


def hierarchical_tests(
    table: pd.DataFrame, alpha: float = 0.05, unit: str = "column"
) -> HierarchicalResult:
    """Select nIDPs by Simes and Benjamini-Hochberg, then test within the selected ones.

    Parameters
    ----------
    table : DataFrame
        Associations: `nlog10p` (NaN: not tested) and the column `unit`.
    alpha : float
        False discovery rate of both steps.
    unit : str
        What counts as one nIDP; 'column' (of the nIDP table) takes the indicators of a nominal nIDP together.

    Returns
    -------
    HierarchicalResult
        units: `unit`, n_tests, nlog10p_simes, nlog10q_nidp, nidp_selected, n_rejected, in order of first appearance.
    """
    nlog10p = table["nlog10p"].to_numpy(dtype=float)
    tested = np.flatnonzero(np.isfinite(nlog10p))
    codes, names = pd.factorize(table[unit].iloc[tested])
    n_tests = np.bincount(codes, minlength=len(names))
    order = np.lexsort((-nlog10p[tested], codes))  # by nIDP, the smallest p first
    rows, codes = tested[order], codes[order]
    q_within, simes = _within(nlog10p[rows], codes, n_tests)
    q_unit = benjamini_hochberg_nlog10(simes)
    selected = q_unit >= -np.log10(alpha)
    n_selected, n_units = int(selected.sum()), len(names)
    level = alpha * n_selected / n_units if n_units else 0.0
    needed = -np.log10(level) if level > 0 else np.inf
    # A nIDP at the very edge is selected by the same number in both steps, but for its last bit.
    rejected = selected[codes] & (q_within >= needed - 1e-9)

    def spread(values: NDArray, empty: float | bool) -> NDArray:
        full = np.full(len(table), empty)
        full[rows] = values
        return full

    added = pd.DataFrame(
        {
            "nlog10p_simes": spread(simes[codes], np.nan),
            "nlog10q_nidp": spread(q_unit[codes], np.nan),
            "nlog10q_within": spread(q_within, np.nan),
            "nidp_selected": spread(selected[codes], False),
            "rejected_within": spread(rejected, False),
        },
        index=table.index,
    )
    units = pd.DataFrame(
        {
            unit: np.asarray(names, dtype=object),
            "n_tests": n_tests,
            "nlog10p_simes": simes,
            "nlog10q_nidp": q_unit,
            "nidp_selected": selected,
            "n_rejected": np.bincount(codes[rejected], minlength=n_units),
        }
    )
    summary = {
        "unit": unit,
        "alpha": alpha,
        "n_units": n_units,
        "n_units_selected": n_selected,
        "level_within": level,
        "n_tests": len(rows),
        "n_rejected_within": int(rejected.sum()),
    }
    return HierarchicalResult(added, units, summary)


def _within(
    nlog10p: NDArray[np.float64], codes: NDArray[np.intp], n_tests: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Benjamini-Hochberg -log10 q within each nIDP, rows sorted by nIDP and p; its largest is Simes' -log10 p."""
    if not len(codes):
        return np.empty(0), np.empty(0)
    starts = np.cumsum(n_tests) - n_tests
    ranks = np.arange(len(codes)) - starts[codes] + 1
    steps = pd.Series((nlog10p - np.log10(n_tests[codes] / ranks))[::-1])
    q = steps.groupby(codes[::-1], sort=False).cummax().to_numpy()[::-1]
    q = np.maximum(q, 0.0)
    return q, q[starts]
