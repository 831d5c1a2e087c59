"""Declared families of tests: every correction counts the tests of one family, and says so in each row."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.association.inference.family_wise import family_wise
from utils.association.inference.hierarchical import hierarchical_tests
from utils.association.inference.multiplicity import (
    benjamini_hochberg_nlog10,
    bh_threshold_nlog10,
    bonferroni_nlog10,
    bonferroni_threshold_nlog10,
    holm_nlog10,
    probability,
)
from utils.association.inference.null_share import storey_nlog10

# The maxima of one sex's permutations: (B, C), a column a contrast.
Maxima = dict[str, NDArray[np.float64]]

_CORRECTED = (
    "nlog10p_bonf", "nlog10p_holm", "nlog10p_fwer", "p_fwer_perm", "nlog10q_bh", "q_bh", "q_by", "nlog10q_storey",
)  # fmt: skip


def add_corrections(
    table: pd.DataFrame, family: str, alpha: float, maxima: Maxima, contrasts: dict[str, list[str]]
) -> list[dict]:
    """Add the corrected columns in place and return, for each family, its size, thresholds and hits.

    Parameters
    ----------
    table : DataFrame
        Associations with contrast, sex and nlog10p (NaN: not a test, set aside before anything is counted).
    family : str
        'all' (every contrast, nIDP and sex together), 'per_sex', or 'per_contrast' (each contrast and sex by itself: a
        different claim, with its own false alarms for every contrast).
    alpha : float
        Level of the thresholds and counts in the returned records.
    maxima : dict
        Sex -> (B, C) permuted maxima of -log10 p; empty without permutations.
    contrasts : dict
        Sex -> names of those C columns.

    Returns
    -------
    list of dict
        One a family, in order of appearance.
    """
    n_rows = len(table)
    columns = {name: np.full(n_rows, np.nan) for name in _CORRECTED}
    family_ids, codes, records = [], np.zeros(n_rows, dtype=np.intp), []
    nlog10p = table["nlog10p"].to_numpy()
    permuted = np.where(_takes_part(table, maxima, contrasts), nlog10p, np.nan)
    for number, (name, rows, largest) in enumerate(_families(table, family, maxima, contrasts)):
        values = nlog10p[rows]
        corrected, record = _corrected(values, permuted[rows], alpha, largest)
        for column, corrected_values in corrected.items():
            columns[column][rows] = corrected_values
        family_ids.append(f"{name} (N = {record['n_tests']})")
        codes[rows] = number
        records.append({"family_id": family_ids[-1], **record})
    for column, values in columns.items():
        table[column] = values
    table["family_id"] = pd.Categorical.from_codes(codes, family_ids)
    return records


def add_hierarchy(table: pd.DataFrame, alpha: float) -> dict:
    """Add the columns of the hierarchical tests in place (nIDPs first, then their rows); its counts."""
    found = hierarchical_tests(table, alpha)
    for column in found.rows:
        table[column] = found.rows[column].to_numpy()
    return found.summary


def _families(
    table: pd.DataFrame, family: str, maxima: Maxima, contrasts: dict[str, list[str]]
) -> list[tuple[str, NDArray[np.intp] | slice, NDArray[np.float64] | None]]:
    """(name, rows, permuted maxima (B,) or None) of each family."""
    if family == "all":
        joint = [largest.max(axis=1) for largest in maxima.values() if largest.shape[1]]
        largest = np.max(joint, axis=0) if joint else None
        return [("all contrasts x all tested nIDPs x sexes", slice(None), largest)]
    sex = table["sex"].astype(str).to_numpy()
    found: list[tuple[str, NDArray[np.intp] | slice, NDArray[np.float64] | None]] = []
    for of_sex in dict.fromkeys(sex):
        largest = maxima.get(of_sex)
        if family == "per_sex":
            joint_of_sex = None if largest is None else largest.max(axis=1)
            found.append((f"per sex: {of_sex}", np.flatnonzero(sex == of_sex), joint_of_sex))
            continue
        contrast = table["contrast"].astype(str).to_numpy()
        for c, name in enumerate(contrasts[of_sex]):
            rows = np.flatnonzero((sex == of_sex) & (contrast == name))
            of_contrast = None if largest is None else largest[:, c]
            found.append((f"per contrast: {name}, {of_sex}", rows, of_contrast))
    return found


def _takes_part(
    table: pd.DataFrame, maxima: Maxima, contrasts: dict[str, list[str]]
) -> NDArray[np.bool_]:
    """Rows of deltas that were permuted; one whose subjects could not change places has maxima of 0 throughout.

    A sex without maxima was not permuted: it has too few subjects for any test.
    """
    takes_part = table["sex"].isin(list(maxima)).to_numpy(copy=True)
    left_out = [
        (sex, name)
        for sex, largest in maxima.items()
        for name, of_contrast in zip(contrasts[sex], largest.T)
        if not of_contrast.any()
    ]
    for sex, name in left_out:
        takes_part &= ~((table["sex"] == sex) & (table["contrast"] == name)).to_numpy()
    return takes_part


def _corrected(
    values: NDArray[np.float64],
    permuted: NDArray[np.float64],
    alpha: float,
    largest: NDArray[np.float64] | None,
) -> tuple[dict[str, NDArray[np.float64]], dict]:
    """The corrected columns of one family, and its record; `permuted`: `values`, NaN where not permuted."""
    n_tests = int(np.isfinite(values).sum())
    needed = -np.log10(alpha)
    bonferroni, bh = bonferroni_nlog10(values), benjamini_hochberg_nlog10(values)
    columns = {
        "nlog10p_bonf": bonferroni,
        "nlog10p_holm": holm_nlog10(values),
        "nlog10q_bh": bh,
        "q_bh": probability(bh),
        "q_by": probability(benjamini_hochberg_nlog10(values, True)),
    }
    record: dict = {
        "n_tests": n_tests,
        "alpha": alpha,
        "bonferroni_threshold_nlog10p": bonferroni_threshold_nlog10(n_tests, alpha),
        "bh_threshold_nlog10p": bh_threshold_nlog10(values, bh, alpha),
        "n_bonferroni": int((bonferroni >= needed).sum()),
        "n_bh": int((bh >= needed).sum()),
    }
    if n_tests:
        storey, share = storey_nlog10(values)
        columns["nlog10q_storey"] = storey
        record["storey"] = {"pi0": share.pi0, "notes": list(share.notes)}
    if largest is not None and np.isfinite(permuted).any():
        null = family_wise(largest)
        columns["nlog10p_fwer"] = null.nlog10(permuted)
        columns["p_fwer_perm"] = null.p(permuted)
        record["permutation"] = {
            "n_permutations": int(null.maxima.size),
            "threshold_nlog10p": null.threshold_nlog10(alpha),
            "effective_tests": null.effective_tests(alpha),
            "tail_fitted": null.tail is not None,
            "n_significant": int((columns["nlog10p_fwer"] >= needed).sum()),
        }
    return columns, record
