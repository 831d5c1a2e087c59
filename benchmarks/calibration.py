"""Are the error rates of the association analysis what they claim to be?

Simulates association runs in which the truth is known and counts: without any effect, how many runs have a Bonferroni
hit (family-wise error) or a Benjamini-Hochberg hit (its false discovery rate under the complete null); with planted
effects, the share of false ones among Benjamini-Hochberg hits, and how many planted effects are found (power). nIDPs of
all kinds, with missing values, depend on age and on confounds that also move the deltas, so that a confound
forgotten or a degree of freedom miscounted shows.

With many confounds (200, 600 subjects) and nothing to find, complete and with missing values: are p uniform, and how
many runs have a hit by Bonferroni or by joint permutation (max-T)? Deltas and nIDPs depend on the confounds more than
on anything else, and nIDPs are correlated, which the permutations see and Bonferroni does not.

Run from the repository root: python benchmarks/calibration.py [--runs 200] [--seed 1] [--only study] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.association.analysis import associate
from utils.association.inference.family_wise import family_wise
from utils.association.inference.permutation import joint_permutation
from utils.association.scan import PairLimits, residual_targets, scan_pairs
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

# The case of many confounds. The default limits would refuse its pairs (df < 2 x rank): exactness is shown beyond them.
N_MANY_SUBJECTS, N_MANY_CONFOUNDS, N_MANY_CONTRASTS, N_MANY_NIDPS = 600, 200, 4, 40
N_PERMUTATIONS = 399
NO_DF_PER_RANK = PairLimits(minimum_n=51, minimum_df=50, df_per_rank=0.0)
MISSING_SHARES = {"complete nIDPs": (0.0, 0.0), "20 % of nIDPs missing": (0.2, 0.0),
                  "20 % missing, contrasts too": (0.2, 0.15)}  # fmt: skip


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


def null_run(
    rng: np.random.Generator, missing: float, absent: float, words: tuple[int | str, ...]
) -> tuple[float, float, float]:
    """A run without effect: p of one pair, smallest Bonferroni p of the family, smallest max-T p."""
    n, n_columns = N_MANY_SUBJECTS, N_MANY_CONTRASTS + N_MANY_NIDPS
    confounds = rng.normal(size=(n, N_MANY_CONFOUNDS))
    values = confounds @ rng.normal(0, 0.3, (N_MANY_CONFOUNDS, n_columns))
    values[:, :N_MANY_CONTRASTS] += rng.normal(size=(n, 1))
    values[:, N_MANY_CONTRASTS:] += rng.normal(size=(n, 4)) @ rng.normal(size=(4, N_MANY_NIDPS))
    values += rng.normal(size=values.shape)
    deltas, nidps = values[:, :N_MANY_CONTRASTS], values[:, N_MANY_CONTRASTS:]
    nidps[rng.random(nidps.shape) < missing] = np.nan
    if absent:  # the last two contrasts were not acquired in some subjects
        deltas[rng.random(n) < absent, 2:] = np.nan
    binary = np.zeros(N_MANY_NIDPS, dtype=bool)
    found = scan_pairs(deltas, nidps, confounds, binary, NO_DF_PER_RANK)
    permutations = joint_permutation(deltas, confounds, N_PERMUTATIONS, words)
    maxima = permutations.maxima(residual_targets(nidps, confounds), found.df).max(axis=1)
    largest = float(found.nlog10p.max())
    bonferroni = min(1.0, found.nlog10p.size * 10.0**-largest)
    # a pair of the last contrast and of another nIDP in every run: independent from run to run
    pair = float(10.0 ** -found.nlog10p[-1, rng.integers(N_MANY_NIDPS)])
    return pair, bonferroni, float(family_wise(maxima).p(largest))


def many_confounds(n_runs: int, seed: int) -> dict[str, dict]:
    """By kind of missingness: Kolmogorov-Smirnov p of single p and of max-T p, counts of family-wise errors."""
    found = {}
    for name, (missing, absent) in MISSING_SHARES.items():
        runs = []
        for run in range(n_runs):
            words = ("many confounds", seed, name, run)
            runs.append(null_run(generator(*words), missing, absent, words))
        pair, bonferroni, max_t = np.array(runs).T
        # max-T p lie on a grid: spread over its steps they are uniform
        steps = generator("steps", seed).uniform(0, 1 / (N_PERMUTATIONS + 1), n_runs)
        found[name] = {
            "pair_ks_p": float(stats.kstest(pair, "uniform").pvalue),
            "max_t_ks_p": float(stats.kstest(max_t - steps, "uniform").pvalue),
            "bonferroni_false_runs": int((bonferroni <= ALPHA).sum()),
            "max_t_false_runs": int((max_t <= ALPHA).sum()),
        }
    return found


def many_confounds_rates(found: dict[str, dict], n_runs: int) -> list[Rate]:
    """The questions of the case of many confounds and their counts."""
    return [
        Rate(f"{name}: runs with a {label} hit", counts[key], n_runs, ALPHA)
        for name, counts in found.items()
        for label, key in (("Bonferroni", "bonferroni_false_runs"), ("max-T", "max_t_false_runs"))
    ]


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


def print_rates(found: list[Rate]) -> None:
    """One line a question."""
    print(f"{'question':58s} {'share':>7s} {'95 % interval':>17s} {'nominal':>8s}")
    for rate in found:
        low, high = rate.interval
        nominal = "" if rate.nominal is None else f"{rate.nominal:.2f}"
        print(
            f"{rate.question:58s} {rate.share:7.4f} [{low:7.4f},{high:7.4f}] {nominal:>8s} {rate.verdict()}"
        )


def as_numbers(found: list[Rate]) -> list[dict]:
    """For the JSON file."""
    return [
        asdict(r) | {"share": r.share, "low": r.interval[0], "high": r.interval[1]} for r in found
    ]


def study_part(n_runs: int, seed: int) -> dict:
    """Whole analyses with and without planted effects: print, and return for the JSON file."""
    start = time.perf_counter()
    null = count_runs(n_runs, seed, 0)
    planted = count_runs(n_runs, seed, N_PLANTED)
    wall_time_s = time.perf_counter() - start
    found = rates(null, planted, n_runs)
    print(
        f"{n_runs} runs each: {N_SUBJECTS} subjects, {len(CONTRASTS)} contrasts x 2 sexes x {N_NIDPS} nIDPs, "
        f"{N_PLANTED} planted; alpha {ALPHA}; {wall_time_s:.0f} s"
    )
    print_rates(found)
    mean = planted["mean_false_discovery_proportion"]
    print(f"planted: mean over runs of the false discovery proportion {mean:.4f}")
    print(
        "Rows of a run are correlated: intervals of FDR and power over rows are narrower than the truth."
    )
    return {
        "runs": n_runs,
        "seed": seed,
        "wall_time_s": wall_time_s,
        "rates": as_numbers(found),
        "null": null,
        "planted": planted,
    }


def many_confounds_part(n_runs: int, seed: int) -> dict:
    """The case of many confounds: print, and return for the JSON file."""
    start = time.perf_counter()
    counts = many_confounds(n_runs, seed)
    wall_time_s = time.perf_counter() - start
    found = many_confounds_rates(counts, n_runs)
    print(
        f"{n_runs} runs each: {N_MANY_SUBJECTS} subjects, {N_MANY_CONFOUNDS} confounds, {N_MANY_CONTRASTS} contrasts x "
        f"{N_MANY_NIDPS} nIDPs, no effect, {N_PERMUTATIONS} permutations; alpha {ALPHA}; {wall_time_s:.0f} s"
    )
    print_rates(found)
    for name, count in counts.items():
        print(
            f"{name}: uniform by Kolmogorov-Smirnov: p of single pairs {count['pair_ks_p']:.3f}, "
            f"max-T p {count['max_t_ks_p']:.3f}"
        )
    return {
        "runs": n_runs,
        "seed": seed,
        "wall_time_s": wall_time_s,
        "subjects": N_MANY_SUBJECTS,
        "confounds": N_MANY_CONFOUNDS,
        "contrasts": N_MANY_CONTRASTS,
        "nidps": N_MANY_NIDPS,
        "permutations": N_PERMUTATIONS,
        "rates": as_numbers(found),
        "counts": counts,
    }


PARTS = {"study": study_part, "many_confounds": many_confounds_part}


def main() -> None:
    """Run the simulations, print the tables, write JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=200, help="runs of each kind (default 200)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=list(PARTS), help="one of the two parts")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args()
    if arguments.runs < 50:
        parser.error("--runs: at least 50, or the intervals say nothing")
    parts = [arguments.only] if arguments.only else list(PARTS)
    content = {name: PARTS[name](arguments.runs, arguments.seed) for name in parts}
    if arguments.json:
        kept = arguments.only and arguments.json.exists()  # the other part's numbers stay
        before = json.loads(arguments.json.read_text()) if kept else {}
        write_json({**before, **content}, arguments.json)


if __name__ == "__main__":
    main()
