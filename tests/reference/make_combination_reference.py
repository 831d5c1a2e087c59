"""Makes combination_0_3_0.json: what release 0.3.0 wrote as a combination, and what it predicted with it.

Run from the root of a checkout of release 0.3.0: python PATH/make_combination_reference.py PATH/combination_0_3_0.json
Later releases must read such a record and apply it to the same ages.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path.cwd()))

from utils.evaluation.ensembling import ContrastCombination

CONTRASTS = ("T1", "T2", "FA")
NOISE = (2.0, 4.0, 5.0)


def main(path: str) -> None:
    """Fit both methods on simulated validation subjects; predict new ones with missing contrasts."""
    rng = np.random.default_rng(30)
    age = rng.uniform(45, 82, 200)
    shared = rng.normal(0, 1.5, 200)
    predicted = np.column_stack(
        [63 + 0.8 * (age - 63 + shared) + rng.normal(0, noise, 200) for noise in NOISE]
    )
    new = np.round(predicted[:12] + rng.normal(0, 1, (12, 3)), 3)
    new[rng.random(new.shape) < 0.3] = np.nan
    ids = [f"S{k:03d}" for k in range(200)]
    reference: dict = {"new": [[None if np.isnan(v) else v for v in row] for row in new]}
    for method in ("ridge", "mean"):
        combination = ContrastCombination(CONTRASTS, method)
        combination.fit(predicted, age, ids, np.random.default_rng(31))
        out = combination.apply(new)
        reference[method] = {
            "record": combination.to_dict(),
            "predicted_years": [None if np.isnan(v) else v for v in out.predicted_years],
        }
    Path(path).write_text(json.dumps(reference, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
