"""What does a max-T permutation cost beside the bare matrix product that it cannot do without?

Run from the repository root, while nothing else computes:

    python benchmarks/permutations.py [--subjects 20000] [--contrasts 57] [--nidps 5000] [--rounds 5] [--json PATH]

In each round every case has its turn, in an order that rotates; the ratio to the bare float32 product (contrasts x
subjects) . (subjects x nIDPs) is taken within a round, then the median over rounds. A permutation's time is the median
over the batches of a turn; what is done once for a block of nIDPs (masks, weights) is told apart from it. The values
of nIDPs are noise of unit length: what they are does not change the cost.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.association.inference.permutation import (
    BATCH_COLUMNS,
    JointPermutation,
    joint_permutation,
)
from utils.association.scan import ResidualTargets
from utils.common.files import write_json
from utils.common.randomness import generator

N_BATCHES = 4
MISSING = 0.2
N_SHARED_MASKS = 150
N_CONFOUNDS = 20
N_MANY_CONFOUNDS = 600
# Share of the subjects without each of eight groups of contrasts.
CONTRAST_GROUPS = 8
CONTRAST_MISSING = 0.03


def unit_noise(n_nidps: int, n_subjects: int) -> np.ndarray:
    """(P, S) float32 rows of unit length."""
    values = np.random.default_rng(1).standard_normal((n_nidps, n_subjects), dtype=np.float32)
    values /= np.float32(np.sqrt(n_subjects))
    return values


def masks(n_nidps: int, n_subjects: int, n_distinct: int) -> np.ndarray:
    """(P, S) presence with so many distinct patterns; all present for 0."""
    if n_distinct == 0:
        return np.ones((n_nidps, n_subjects), dtype=bool)
    rng = np.random.default_rng(2)
    distinct = np.array([rng.random(n_subjects) >= MISSING for _ in range(n_distinct)])
    return distinct[np.arange(n_nidps) % n_distinct]


def scheme(arguments: argparse.Namespace, n_confounds: int, groups: int) -> JointPermutation:
    """Permutations of noise; with groups, contrasts of a group are missing in the same few subjects."""
    rng = generator("permutation benchmark")
    deltas = rng.normal(size=(arguments.subjects, arguments.contrasts))
    if groups:
        # A subject lacks at most one group: more patterns than these would be rare ones.
        lacks = rng.choice(
            groups + 1,
            arguments.subjects,
            p=[1 - groups * CONTRAST_MISSING] + [CONTRAST_MISSING] * groups,
        )
        for contrast in range(arguments.contrasts):
            deltas[lacks == contrast % groups + 1, contrast] = np.nan
    confounds = rng.normal(size=(arguments.subjects, n_confounds))
    n_permutations = N_BATCHES * max(1, BATCH_COLUMNS // arguments.contrasts)
    return joint_permutation(deltas, confounds, n_permutations, ("benchmark",))


def one_turn(
    permutations: JointPermutation, targets: ResidualTargets, df: np.ndarray
) -> tuple[float, float]:
    """Seconds of a permutation, and of what is done once for the block."""
    stamps, counts = [time.perf_counter()], [0]

    def advance(n: int) -> None:
        stamps.append(time.perf_counter())
        counts.append(n)

    permutations.maxima(targets, df, advance)
    each = float(np.median(np.diff(stamps)[1:] / np.array(counts[2:])))
    return each, stamps[1] - stamps[0] - each * counts[1]


def bare_product(predictors: np.ndarray, values: np.ndarray) -> float:
    """Seconds of the bare product."""
    start = time.perf_counter()
    predictors @ values.T
    return time.perf_counter() - start


def main() -> None:
    """Measure, print the table, write JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--subjects", type=int, default=20_000)
    parser.add_argument("--contrasts", type=int, default=57)
    parser.add_argument("--nidps", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args()
    n, p = arguments.subjects, arguments.nidps
    values = unit_noise(p, n)
    plain, grouped = (
        scheme(arguments, N_CONFOUNDS, 0),
        scheme(arguments, N_CONFOUNDS, CONTRAST_GROUPS),
    )
    many = scheme(arguments, N_MANY_CONFOUNDS, 0)
    complete, distinct, shared = (masks(p, n, u) for u in (0, p, N_SHARED_MASKS))
    cases = {
        "complete": (plain, complete),
        "missing, every pattern distinct": (plain, distinct),
        f"missing, {N_SHARED_MASKS} patterns": (plain, shared),
        f"missing, distinct, and contrasts missing in {CONTRAST_GROUPS} groups": (
            grouped,
            distinct,
        ),
        f"complete, {N_MANY_CONFOUNDS} confounds": (many, complete),
    }
    each: dict[str, list[float]] = {name: [] for name in ["bare product", *cases]}
    ratios: dict[str, list[float]] = {name: [] for name in cases}
    once: dict[str, list[float]] = {name: [] for name in cases}
    names = list(cases)
    for turn in range(arguments.rounds):
        bare = float(np.median([bare_product(plain.predictors, values) for _ in range(5)]))
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            permutations, present = cases[name]
            df = np.broadcast_to(
                present.sum(axis=1) - permutations.basis.shape[1] - 1.0, (arguments.contrasts, p)
            ).copy()
            targets = ResidualTargets(values, present, np.ones(p, dtype=bool))
            after, first = one_turn(permutations, targets, df)
            # the bare product on both sides of a turn: what else the machine does hits both
            bare_after = float(
                np.median([bare_product(plain.predictors, values) for _ in range(5)])
            )
            each[name].append(after)
            once[name].append(first)
            ratios[name].append(after / np.sqrt(bare * bare_after))
            each["bare product"].append(bare)
            bare = bare_after
    load = os.getloadavg()[0]
    print(
        f"{n} subjects x {arguments.contrasts} contrasts x {p} nIDPs, {arguments.rounds} rounds, load {load:.1f}"
    )
    print(f"{'case':58s} {'ms each':>9s} {'ratio':>7s} {'range':>15s} {'once, s':>8s}")
    print(f"{'bare float32 product':58s} {np.median(each['bare product']) * 1e3:9.1f}")
    for name in cases:
        r = ratios[name]
        print(
            f"{name:58s} {np.median(each[name]) * 1e3:9.1f} {np.median(r):7.2f} "
            f"[{min(r):6.2f},{max(r):6.2f}] {np.median(once[name]):8.2f}"
        )
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory {peak_gb:.1f} GB (all cases' masks are kept at once here)")
    if arguments.json:
        content = {
            "subjects": n, "contrasts": arguments.contrasts, "nidps": p, "rounds": arguments.rounds,
            "cpus": os.cpu_count(), "machine": platform.machine(), "numpy": np.__version__, "load_at_end": load,
            "bare_product_s": each["bare product"],
            "cases": {
                name: {"permutation_s": each[name], "ratio_to_bare_product": ratios[name],
                       "median_ratio": float(np.median(ratios[name])), "once_per_block_s": once[name]}
                for name in cases
            },
        }  # fmt: skip
        write_json(content, arguments.json)


if __name__ == "__main__":
    main()
