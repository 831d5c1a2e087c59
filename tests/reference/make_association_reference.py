"""Makes association_reference.json: numbers of other programs that the tests compare with.

Run from the repository root: python tests/reference/make_association_reference.py
mpmath gives -log10 p of Student's t with 60 digits; statsmodels OLS on standardised columns gives t and df of a delta
among confounds; statsmodels multipletests gives BH and BY; pingouin, which is no requirement of the program, gives
partial correlations with missing values. It needs no regeneration unless a case is added.
"""

from __future__ import annotations

import json
from pathlib import Path

import mpmath
import numpy as np
import pandas as pd
import pingouin
import statsmodels
import statsmodels.api as sm
from statsmodels.stats.multitest import multipletests

DF = [1, 2, 5, 5.5, 20, 50, 199, 400, 401, 1000, 4364, 19978, 40000]
T = [0.001, 0.1, 0.5, 0.999, 1, 2, 5, 10, 19.99, 20.01, 25, 37, 39, 100, 1000]


def nlog10p(t: float, df: float) -> float:
    """-log10 of the two-sided p by the regularised incomplete beta function, 60 digits."""
    mpmath.mp.dps = 60
    t_, a = mpmath.mpf(t), mpmath.mpf(df) / 2
    x = mpmath.mpf(df) / (mpmath.mpf(df) + t_**2)
    half = mpmath.mpf(1) / 2
    # Unregularised: the hypergeometric form keeps its digits in the tail, the complement near p = 1.
    tail = (
        x**a * (1 - x) ** half / (a * mpmath.beta(a, half)) * mpmath.hyp2f1(a + half, 1, a + 1, x)
    )
    return float(-mpmath.log10(tail))


def partial_cases() -> list[dict]:
    """Small data sets with their t, df by ordinary least squares on standardised columns."""
    cases = []
    for seed, n, q in [(1, 120, 3), (2, 150, 12), (3, 80, 1)]:
        rng = np.random.default_rng(seed)
        z = rng.normal(size=(n, q))
        d = rng.normal(size=n) + z[:, 0]
        y = 0.3 * d - z[:, 0] + rng.normal(size=n)
        d, y, z = (np.round(v, 3) for v in (d, y, z))
        standard = [(v - v.mean(axis=0)) / v.std(axis=0) for v in (d, y, z)]
        fit = sm.OLS(standard[1], np.column_stack([standard[0], np.ones(n), standard[2]])).fit()
        data = {"delta": d.tolist(), "nidp": y.tolist(), "confounds": z.tolist()}
        cases.append(data | {"t": float(fit.tvalues[0]), "df": int(fit.df_resid)})
    return cases


def pingouin_cases() -> list[dict]:
    """pingouin.partial_corr of small data sets; it leaves out the rows where delta or nIDP is missing."""
    cases = []
    for seed, n, q, missing in [
        (11, 40, 1, 0.0), (12, 60, 3, 0.2), (13, 80, 5, 0.2), (14, 120, 2, 0.5), (15, 90, 10, 0.1), (16, 150, 4, 0.3),
    ]:  # fmt: skip
        rng = np.random.default_rng(seed)
        z = rng.normal(size=(n, q))
        d = rng.normal(size=(n, 1)) + z[:, :1]
        y = 0.3 * d - z[:, :1] + rng.normal(size=(n, 1))
        d, y, z = (np.round(v, 3) for v in (d, y, z))
        for values in (d, y):
            values[rng.random(n) < missing] = np.nan
        names = [f"z{k}" for k in range(q)]
        table = pd.DataFrame(np.column_stack([d, y, z]), columns=["d", "y", *names]).dropna()
        found = pingouin.partial_corr(table, "d", "y", names).iloc[0]
        data = {
            key: [[None if np.isnan(v) else v for v in row] for row in values.tolist()]
            for key, values in (("delta", d), ("nidp", y), ("confounds", z))
        }
        p = float(found[next(name for name in found.index if name.startswith("p"))])
        numbers = {"n": int(found["n"]), "r": float(found["r"]), "p": p}
        cases.append(
            {"name": f"{n} subjects, {q} confounds, {missing:.0%} missing"} | data | numbers
        )
    return cases


def main() -> None:
    """Write the file beside this script."""
    p = np.round(np.random.default_rng(4).uniform(size=40) ** 4, 8)
    reference = {
        "made_by": {
            "mpmath": mpmath.__version__,
            "statsmodels": statsmodels.__version__,
            "pingouin": pingouin.__version__,
        },
        "nlog10p": [{"t": t, "df": df, "nlog10p": nlog10p(t, df)} for df in DF for t in T],
        "partial": partial_cases(),
        "pingouin": pingouin_cases(),
        "p": p.tolist(),
        "q_bh": multipletests(p, method="fdr_bh")[1].tolist(),
        "q_by": multipletests(p, method="fdr_by")[1].tolist(),
    }
    path = Path(__file__).with_name("association_reference.json")
    path.write_text(json.dumps(reference, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
