"""Makes intraclass_reference.json: pingouin's intraclass correlations with intervals, which the tests compare with.

Run from the repository root in an environment with pingouin 0.7: python tests/reference/make_intraclass_reference.py
It needs no regeneration unless a case is added.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pingouin

# Six targets rated by four judges: Shrout and Fleiss 1979, table 2.
SHROUT_FLEISS = [
    [9, 2, 5, 8],
    [6, 1, 3, 2],
    [8, 4, 6, 8],
    [7, 1, 2, 6],
    [10, 5, 6, 9],
    [6, 2, 4, 7],
]
# seed, subjects, ratings, SD between subjects, shift between ratings
CASES = [
    (1, 12, 2, 3.0, 0.0), (2, 40, 3, 2.0, 0.0), (3, 40, 3, 2.0, 1.5), (4, 100, 3, 0.5, 0.2),
    (5, 25, 5, 1.0, 4.0), (6, 60, 2, 0.0, 0.0), (7, 15, 3, 8.0, 0.1), (8, 200, 3, 1.0, 0.0),
]  # fmt: skip
NAMES = {"ICC(A,1)": "icc_2_1", "ICC(A,k)": "icc_2_k", "ICC(C,1)": "icc_3_1"}


def ratings(seed: int, n: int, k: int, sd: float, shift: float) -> np.ndarray:
    """(n, k) ratings: a subject's value, a shift of each rating, noise of SD 1."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, sd, n)[:, None] + shift * np.arange(k) + rng.normal(size=(n, k))
    return np.round(values, 3)


def intraclass(table: np.ndarray) -> dict[str, list[float]]:
    """Name -> value, low, high."""
    long = pd.DataFrame(table).reset_index().melt("index")
    found = pingouin.intraclass_corr(long, targets="index", raters="variable", ratings="value")
    found = found.set_index("Type")
    interval = next(column for column in found if column.startswith("CI95"))
    return {
        ours: [float(found.loc[theirs, "ICC"]), *map(float, found.loc[theirs, interval])]
        for theirs, ours in NAMES.items()
    }


def main() -> None:
    """Write the file beside this script."""
    pingouin.options["round"] = None
    pingouin.options["round.column.CI95"] = 12
    tables = [np.array(SHROUT_FLEISS, dtype=float), *(ratings(*case) for case in CASES)]
    reference = {
        "made_by": {"pingouin": pingouin.__version__},
        "cases": [{"ratings": table.tolist(), **intraclass(table)} for table in tables],
    }
    path = Path(__file__).with_name("intraclass_reference.json")
    path.write_text(json.dumps(reference) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
