"""Preparation of nIDPs for the scan, with a log of what happened to every column and why.

Order, fixed: outliers -> enough subjects, classes and variety -> inverse normal transformation. Confounds are removed
afterwards, in the scan. The transformation uses the analysed rows of one sex.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.association.decoding import DecodedColumn
from utils.association.transforms import inverse_normal, outliers

TOO_FEW_SUBJECTS = "too_few_subjects"
TOO_FEW_CASES = "too_few_cases"
DOMINATED = "dominated_by_one_value"
CONSTANT = "constant"
ALL_MISSING = "all_missing"
AS_INDICATORS = "tested_as_indicators"


@dataclass(frozen=True)
class PhenotypeRules:
    """Which nIDPs are tested and how they are transformed.

    minimum_n, headline_n: subjects needed at all, and below which a row is flagged `small_n`.
    minimum_class, headline_class: subjects in the smaller class of a binary nIDP, likewise (`few_cases`).
    dominance: a value that this share of the present subjects has makes the nIDP untestable (binary ones have
    the class rule instead). outlier_sd: continuous values further from the median, in robust SDs, become missing.
    transform: 'inverse_normal' or 'none', for continuous and ordinal nIDPs.
    zero_spike: a count with at least this share of zeros is also tested as 'is it above 0'.
    """

    minimum_n: int = 51
    headline_n: int = 1000
    minimum_class: int = 10
    headline_class: int = 50
    dominance: float = 0.99
    outlier_sd: float = 8.0
    transform: str = "inverse_normal"
    zero_spike: float = 0.2

    def __post_init__(self) -> None:
        if self.transform not in ("inverse_normal", "none"):
            raise ValueError(f"transform is 'inverse_normal' or 'none', not {self.transform!r}")


@dataclass(frozen=True)
class Fate:
    """What became of one nIDP in one sex; `column` is the column of the table that it comes from."""

    nidp: str
    column: str
    kept: bool
    reason: str
    kind: str
    n: int
    n_smaller_class: float
    n_outliers: int
    transform: str


@dataclass(frozen=True)
class PreparedPhenotypes:
    """The tested nIDPs of one sex: values (S, P), and the fates of all, kept or not, in the order of the table."""

    values: NDArray[np.float64]
    binary: NDArray[np.bool_]
    fates: tuple[Fate, ...]

    def without(self, dropped: NDArray[np.bool_], reason: str) -> PreparedPhenotypes:
        """The same, with some of the kept nIDPs (P,) dropped for a reason."""
        marked = iter(dropped.tolist())
        fates = tuple(
            replace(fate, kept=False, reason=reason) if fate.kept and next(marked) else fate
            for fate in self.fates
        )
        return PreparedPhenotypes(self.values[:, ~dropped], self.binary[~dropped], fates)

    def fates_table(self) -> pd.DataFrame:
        """One row an nIDP."""
        return pd.DataFrame(
            [asdict(fate) for fate in self.fates], columns=list(Fate.__annotations__)
        )


def prepare_phenotypes(
    columns: list[DecodedColumn], rows: NDArray[np.intp], rules: PhenotypeRules
) -> PreparedPhenotypes:
    """Apply the rules to every column on the analysed rows.

    A nominal column becomes one indicator a level (`nidp=level`); a count with many zeros gains `nidp>0`.

    Parameters
    ----------
    columns : list of DecodedColumn
        Numbers and kinds, all matched subjects.
    rows : (S,) int
        The subjects of this analysis.
    rules : PhenotypeRules
        Limits and transformation.

    Returns
    -------
    PreparedPhenotypes
        Values of the kept nIDPs, NaN where missing, and the fate of every nIDP.
    """
    values: list[NDArray[np.float64]] = []
    fates: list[Fate] = []
    for column in columns:
        for nidp, kind, x in _nidps_of(column, column.values[rows], rules):
            fate, prepared = _prepare_one(nidp, column, kind, x, rules)
            fates.append(fate)
            if prepared is not None:
                values.append(prepared)
    kept = [fate for fate in fates if fate.kept]
    stacked = np.column_stack(values) if values else np.empty((len(rows), 0))
    binary = np.array([fate.kind == "binary" for fate in kept], dtype=bool)
    return PreparedPhenotypes(stacked, binary, tuple(fates))


def _nidps_of(
    column: DecodedColumn, x: NDArray[np.float64], rules: PhenotypeRules
) -> list[tuple[str, str, NDArray[np.float64]]]:
    """(nIDP, kind, values) of the nIDPs that one column gives."""
    if column.kind == "nominal" and not column.reason:
        indicators = [
            (f"{column.name}={level}", "binary", np.where(np.isfinite(x), x == code, np.nan))
            for code, level in enumerate(column.levels)
        ]
        return [(column.name, "nominal", x), *indicators]
    nidps = [(column.name, column.kind, x)]
    if column.kind == "continuous" and not column.reason and _is_count_with_zeros(column, rules):
        nidps.append((f"{column.name}>0", "binary", np.where(np.isfinite(x), x > 0, np.nan)))
    return nidps


def _is_count_with_zeros(column: DecodedColumn, rules: PhenotypeRules) -> bool:
    """Whole numbers from 0 up with a spike at 0, judged on all matched subjects."""
    present = column.values[np.isfinite(column.values)]
    if present.size == 0 or present.min() != 0.0 or (present != np.round(present)).any():
        return False
    return float(np.mean(present == 0.0)) >= rules.zero_spike


def _prepare_one(
    nidp: str, column: DecodedColumn, kind: str, x: NDArray[np.float64], rules: PhenotypeRules
) -> tuple[Fate, NDArray[np.float64] | None]:
    """The fate of one nIDP and, when it is kept, its values."""
    n_outliers = 0
    if kind == "continuous" and not column.reason:
        far = outliers(x, rules.outlier_sd)
        n_outliers = int(far.sum())
        x = np.where(far, np.nan, x)
    present = x[np.isfinite(x)]
    smaller = _smaller_class(present) if kind == "binary" else float("nan")
    reason = column.reason or _why_not(present, kind, smaller, rules)
    transform = _transform_of(kind, rules) if not reason else ""
    fate = Fate(
        nidp, column.name, not reason, reason, kind, present.size, smaller, n_outliers, transform
    )
    if reason:
        return fate, None
    return fate, inverse_normal(x) if transform == "inverse_normal" else x


def _why_not(
    present: NDArray[np.float64], kind: str, smaller_class: float, rules: PhenotypeRules
) -> str:
    """The first rule that a column breaks; empty when it is kept."""
    if present.size == 0:
        return ALL_MISSING
    if kind == "nominal":
        return AS_INDICATORS
    if present.size < rules.minimum_n:
        return TOO_FEW_SUBJECTS
    counts = np.unique(present, return_counts=True)[1]
    if counts.size == 1:
        return CONSTANT
    if kind == "binary":
        return TOO_FEW_CASES if smaller_class < rules.minimum_class else ""
    return DOMINATED if counts.max() >= rules.dominance * present.size else ""


def _smaller_class(present: NDArray[np.float64]) -> float:
    n_cases = int((present == 1.0).sum())
    return float(min(n_cases, present.size - n_cases))


def _transform_of(kind: str, rules: PhenotypeRules) -> str:
    return rules.transform if kind in ("continuous", "ordinal") else "none"
