"""Preparation of nIDPs for the scan, with a log of what happened to every column and why.

Order, fixed: outliers -> enough subjects, classes and variety -> inverse normal transformation. Confounds are removed
afterwards, in the scan. The transformation uses the analysed rows of one sex.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.association.decoding import AS_INDICATORS, DecodedColumn
from utils.association.transforms import SortedValues

TOO_FEW_SUBJECTS = "too_few_subjects"
TOO_FEW_CASES = "too_few_cases"
DOMINATED = "dominated_by_one_value"
CONSTANT = "constant"
TOO_LITTLE_SPREAD = "too_little_spread"
ALL_MISSING = "all_missing"
# More of the present values than this share in one sex: the nIDP belongs to it.
SEX_SPECIFIC = 0.99


@dataclass(frozen=True)
class PhenotypeRules:
    """Which nIDPs are tested and how they are transformed.

    minimum_n, headline_n: subjects needed at all, and below which a row is flagged `small_n`.
    minimum_class, headline_class: subjects in the smaller class of a binary nIDP, likewise (`few_cases`).
    dominance: a value that this share of the present subjects has makes the nIDP untestable (binary ones have
    the class rule instead). outlier_sd: continuous values further from the median, in robust SDs, become missing.
    transform: 'inverse_normal' or 'none', for continuous and ordinal nIDPs.
    zero_spike: a count with at least this share of zeros is also tested as 'is it above 0'.
    minimum_sd: a spread this small or smaller is none. missingness_indicators: 'is it missing' is an nIDP as well.

    Source of minimum_n, dominance, minimum_sd and minimum_class: removeIfSparse(minpres=51, maxcat=0.99, minstd=1e-6)
    and, for indicators, mincat=10 in fmrib-unpack-fmrib-config 1.8.0 (read).
    """

    minimum_n: int = 51
    headline_n: int = 1000
    minimum_class: int = 10
    headline_class: int = 50
    dominance: float = 0.99
    outlier_sd: float = 8.0
    transform: str = "inverse_normal"
    zero_spike: float = 0.2
    minimum_sd: float = 1e-6
    missingness_indicators: bool = False

    def __post_init__(self) -> None:
        if self.transform not in ("inverse_normal", "none"):
            raise ValueError(f"transform is 'inverse_normal' or 'none', not {self.transform!r}")


@dataclass(frozen=True)
class Fate:
    """What became of one nIDP in one analysis.

    column: what of the table it comes from. n_outliers, n_missing_codes: values that became missing (codes are counted
    over all matched subjects). sex: 'female' or 'male' where an analysis of both holds it of one sex alone, else empty.
    """

    nidp: str
    column: str
    kept: bool
    reason: str
    kind: str
    n: int
    n_smaller_class: float
    n_outliers: int
    transform: str
    n_missing_codes: int = 0
    sex: str = ""


@dataclass(frozen=True)
class PreparedPhenotypes:
    """The tested nIDPs of one analysis, and the fates of all, kept or not, in the order of the table.

    values: (S, P), NaN where missing; in memory an nIDP's values lie side by side (the transpose of a C-contiguous
    array). binary: (P,).
    """

    values: NDArray[np.float64]
    binary: NDArray[np.bool_]
    fates: tuple[Fate, ...]

    def without(self, dropped: NDArray[np.bool_], reason: str) -> PreparedPhenotypes:
        """The same, with some of the kept nIDPs (P,) dropped for a reason."""
        if not dropped.any():
            return self
        marked = iter(dropped.tolist())
        fates = tuple(
            replace(fate, kept=False, reason=reason) if fate.kept and next(marked) else fate
            for fate in self.fates
        )
        return PreparedPhenotypes(self.values.T[~dropped].T, self.binary[~dropped], fates)

    def fates_table(self) -> pd.DataFrame:
        """One row an nIDP."""
        return pd.DataFrame(
            [asdict(fate) for fate in self.fates], columns=list(Fate.__annotations__)
        )


def prepare_phenotypes(
    columns: list[DecodedColumn],
    rows: NDArray[np.intp],
    rules: PhenotypeRules,
    sex: NDArray | None = None,
) -> PreparedPhenotypes:
    """Apply the rules to every column on the analysed rows.

    A nominal column becomes one indicator a level (`nidp=level`); a count with many zeros gains `nidp>0`; where the
    rules say so, a column with missing values gains `nidp:missing`.

    Parameters
    ----------
    columns : list of DecodedColumn
        Numbers and kinds, all matched subjects.
    rows : (S,) int
        The subjects of this analysis.
    rules : PhenotypeRules
        Limits and transformation.
    sex : (S,) text, optional
        'female' or 'male' of each row, in an analysis of both: an nIDP that (but for 1 %) one sex alone has is tested
        within that sex, and its fate says which.

    Returns
    -------
    PreparedPhenotypes
        Values of the kept nIDPs, NaN where missing, and the fate of every nIDP.
    """
    values: list[NDArray[np.float64]] = []
    fates: list[Fate] = []
    for column in columns:
        x = column.values[rows]
        only_sex = "" if sex is None or column.reason else sex_that_has_it(x, sex)
        if only_sex:
            x = np.where(sex == only_sex, x, np.nan)
        for nidp, kind, numbers in _nidps_of(column, x, rules):
            fate, prepared = _prepare_one(nidp, column, kind, numbers, rules)
            fates.append(replace(fate, sex=only_sex) if only_sex else fate)
            if prepared is not None:
                values.append(prepared)
    kept = [fate for fate in fates if fate.kept]
    by_nidp = np.stack(values) if values else np.empty((0, len(rows)))
    binary = np.array([fate.kind == "binary" for fate in kept], dtype=bool)
    return PreparedPhenotypes(by_nidp.T, binary, tuple(fates))


def sex_that_has_it(values: NDArray[np.float64], sex: NDArray) -> str:
    """The sex of more than 99 % of the present values (S,), unless nearly all subjects are of that sex; else ''."""
    present = np.isfinite(values)
    for one in ("female", "male"):
        of_one = sex == one
        if of_one.mean() > SEX_SPECIFIC:
            return ""
        if (present & of_one).sum() > SEX_SPECIFIC * present.sum():
            return one
    return ""


def why_untestable(values: NDArray[np.float64], kind: str, rules: PhenotypeRules) -> str:
    """The first rule that values (S,) break, as in the log; empty when they are testable."""
    if kind == "binary":
        return _why_not_binary(values[np.isfinite(values)], rules)
    ordered = SortedValues.of(values)
    return _why_not(ordered.within(rules.outlier_sd) if kind == "continuous" else ordered, rules)


def _nidps_of(
    column: DecodedColumn, x: NDArray[np.float64], rules: PhenotypeRules
) -> Iterator[tuple[str, str, NDArray[np.float64]]]:
    """(nIDP, kind, values) of the nIDPs that one column gives."""
    yield column.name, column.kind, x
    if column.reason:
        return
    missing = ~np.isfinite(x)
    if column.kind == "nominal":
        for code, level in enumerate(column.levels):
            yield f"{column.name}={level}", "binary", np.where(missing, np.nan, x == code)
    elif column.kind == "continuous" and _is_count_with_zeros(column, rules):
        yield f"{column.name}>0", "binary", np.where(missing, np.nan, x > 0)
    if rules.missingness_indicators and column.with_missingness and missing.any():
        yield f"{column.name}:missing", "binary", missing.astype(float)


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
    smaller, n_outliers, prepared = float("nan"), 0, None
    if kind == "binary" or column.reason or kind == "nominal":
        present = x[np.isfinite(x)]
        n, reason = present.size, column.reason
        if kind == "binary":
            smaller = _smaller_class(present)
        if not reason:
            reason = _why_not_binary(present, rules) if kind == "binary" else AS_INDICATORS
            reason = reason if n else ALL_MISSING
        prepared = None if reason else x
    else:
        ordered = SortedValues.of(x)
        n = ordered.values.size
        if kind == "continuous":
            ordered = ordered.within(rules.outlier_sd)
            n, n_outliers = ordered.values.size, n - ordered.values.size
        reason = _why_not(ordered, rules)
        if not reason:
            normal = rules.transform == "inverse_normal"
            prepared = ordered.normal_scores() if normal else ordered.as_read()
    fate = Fate(
        nidp,
        column.source,
        not reason,
        reason,
        kind,
        n,
        smaller,
        n_outliers,
        _transform_of(kind, rules) if not reason else "",
        column.n_missing_codes if nidp == column.name else 0,
    )
    return fate, prepared


def _why_not_binary(present: NDArray[np.float64], rules: PhenotypeRules) -> str:
    """The first rule that the present values of a binary nIDP break."""
    if present.size == 0:
        return ALL_MISSING
    if present.size < rules.minimum_n:
        return TOO_FEW_SUBJECTS
    smaller = _smaller_class(present)
    if smaller == 0 and (present == present[0]).all():
        return CONSTANT
    return TOO_FEW_CASES if smaller < rules.minimum_class else ""


def _why_not(ordered: SortedValues, rules: PhenotypeRules) -> str:
    """The first rule that a continuous or ordinal nIDP breaks."""
    n = ordered.values.size
    if n == 0:
        return ALL_MISSING
    if n < rules.minimum_n:
        return TOO_FEW_SUBJECTS
    if ordered.is_constant:
        return CONSTANT
    if ordered.largest_tie >= rules.dominance * n:
        return DOMINATED
    return TOO_LITTLE_SPREAD if np.std(ordered.values, ddof=1) <= rules.minimum_sd else ""


def _smaller_class(present: NDArray[np.float64]) -> float:
    n_cases = int(np.count_nonzero(present == 1.0))
    return float(min(n_cases, present.size - n_cases))


def _transform_of(kind: str, rules: PhenotypeRules) -> str:
    return rules.transform if kind in ("continuous", "ordinal") else "none"
