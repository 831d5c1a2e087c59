r"""Women and men together: the two sexes' partial correlations of one contrast and nIDP, weighted by precision.

With z = atanh r and weight w = df - 1 (= n - q - 3 for q confounds) in each sex:

    mean z = (w_f z_f + w_m z_m) / (w_f + w_m),   SE = (w_f + w_m)^-1/2
    difference = (z_m - z_f) / sqrt(1/w_f + 1/w_m),   Q = sum of w (z - mean z)^2 = difference^2 ~ chi2(1)
    I2 = max(0, (Q - 1) / Q)

With two sexes Q and the difference are one test; its p is stored once. I2 of two estimates is a rough number: read
the difference. Fisher's z is normal only to some decades of p, so for the ranking of extreme hits the two t's are
combined through their exact p as well (Stouffer, weights sqrt w), and rows where the two ways part are flagged.

Sources: Hedges and Olkin 1985, Statistical Methods for Meta-Analysis, chapter 11; Higgins and Thompson 2002, Stat
Med 21:1539, for I2 (not re-read; agreement with statsmodels' combine_effects is tested); Stouffer 1949 in the
weighted form of Liptak 1958 (hand-worked).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.association.inference.normal_tails import nlog10p_from_normal, normal_from_nlog10p
from utils.association.inference.row_keys import matched_rows, row_codes

SEXES = ("female", "male")
META_SEX = "meta"
NORMAL_95 = 1.959963984540054
# Decades of p by which Fisher's normal approximation and the matched p may part before a row is flagged.
TAIL_DECADES = 0.1
NIDP_COLUMNS = ("column", "field", "instance", "category", "kind")

# Every column of the table, with its meaning.
COLUMNS = {
    "contrast": "contrast whose delta is tested",
    "sex": "meta: both sexes, analysed apart and combined",
    "nidp": "tested variable",
    "column": "column of the nIDP table it comes from",
    "field": "UK Biobank field of the column",
    "instance": "UK Biobank instance (visit)",
    "category": "category of the dictionary",
    "kind": "continuous, ordinal, binary or nominal",
    "n": "subjects of the tested sexes",
    "n_female": "women of the test with delta, nIDP and confounds; 0 where they have no test",
    "n_male": "men of the test with delta, nIDP and confounds; 0 where they have no test",
    "r_female": "partial correlation in women",
    "r_male": "partial correlation in men",
    "nlog10p_female": "-log10 of the two-sided p in women",
    "nlog10p_male": "-log10 of the two-sided p in men",
    "z": "mean of the sexes' Fisher z, weighted with w = df - 1",
    "se": "standard error of z",
    "r": "tanh z: the combined partial correlation",
    "ci_lo": "lower end of its 95 % confidence interval",
    "ci_hi": "upper end of its 95 % confidence interval",
    "nlog10p": "-log10 of the two-sided p of z (normal)",
    "nlog10p_stouffer": "-log10 of the two-sided p of the t's combined by their exact p; for ranking extreme hits",
    "z_difference": "(male - female) Fisher z over its standard error; its square is Cochran's Q",
    "nlog10p_difference": "-log10 of the two-sided p of the difference, which is also Q's",
    "i2": "share of the difference beyond chance: max(0, (Q - 1) / Q)",
    "flags": "few_cases, small_n: of a sex; tail: the two ways of combining differ by over 0.1 decades",
    "reason": "why there is no combined p: female_only, male_only, untested; empty where there is one",
}


def sex_meta_analysis(table: pd.DataFrame) -> pd.DataFrame:
    """Combine the female and male rows of every contrast and nIDP.

    Parameters
    ----------
    table : DataFrame
        Associations with contrast, sex, nidp, n, df, r, nlog10p, flags and what there is of
        `NIDP_COLUMNS`. Rows of other sexes ('both') are passed over.

    Returns
    -------
    DataFrame
        `COLUMNS`, one row for each contrast and nIDP in order of first appearance. A pair tested in one sex only
        carries that sex's numbers and a reason in place of combined ones.

    Raises
    ------
    ValueError
        A contrast, sex and nIDP has two rows.
    """
    parts = [np.flatnonzero((table["sex"] == sex).to_numpy()) for sex in SEXES]
    codes = row_codes([table.iloc[rows] for rows in parts], ("contrast", "nidp"))
    pairs, first_row = _pairs_in_order(codes, parts)
    women, men = (_of_sex(table, rows, own, pairs) for rows, own in zip(parts, codes))
    result = table[["contrast", "nidp"]].iloc[first_row].reset_index(drop=True)
    result.insert(1, "sex", pd.Categorical.from_codes(np.zeros(len(pairs), np.int8), [META_SEX]))
    for name in NIDP_COLUMNS:
        known = table[name].iloc[first_row].reset_index(drop=True) if name in table else ""
        result[name] = known
    result["n"] = women["n"] + men["n"]
    for name in ("n", "r", "nlog10p"):
        result[f"{name}_female"], result[f"{name}_male"] = women[name], men[name]
    combined = _combined(women, men)
    for name, values in combined.items():
        result[name] = values
    result["flags"] = _flags(women["flags"] | men["flags"], combined)
    result["reason"] = pd.Categorical.from_codes(
        np.where(women["tested"], 1, 0) + np.where(men["tested"], 2, 0),
        ["untested", "female_only", "male_only", ""],
    )
    return result[list(COLUMNS)]


def _pairs_in_order(
    codes: list[NDArray[np.int64]], parts: list[NDArray[np.intp]]
) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """The distinct codes in order of their first row in the table, and that row."""
    every, rows = np.concatenate(codes), np.concatenate(parts)
    order = np.argsort(rows, kind="stable")
    every, rows = every[order], rows[order]
    first = ~pd.Series(every).duplicated().to_numpy()
    return every[first], rows[first]


def _of_sex(
    table: pd.DataFrame,
    rows: NDArray[np.intp],
    codes: NDArray[np.int64],
    pairs: NDArray[np.int64],
) -> dict[str, NDArray]:
    """The numbers of one sex for every pair; n is 0 where it has no test."""
    to, own = matched_rows(pairs, codes)
    chosen = table.iloc[rows[own]]
    numbers = {
        name: _spread(chosen[name].to_numpy(dtype=float), to, len(pairs), np.nan)
        for name in ("r", "df", "nlog10p")
    }
    n = _spread(chosen["n"].to_numpy(dtype=np.int64), to, len(pairs), 0)
    tested = np.abs(numbers["r"]) < 1.0
    tested &= np.isfinite(numbers["nlog10p"]) & (numbers["df"] > 1.0)
    # Subjects without a test are not counted: small counts of them would follow from the sum of both sexes.
    n[~tested] = 0
    flags = _spread(_flag_bits(chosen["flags"]), to, len(pairs), 0)
    return {**numbers, "n": n, "tested": tested, "flags": np.where(tested, flags, 0)}


def _spread(values: NDArray, to: NDArray[np.intp], size: int, missing: float) -> NDArray:
    full = np.full(size, missing, dtype=values.dtype)
    full[to] = values
    return full


def _flag_bits(flags: pd.Series) -> NDArray[np.int64]:
    """1 for few_cases, 2 for small_n; each distinct text is read once."""
    texts = pd.Categorical(flags)
    bits = [("few_cases" in text) + 2 * ("small_n" in text) for text in texts.categories]
    return np.array([*bits, 0], dtype=np.int64)[texts.codes]


def _combined(women: dict[str, NDArray], men: dict[str, NDArray]) -> dict[str, NDArray]:
    """The formulas of this file, NaN where a sex is not tested."""
    both = women["tested"] & men["tested"]
    with np.errstate(invalid="ignore", divide="ignore"):
        w_f, w_m = (np.where(both, sex["df"] - 1.0, np.nan) for sex in (women, men))
        z_f, z_m = (np.arctanh(np.where(both, sex["r"], np.nan)) for sex in (women, men))
        total = w_f + w_m
        z = (w_f * z_f + w_m * z_m) / total
        se = 1.0 / np.sqrt(total)
        difference = (z_m - z_f) / np.sqrt(1.0 / w_f + 1.0 / w_m)
        i2 = np.maximum(0.0, 1.0 - 1.0 / np.maximum(difference**2, np.finfo(float).tiny))
        matched = sum(
            np.sqrt(w) * np.sign(sex["r"]) * normal_from_nlog10p(sex["nlog10p"])
            for w, sex in ((w_f, women), (w_m, men))
        )
    return {
        "z": z,
        "se": se,
        "r": np.tanh(z),
        "ci_lo": np.tanh(z - NORMAL_95 * se),
        "ci_hi": np.tanh(z + NORMAL_95 * se),
        "nlog10p": nlog10p_from_normal(z / se),
        "nlog10p_stouffer": nlog10p_from_normal(matched / np.sqrt(total)),
        "z_difference": difference,
        "nlog10p_difference": nlog10p_from_normal(difference),
        "i2": i2,
    }


def _flags(of_a_sex: NDArray[np.int64], combined: dict[str, NDArray]) -> pd.Categorical:
    parted = np.abs(combined["nlog10p"] - combined["nlog10p_stouffer"]) > TAIL_DECADES
    names = ("few_cases", "small_n", "tail")
    texts = [";".join(name for bit, name in enumerate(names) if k >> bit & 1) for k in range(8)]
    return pd.Categorical.from_codes(of_a_sex + 4 * parted, texts)
