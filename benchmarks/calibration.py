"""Are the error rates of the association analysis what they claim to be?

Simulates association runs in which the truth is known and counts: without any effect, how many runs have a Bonferroni
hit (family-wise error) or a Benjamini-Hochberg hit (its false discovery rate under the complete null); with planted
effects, the share of false ones among Benjamini-Hochberg hits, and how many planted effects are found (power). nIDPs of
all kinds, with missing values, depend on age and on confounds that also move the deltas, so that a confound
forgotten or a degree of freedom miscounted shows.

Run from the repository root: python benchmarks/calibration.py [--runs 200] [--seed 1] [--json PATH]
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.association.analysis import associate
from utils.common.files import write_json
from utils.common.randomness import generator

ALPHA = 0.05
N_SUBJECTS = 800
N_CONFOUNDS = 10
N_NIDPS = 100
N_PLANTED = 10
CONTRASTS = ("first", "second")
# Change of a planted nIDP, in SDs of its noise, for one SD of the true delta.
EFFECT = 0.35


@dataclass(frozen=True)
class Rate:
    """A count out of a number, as a share with its exact 95 % binomial (Clopper-Pearson) interval."""

    question: str
    count: int
    out_of: int
    nominal: float | None

    @property
    def share(self) -> float:
        """Count over number; NaN out of nothing."""
        return self.count / self.out_of if self.out_of else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper-Pearson; (0, 1) out of nothing."""
        if self.out_of == 0:
            return 0.0, 1.0
        found = stats.binomtest(self.count, self.out_of).proportion_ci(0.95, "exact")
        return float(found.low), float(found.high)

    def verdict(self) -> str:
        """Whether the interval lies above the nominal rate."""
        if self.nominal is None:
            return ""
        return "TOO HIGH" if self.interval[0] > self.nominal else "held"


def simulate(rng: np.random.Generator, n_planted: int) -> tuple[pd.DataFrame, ...]:
    """Tables of deltas, nIDPs and confounds; the first `n_planted` nIDPs depend on the true delta."""
    ids = [f"S{k:05d}" for k in range(N_SUBJECTS)]
    age = rng.uniform(45, 82, N_SUBJECTS)
    sex = rng.choice(["female", "male"], N_SUBJECTS)
    confounds = rng.normal(size=(N_SUBJECTS, N_CONFOUNDS))
    site = rng.choice(["A", "B", "C"], N_SUBJECTS)
    true_delta = rng.normal(size=N_SUBJECTS)
    disturbance = confounds @ rng.normal(0, 0.3, N_CONFOUNDS) + (site == "B")
    deltas = [
        pd.DataFrame(
            {
                "subject_id": ids,
                "sex": sex,
                "contrast": contrast,
                "age_years": age,
                "delta_years": 2 * true_delta
                + disturbance
                - 0.3 * (age - 63)
                + rng.normal(size=N_SUBJECTS),
            }
        )
        for contrast in CONTRASTS
    ]
    shared_noise = rng.normal(size=(N_SUBJECTS, 5)) @ rng.normal(0, 0.4, (5, N_NIDPS))
    latent = shared_noise + rng.normal(size=(N_SUBJECTS, N_NIDPS))
    latent += disturbance[:, None] * rng.normal(0, 0.5, N_NIDPS) + 0.05 * (age[:, None] - 63)
    latent[:, :n_planted] += EFFECT * true_delta[:, None]
    nidps = pd.DataFrame({f"nidp_{k:03d}": _observed(latent[:, k], k, rng) for k in range(N_NIDPS)})
    nidps.insert(0, "subject_id", ids)
    table = pd.DataFrame(confounds, columns=[f"confound_{k}" for k in range(N_CONFOUNDS)])
    return pd.concat(deltas), nidps, table.assign(subject_id=ids, site=site)


def _observed(latent: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """A skewed, ordinal, binary or normal reading of a latent variable, a tenth of it missing."""
    readings = (latent, np.exp(latent), np.clip(np.round(latent), -2, 3), (latent > 0.5) * 1.0)
    return np.where(rng.random(latent.size) < 0.1, np.nan, readings[k % 4])


def count_runs(n_runs: int, seed: int, n_planted: int) -> dict[str, int]:
    """Totals over runs: runs with a false Bonferroni or BH hit, rows found, rows planted."""
    totals = dict.fromkeys(
        ("bonferroni_false_runs", "bh_false_runs", "bh_hits", "bh_false_hits", "planted_rows",
         "bonferroni_found", "bh_found", "tested_rows"), 0,
    )  # fmt: skip
    proportions = []
    for run in range(n_runs):
        deltas, nidps, confounds = simulate(
            generator("calibration", seed, n_planted, run), n_planted
        )
        table = associate(deltas, nidps, None, confounds).table
        planted = table["nidp"].str[5:].astype(int).to_numpy() < n_planted
        bonferroni = (table["nlog10p_bonf"] >= -np.log10(ALPHA)).to_numpy()
        bh = (table["nlog10q_bh"] >= -np.log10(ALPHA)).to_numpy()
        totals["bonferroni_false_runs"] += int((bonferroni & ~planted).any())
        totals["bh_false_runs"] += int((bh & ~planted).any())
        totals["bh_hits"] += int(bh.sum())
        totals["bh_false_hits"] += int((bh & ~planted).sum())
        totals["planted_rows"] += int(planted.sum())
        totals["bonferroni_found"] += int((bonferroni & planted).sum())
        totals["bh_found"] += int((bh & planted).sum())
        totals["tested_rows"] += int(table["nlog10p"].notna().sum())
        proportions.append((bh & ~planted).sum() / max(bh.sum(), 1))
    return totals | {"mean_false_discovery_proportion": float(np.mean(proportions))}


def rates(null: dict, planted: dict, n_runs: int) -> list[Rate]:
    """The questions and their counts."""
    rows = planted["planted_rows"]
    return [
        Rate("no effect: runs with a Bonferroni hit (FWER)", null["bonferroni_false_runs"], n_runs, ALPHA),
        Rate("no effect: runs with a BH hit (FDR = FWER)", null["bh_false_runs"], n_runs, ALPHA),
        Rate("planted: runs with a false Bonferroni hit", planted["bonferroni_false_runs"], n_runs, ALPHA),
        Rate("planted: false among all BH hits (FDR)", planted["bh_false_hits"], planted["bh_hits"], ALPHA),
        Rate("planted: found by Bonferroni (power)", planted["bonferroni_found"], rows, None),
        Rate("planted: found by BH (power)", planted["bh_found"], rows, None),
    ]  # fmt: skip


def main() -> None:
    """Run both simulations, print the table, write JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=200, help="runs of each kind (default 200)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args()
    if arguments.runs < 50:
        parser.error("--runs: at least 50, or the intervals say nothing")
    start = time.perf_counter()
    null = count_runs(arguments.runs, arguments.seed, 0)
    planted = count_runs(arguments.runs, arguments.seed, N_PLANTED)
    wall_time_s = time.perf_counter() - start
    found = rates(null, planted, arguments.runs)
    print(
        f"{arguments.runs} runs each: {N_SUBJECTS} subjects, {len(CONTRASTS)} contrasts x 2 sexes x {N_NIDPS} nIDPs, "
        f"{N_PLANTED} planted; alpha {ALPHA}; {wall_time_s:.0f} s"
    )
    print(f"{'question':50s} {'share':>7s} {'95 % interval':>17s} {'nominal':>8s}")
    for rate in found:
        low, high = rate.interval
        nominal = "" if rate.nominal is None else f"{rate.nominal:.2f}"
        print(
            f"{rate.question:50s} {rate.share:7.4f} [{low:7.4f},{high:7.4f}] {nominal:>8s} {rate.verdict()}"
        )
    mean = planted["mean_false_discovery_proportion"]
    print(f"planted: mean over runs of the false discovery proportion {mean:.4f}")
    print(
        "Rows of a run are correlated: intervals of FDR and power over rows are narrower than the truth."
    )
    if arguments.json:
        content = {
            "runs": arguments.runs,
            "seed": arguments.seed,
            "wall_time_s": wall_time_s,
            "rates": [
                asdict(r) | {"share": r.share, "low": r.interval[0], "high": r.interval[1]}
                for r in found
            ],
            "null": null,
            "planted": planted,
        }
        write_json(content, arguments.json)


if __name__ == "__main__":
    main()
