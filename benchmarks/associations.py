"""How fast is the scan? A loop over pairs in scipy and statsmodels, least squares per nIDP, and ours, in one process.

Run from the repository root: python benchmarks/associations.py [--rounds 3] [--only distinct] [--quick]

Deltas and nIDPs are normal numbers that share a little with the confounds; a fifth of the nIDPs' values is missing.

- distinct: every nIDP has its own pattern of missing values. 150 patterns: they share 150 of them.
- contrasts missing: 8 patterns among the deltas, too, a fifth of each missing.
- 15,000 nIDPs: three times as many (--nidps), beside the same third of them: is the time linear?
- 600 confounds: with 150 patterns; PCA-reduced: their 60 principal components, every nIDP with its own pattern.

Ways (the peers once with a thread of BLAS per core and once with a single one: the better time counts):
- statsmodels, a pair: OLS of the nIDP on delta, constant and confounds on the rows where both exist, t and p.
- scipy, a pair: both without constant and confounds (scipy.linalg.lstsq), then pearsonr.
- least squares, an nIDP: numpy.linalg.lstsq of the nIDP and of all deltas with the same rows at once, products.
- ours: `Scanner`, all pairs, with its preparation of deltas and confounds.

The ways per pair and per nIDP are timed on a sample, drawn anew in each round, and EXTRAPOLATED to all pairs; ours
computes all pairs. In each round every way has its turn, in an order that rotates; a ratio is taken within a round,
then the median over rounds. "in CPU" compares the time of all threads: it holds where other programs compute, too.
Differences: of r on the sampled pairs, ours from statsmodels on standardised columns; degrees of freedom: whether
all of them are equal. Every scenario has a process of its own; peak memory is the largest resident set of that
process, tables included, after ours had its first turn.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import scipy.stats
import statsmodels.api as sm
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.association.scan import PairLimits, PairStatistics, Scanner, group_by_mask
from utils.common.files import write_json

RESULTS = Path(__file__).with_name("results") / "associations.json"
MISSING = 0.2
N_PATTERNS, N_CONTRAST_PATTERNS, N_FACTORS = 150, 8, 60
OURS, STATSMODELS, SCIPY, PER_NIDP = (
    "ours",
    "statsmodels, a pair",
    "scipy, a pair",
    "lstsq, an nIDP",
)
PACKAGES = ("numpy", "scipy", "statsmodels")


@dataclass(frozen=True)
class Scenario:
    """What is scanned, and how many pairs and nIDPs the peers get in a round."""

    name: str
    n_subjects: int
    n_contrasts: int
    n_nidps: int
    n_confounds: int = 20
    n_patterns: int | None = None
    n_contrast_patterns: int | None = None
    pca: bool = False
    third: bool = False
    n_pairs: int = 40
    n_least_squares: int = 4

    @property
    def all_pairs(self) -> int:
        """Pairs that ours computes."""
        return self.n_contrasts * self.n_nidps


def scenarios(n_subjects: int, n_contrasts: int, n_nidps: int) -> list[Scenario]:
    """The scenarios of the docstring."""
    distinct = Scenario("distinct", n_subjects, n_contrasts, n_nidps)
    many = replace(distinct, n_confounds=min(600, n_subjects // 10))
    return [
        distinct,
        replace(distinct, name="150 patterns", n_patterns=N_PATTERNS),
        replace(distinct, name="contrasts missing", n_contrast_patterns=N_CONTRAST_PATTERNS),
        replace(distinct, name="three times the nIDPs", n_nidps=3 * n_nidps, third=True),
        replace(many, name="600 confounds", n_patterns=N_PATTERNS, n_pairs=1, n_least_squares=1),
        replace(many, name="600 confounds, PCA-reduced", pca=True, n_pairs=10, n_least_squares=2),
    ]


@dataclass(frozen=True)
class Tables:
    """Deltas (S, C), nIDPs (S, P) whose values lie together, confounds (S, K)."""

    deltas: np.ndarray
    nidps: np.ndarray
    confounds: np.ndarray


def make_tables(scenario: Scenario, seed: int = 1) -> Tables:
    """Tables of a scenario."""
    rng = np.random.default_rng(seed)
    n = scenario.n_subjects
    if scenario.n_confounds > N_FACTORS:
        factors = rng.normal(size=(n, N_FACTORS))
        confounds = factors @ rng.normal(size=(N_FACTORS, scenario.n_confounds))
        confounds += 2.0 * rng.normal(size=confounds.shape)
    else:
        confounds = rng.normal(size=(n, scenario.n_confounds))
    shared = confounds[:, 0] / confounds[:, 0].std()
    if scenario.pca:
        confounds = principal_components(confounds, N_FACTORS)
    deltas = 3 * rng.normal(size=(n, scenario.n_contrasts)) + shared[:, None]
    nidps = rng.standard_normal((scenario.n_nidps, n))
    patterns = scenario.n_patterns and rng.random((scenario.n_patterns, n)) < MISSING
    for j, nidp in enumerate(nidps):
        nidp -= 0.3 * shared
        missing = rng.random(n) < MISSING if patterns is None else patterns[j % len(patterns)]
        nidp[missing] = np.nan
    if scenario.n_contrast_patterns:
        missing = rng.random((scenario.n_contrast_patterns, n)) < MISSING
        for c in range(scenario.n_contrasts):
            deltas[missing[c % len(missing)], c] = np.nan
    return Tables(deltas, nidps.T, confounds)


def principal_components(values: np.ndarray, number: int) -> np.ndarray:
    """The first principal components of standardised columns, at unit variance."""
    standard = (values - values.mean(axis=0)) / values.std(axis=0)
    _, vectors = np.linalg.eigh(standard.T @ standard)
    components = standard @ vectors[:, -number:]
    return components / components.std(axis=0)


# ------------------------------------------------------------------------------------------------ ways


def by_statsmodels(tables: Tables, c: int, j: int, standardise: bool = False) -> tuple[float, int]:
    """t and degrees of freedom of a pair."""
    d, y = tables.deltas[:, c], tables.nidps[:, j]
    rows = np.isfinite(d) & np.isfinite(y)
    d, y, z = d[rows], y[rows], tables.confounds[rows]
    if standardise:
        d, y, z = ((v - v.mean(axis=0)) / v.std(axis=0) for v in (d, y, z))
    fit = sm.OLS(y, np.column_stack([d, np.ones(len(d)), z])).fit()
    assert fit.pvalues[0] >= 0
    return float(fit.tvalues[0]), int(fit.df_resid)


def by_scipy(tables: Tables, c: int, j: int) -> float:
    """r of a pair."""
    d, y = tables.deltas[:, c], tables.nidps[:, j]
    rows = np.isfinite(d) & np.isfinite(y)
    both = np.column_stack([d[rows], y[rows]])
    design = np.column_stack([np.ones(len(both)), tables.confounds[rows]])
    residuals = both - design @ scipy.linalg.lstsq(design, both)[0]
    return float(scipy.stats.pearsonr(residuals[:, 0], residuals[:, 1]).statistic)


def by_nidp(tables: Tables, j: int, groups: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """r (C,) of all deltas with an nIDP, deltas with the same rows at once."""
    y = tables.nidps[:, j]
    present = np.isfinite(y)
    r = np.empty(tables.deltas.shape[1])
    for mask, columns in groups:
        rows = np.flatnonzero(mask & present)
        both = np.column_stack([y[rows], tables.deltas[np.ix_(rows, columns)]])
        design = np.column_stack([np.ones(rows.size), tables.confounds[rows]])
        residuals = both - design @ np.linalg.lstsq(design, both, rcond=None)[0]
        residuals /= np.sqrt(np.einsum("ij,ij->j", residuals, residuals))
        r[columns] = residuals[:, 1:].T @ residuals[:, 0]
    return r


def ours(tables: Tables, n_nidps: int | None = None) -> PairStatistics:
    """All pairs, or those of the first nIDPs."""
    nidps = tables.nidps[:, :n_nidps]
    scanner = Scanner(tables.deltas, tables.confounds, PairLimits())
    return scanner.scan(nidps, np.zeros(nidps.shape[1], dtype=bool))


# --------------------------------------------------------------------------------------------- protocol


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds, seconds of CPU in all threads, and what came out."""
    start, start_cpu = time.perf_counter(), time.process_time()
    found = work()
    return time.perf_counter() - start, time.process_time() - start_cpu, found


def measure(scenario: Scenario, rounds: int) -> dict[str, Any]:
    """Times of all ways as seconds for all pairs, ratios, differences and memory of one scenario."""
    tables = make_tables(scenario)
    rng = np.random.default_rng(7)
    groups = group_by_mask(np.isfinite(tables.deltas))
    seconds: dict[str, list[float]] = {}
    cpu_seconds: dict[str, list[float]] = {}
    differences, peer_differences, same_df = [0.0], [0.0], []
    peak_mb = 0.0
    ours(replace_nidps(tables, 64))  # loads what is loaded at first use

    for turn in range(rounds):
        pairs = [
            (int(rng.integers(scenario.n_contrasts)), int(rng.integers(scenario.n_nidps)))
            for _ in range(scenario.n_pairs)
        ]
        chosen = rng.integers(scenario.n_nidps, size=scenario.n_least_squares)
        to_all_pairs = scenario.all_pairs / scenario.n_pairs
        ways: dict[str, tuple[float, Callable[[], Any]]] = {
            OURS: (1.0, lambda: ours(tables)),
            STATSMODELS: (
                to_all_pairs,
                lambda pairs=pairs: [by_statsmodels(tables, *p) for p in pairs],
            ),
            SCIPY: (to_all_pairs, lambda pairs=pairs: [by_scipy(tables, *p) for p in pairs]),
            PER_NIDP: (
                scenario.n_nidps / scenario.n_least_squares,
                lambda chosen=chosen: [by_nidp(tables, j, groups) for j in chosen],
            ),
        }
        if scenario.third:
            ways = {
                OURS: ways[OURS],
                "a third of them": (1.0, lambda: ours(tables, scenario.n_nidps // 3)),
            }
        names = list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]
        found = {}
        for name in names:
            factor, work = ways[name]
            took, cpu, found[name] = timed(work)
            if name in (STATSMODELS, SCIPY, PER_NIDP):
                with threadpool_limits(1):
                    again = timed(work)
                took, cpu = min(took, again[0]), min(cpu, again[1])
            seconds.setdefault(name, []).append(took * factor)
            cpu_seconds.setdefault(name, []).append(cpu * factor)
            if name == OURS and not peak_mb:
                peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        statistics = found[OURS]
        for c, j in pairs:
            t, df = by_statsmodels(tables, c, j, standardise=True)
            same_df.append(bool(statistics.df[c, j] == df))
            differences.append(abs(statistics.r[c, j] - t / np.sqrt(df + t * t)))
        for j, r in zip(chosen, found.get(PER_NIDP, ())):
            peer_differences.append(float(np.abs(statistics.r[:, j] - r).max()))
    return {
        "pairs": scenario.all_pairs,
        "pairs_sampled_a_round": scenario.n_pairs,
        "nidps_sampled_a_round": scenario.n_least_squares,
        "seconds": {name: float(np.median(values)) for name, values in seconds.items()},
        "seconds_of_each_round": seconds,
        "cpu_seconds": {name: float(np.median(values)) for name, values in cpu_seconds.items()},
        "times_ours": ratios(seconds),
        "times_ours_in_cpu": ratios(cpu_seconds),
        "largest_difference_of_r": max(differences),
        "largest_difference_of_r_from_lstsq": max(peer_differences),
        "pairs_compared": len(same_df),
        "df_equal_in_all": all(same_df),
        "peak_mb": peak_mb,
        "load_average": os.getloadavg()[0],
    }


def replace_nidps(tables: Tables, number: int) -> Tables:
    """The same with the first nIDPs only."""
    return Tables(tables.deltas, tables.nidps[:, :number], tables.confounds)


def ratios(seconds: dict[str, list[float]]) -> dict[str, list[float]]:
    """Each way's time over ours within a round: median, lowest, highest."""
    found = {}
    for name in seconds.keys() - {OURS}:
        of_rounds = [value / own for value, own in zip(seconds[name], seconds[OURS])]
        found[name] = [float(f(of_rounds)) for f in (np.median, np.min, np.max)]
    return found


def in_a_process(scenario: Scenario, rounds: int) -> dict[str, Any]:
    """`measure` in a fresh process, so that its peak memory is this scenario's."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (scenario, rounds))


def machine() -> dict[str, Any]:
    """What it ran on: nothing that names it."""
    model = platform.processor() or platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as handle:
        for line in handle:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": model,
        "load_average_before": os.getloadavg()[0],
        "versions": {"python": platform.python_version()}
        | {package: metadata.version(package) for package in PACKAGES},
    }


def print_scenario(name: str, result: dict[str, Any]) -> None:
    """Its lines of the table."""
    print(f"{name}: {result['pairs']:,} pairs; load average {result['load_average']:.1f}")
    for way, seconds in result["seconds"].items():
        ratio = ""
        if way in result["times_ours"]:
            middle, low, high = result["times_ours"][way]
            in_cpu = result["times_ours_in_cpu"][way][0]
            ratio = f"{middle:8.4g} times ours ({low:.4g}-{high:.4g}), in CPU {in_cpu:.4g}"
        how = "" if way == OURS or way.startswith("a third") else " (extrapolated)"
        print(f"  {way:22s} {seconds:12.2f} s{how:15s}{ratio}")
    print(
        f"  |difference of r| to statsmodels {result['largest_difference_of_r']:.1e}, degrees of freedom "
        f"{'equal' if result['df_equal_in_all'] else 'DIFFERENT'} in {result['pairs_compared']} pairs; "
        f"peak memory {result['peak_mb'] / 1e3:.2f} GB",
        flush=True,
    )


def main() -> None:
    """Make, measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--subjects", type=int, default=20_000)
    parser.add_argument("--contrasts", type=int, default=57)
    parser.add_argument("--nidps", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="scenarios whose names begin so")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, one round")
    parser.add_argument("--json", type=Path, default=RESULTS)
    given = parser.parse_args()
    if min(given.subjects, given.contrasts, given.nidps, given.rounds) < 1:
        parser.error("--subjects, --contrasts, --nidps and --rounds: at least 1")
    tenth = 10 if given.quick else 1
    rounds = 1 if given.quick else given.rounds
    described = machine()
    results = {}
    sizes = given.subjects // tenth, given.contrasts, given.nidps // tenth
    for scenario in scenarios(*sizes):
        if scenario.name.startswith(given.only or ""):
            results[scenario.name] = in_a_process(scenario, rounds)
            print_scenario(scenario.name, results[scenario.name])
    document = {
        "machine": described | {"load_average_after": os.getloadavg()[0]},
        "subjects_contrasts_nidps": sizes,
        "rounds": rounds,
        "times": "seconds for all pairs; the peers' are extrapolated from the sampled pairs or nIDPs",
        "ratios": "within a round: median, lowest, highest over rounds",
        "results": results,
    }
    if given.json.name == "-":
        print(json.dumps(document))
    else:
        write_json(document, given.json)


if __name__ == "__main__":
    main()
