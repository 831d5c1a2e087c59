r"""Does one contrast's delta associate more strongly than another's, in the same subjects?

Two correlations that share the nIDP and the subjects are dependent: r_a, r_b and the deltas' own r_ab (all partial,
given the confounds) enter one test for each nIDP. With w = df - 1 (n - q - 3 for q confounds) in place of n - 3:

    Z = (z_a - z_b) sqrt(w / (2 (1 - r_ab) h)),   h = (1 - f m) / (1 - m),
    f = min(1, (1 - r_ab) / (2 (1 - m))),   m = (r_a^2 + r_b^2) / 2          Meng, Rosenthal and Rubin

    Z = (z_a - z_b) sqrt(w / (2 - 2 c)),   c = (r_ab (1 - 2 m^2) - m^2 (1 - 2 m^2 - r_ab^2) / 2) / (1 - m^2)^2,
    m = (r_a + r_b) / 2                                                       Steiger

"Contrast A has more hits than B" has no p of its own here: hits of related nIDPs come and go together, and a test of
the two counts that takes nIDPs for independent (McNemar's) finds differences that are not there. What can be said is
in how many nIDPs A's association is stronger than B's by the test above, corrected over the nIDPs.

Sources: Meng, Rosenthal and Rubin 1992, Psychol Bull 111:172, formulas 1 to 4; Steiger 1980, Psychol Bull 87:245,
formulas 10 and 14, both as quoted in the documentation of the R package cocor (1.1); the published examples and the
table of May and Hittner 1997 are tested. The partial degrees of freedom follow from n - q for n in the distribution
of a partial correlation (Fisher 1924), checked by simulation.

A difference of -0.3 and 0.3 is one of direction, not of strength. For strength the second delta is turned round (-r_b
and -r_ab) where the signs differ; deltas of one brain correlate positively, which makes this the cautious side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from utils.association.inference.multiplicity import benjamini_hochberg_nlog10
from utils.association.inference.normal_tails import nlog10p_from_normal
from utils.association.inference.row_keys import matched_rows, row_codes

NORMAL_95 = 1.959963984540054
# Deltas this alike leave nothing to compare.
SAME_DELTA = 1.0 - 1e-9

# Every column of the table, with its meaning.
COLUMNS = {
    "contrast_a": "first contrast",
    "contrast_b": "second contrast",
    "sex": "female, male or both",
    "nidp": "tested variable",
    "column": "column of the nIDP table it comes from",
    "n": "subjects, the same for both contrasts",
    "df": "degrees of freedom of both partial correlations",
    "r_a": "partial correlation of the first contrast's delta and the nIDP",
    "r_b": "partial correlation of the second contrast's delta and the nIDP",
    "r_ab": "partial correlation of the two deltas",
    "difference": "Fisher z of r_a minus that of r_b",
    "ci_lo": "lower end of the 95 % confidence interval of the difference (Meng)",
    "ci_hi": "upper end of the 95 % confidence interval of the difference (Meng)",
    "z_meng": "Z of Meng, Rosenthal and Rubin",
    "z_steiger": "Z of Steiger, as a check",
    "nlog10p": "-log10 of the two-sided p of z_meng",
    "nlog10q_bh": "-log10 of its Benjamini-Hochberg q over the rows of this table",
    "z_strength": "Meng's Z of |r_a| and |r_b|: where the signs differ, with the second delta turned round",
    "nlog10q_strength": "-log10 of its Benjamini-Hochberg q over the rows of this table",
    "stronger": "a or b: the contrast with the larger |r|, where the q of z_strength passes; else empty",
    "reason": "why there is no test: other_subjects, untested, same_delta; empty where there is one",
}


@dataclass(frozen=True)
class DependentCorrelations:
    """Comparison of correlations that share a variable: difference of Fisher z, its SE, and two Z statistics."""

    difference: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    z_meng: NDArray[np.float64]
    z_steiger: NDArray[np.float64]


def compare_dependent(
    r_a: ArrayLike, r_b: ArrayLike, r_ab: ArrayLike, df: ArrayLike
) -> DependentCorrelations:
    """Compare corr(a, y) with corr(b, y) given corr(a, b), element by element.

    Parameters
    ----------
    r_a, r_b, r_ab, df : float arrays that broadcast together
        Partial correlations and their degrees of freedom (n - 2 without confounds).

    Returns
    -------
    DependentCorrelations
        NaN where an r is 1 in size, df <= 1, or the deltas are the same.
    """
    a, b, ab, nu = np.broadcast_arrays(*(np.asarray(v, dtype=float) for v in (r_a, r_b, r_ab, df)))
    usable = (np.abs(a) < 1.0) & (np.abs(b) < 1.0) & (np.abs(ab) < SAME_DELTA) & (nu > 1.0)
    a, b, ab, nu = (np.where(usable, v, np.nan) for v in (a, b, ab, nu))
    difference = np.arctanh(a) - np.arctanh(b)
    mean_square = (a**2 + b**2) / 2.0
    f = np.minimum(1.0, (1.0 - ab) / (2.0 * (1.0 - mean_square)))
    h = (1.0 - f * mean_square) / (1.0 - mean_square)
    standard_error = np.sqrt(2.0 * (1.0 - ab) * h / (nu - 1.0))
    square = ((a + b) / 2.0) ** 2
    c = ab * (1.0 - 2.0 * square) - 0.5 * square * (1.0 - 2.0 * square - ab**2)
    c = c / (1.0 - square) ** 2
    # Three correlations that cannot be of one data set can make the variance negative.
    variance = np.where(c < 1.0, 2.0 - 2.0 * c, np.nan) / (nu - 1.0)
    return DependentCorrelations(
        difference, standard_error, difference / standard_error, difference / np.sqrt(variance)
    )


def partial_correlation(
    first: NDArray[np.float64], second: NDArray[np.float64], confounds: NDArray[np.float64]
) -> float:
    """Correlation of two deltas (S,) given the confounds (S, K, without the constant), where both are present.

    NaN where nothing of one is left.
    """
    rows = np.isfinite(first) & np.isfinite(second)
    if not rows.any():
        return float("nan")
    design = np.column_stack([np.ones(rows.sum()), confounds[rows]])
    spread = design.std(axis=0)
    design[:, spread > 0] /= spread[spread > 0]
    both = np.column_stack([first[rows], second[rows]])
    both = both - both.mean(axis=0)
    residual = both - design @ np.linalg.lstsq(design, both, rcond=1e-10)[0]
    product = residual.T @ residual
    lengths = np.sqrt(product[0, 0] * product[1, 1])
    return float(product[0, 1] / lengths) if lengths > 0 else float("nan")


def compare_contrasts(
    table: pd.DataFrame,
    contrast_a: str,
    contrast_b: str,
    delta_correlation: Mapping[str, float],
    alpha: float = 0.05,
) -> pd.DataFrame:
    """Compare two contrasts nIDP by nIDP.

    Parameters
    ----------
    table : DataFrame
        Associations (contrast, sex, nidp, column, n, df, r, nlog10p) made on subjects who have both contrasts; rows
        whose n or df differ are not compared.
    contrast_a, contrast_b : str
    delta_correlation : mapping of sex to float
        Partial correlation of the two deltas (`partial_correlation`), of all analysed subjects: on a nIDP's own rows
        it is the same but for chance.
    alpha : float
        False discovery rate for `stronger`.

    Returns
    -------
    DataFrame
        `COLUMNS`, a row for each sex and nIDP that has both contrasts, in the table's order.

    Raises
    ------
    ValueError
        A contrast is not in the table, or a sex of it has no correlation of the deltas.
    """
    parts = [table[table["contrast"] == contrast] for contrast in (contrast_a, contrast_b)]
    for contrast, part in zip((contrast_a, contrast_b), parts):
        if part.empty:
            raise ValueError(f"contrast {contrast} has no row in the table of associations")
    unknown = [str(sex) for sex in parts[0]["sex"].unique() if sex not in delta_correlation]
    if unknown:
        raise ValueError(
            f"no correlation of the deltas of {contrast_a} and {contrast_b} for: {', '.join(unknown)}"
        )
    rows_a, rows_b = matched_rows(*row_codes(parts, ("sex", "nidp")))
    a, b = parts[0].iloc[rows_a], parts[1].iloc[rows_b]
    same = (a["n"].to_numpy() == b["n"].to_numpy()) & (a["df"].to_numpy() == b["df"].to_numpy())
    tested = np.isfinite(a["nlog10p"].to_numpy(float)) & np.isfinite(b["nlog10p"].to_numpy(float))
    r_a, r_b, df = (part.to_numpy(dtype=float) for part in (a["r"], b["r"], a["df"]))
    r_ab = a["sex"].astype(object).map(delta_correlation).to_numpy(dtype=float)
    nu = np.where(same & tested, df, np.nan)
    compared = compare_dependent(r_a, r_b, r_ab, nu)
    nlog10p = nlog10p_from_normal(compared.z_meng)
    q = benjamini_hochberg_nlog10(nlog10p)
    turn = np.where(r_a * r_b < 0, -1.0, 1.0)
    strength = compare_dependent(np.abs(r_a), np.abs(r_b), turn * r_ab, nu).z_meng
    q_strength = benjamini_hochberg_nlog10(nlog10p_from_normal(strength))
    stronger = np.where(q_strength >= -np.log10(alpha), np.where(strength > 0, 1, 2), 0)
    reason = np.where(np.isfinite(nlog10p), 0, np.where(~tested, 2, np.where(same, 3, 1)))
    margin = NORMAL_95 * compared.standard_error
    result = a[["sex", "nidp", "column", "n", "df"]].reset_index(drop=True)
    zeros = np.zeros(len(result), dtype=np.int8)
    return result.assign(
        contrast_a=pd.Categorical.from_codes(zeros, [contrast_a]),
        contrast_b=pd.Categorical.from_codes(zeros, [contrast_b]),
        r_a=r_a,
        r_b=r_b,
        r_ab=r_ab,
        difference=compared.difference,
        ci_lo=compared.difference - margin,
        ci_hi=compared.difference + margin,
        z_meng=compared.z_meng,
        z_steiger=compared.z_steiger,
        nlog10p=nlog10p,
        nlog10q_bh=q,
        z_strength=strength,
        nlog10q_strength=q_strength,
        stronger=pd.Categorical.from_codes(stronger, ["", "a", "b"]),
        reason=pd.Categorical.from_codes(reason, ["", "other_subjects", "untested", "same_delta"]),
    )[list(COLUMNS)]


def compare_hit_counts(
    table: pd.DataFrame,
    comparison: pd.DataFrame,
    criterion: str = "nlog10p_bonf",
    alpha: float = 0.05,
) -> dict:
    """The hits of two contrasts counted side by side, without a p (see the head of this file), and `stronger`.

    `comparison` is the result of `compare_contrasts` on this table; only its tested rows are counted.
    """
    compared = comparison[comparison["reason"] == ""]
    names = [str(comparison[f"contrast_{side}"].cat.categories[0]) for side in ("a", "b")]
    hits = []
    for name in names:
        part = table[table["contrast"] == name]
        rows, own = matched_rows(*row_codes([compared, part], ("sex", "nidp")))
        hit = np.zeros(len(compared), dtype=bool)
        hit[rows] = part[criterion].to_numpy(dtype=float)[own] >= -np.log10(alpha)
        hits.append(hit)
    a, b = hits
    return {
        "criterion": f"{criterion} >= -log10 {alpha:g}",
        "contrast_a": names[0],
        "contrast_b": names[1],
        "n_rows_compared": len(compared),
        "n_hits_a": int(a.sum()),
        "n_hits_b": int(b.sum()),
        "n_hits_both": int((a & b).sum()),
        "n_hits_a_only": int((a & ~b).sum()),
        "n_hits_b_only": int((b & ~a).sum()),
        "n_stronger_a": int((compared["stronger"] == "a").sum()),
        "n_stronger_b": int((compared["stronger"] == "b").sum()),
        "n_different": int((compared["nlog10q_bh"] >= -np.log10(alpha)).sum()),
        "note": "counts of hits have no p: related nIDPs are hits together, so a test of the two counts over nIDPs "
        "(McNemar) is not valid; the rows where one contrast is stronger are corrected over this table",
    }
