"""-m prepare: every volume of the experiment is read once and written to the cache, cropped and packed."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from datasets.cache.preparation import NEW, ContrastPlan, Done, carry_out, measured
from utils.common.cores import n_cores
from utils.common.errors import UserError
from utils.common.messages import progress, say, warn
from utils.experiment.caches import cache_root, plan_of
from utils.experiment.experiment import Experiment

BYTES_PER_GB = 1e9
N_NAMED = 5  # files that are named for each reason to prepare them again


def run(experiment: Experiment) -> None:
    """Prepare what is new or changed; with --dry-run only say what that would be."""
    root = cache_root(experiment)
    if root is None:
        raise UserError(
            "-m prepare: set [DATA] cache_directory to the folder for prepared volumes."
        )
    plans = [plan_of(experiment, root, contrast) for contrast in experiment.chosen_contrasts]
    for plan in plans:
        tell(plan)
    if experiment.options.dry_run:
        show_costs(plans, root)
        return
    started = time.monotonic()
    done = carry_out(plans, n_cores(), shown)
    report(experiment, plans, done, time.monotonic() - started)


def tell(plan: ContrastPlan) -> None:
    """Say how many volumes stay, how many are prepared, and why."""
    why = "; ".join(f"{count} {reason}" for reason, count in plan.reasons().most_common())
    say(
        f"{plan.contrast.name}: {plan.n_kept} prepared already"
        + (f"; to prepare: {why}" if why else "")
    )
    for reason in plan.reasons():
        if reason != NEW:
            sources = [source for source, why in plan.why.items() if why == reason]
            more = f" and {len(sources) - N_NAMED} more" if len(sources) > N_NAMED else ""
            say(f"  {reason}: {', '.join(sources[:N_NAMED])}{more}")
    for path, reason in plan.damaged.items():
        warn(f"{path.name}: {reason}; it was removed, and its volumes are prepared again.")
    for folder, differences in plan.others.items() if plan.why else []:
        say(
            f"  {folder.name} holds these volumes prepared with other settings: {'; '.join(differences)}. It "
            "stays; -m clear-cache removes it"
        )


def show_costs(plans: list[ContrastPlan], root: Path) -> None:
    """The plan as a table on standard output: volumes, bytes and time from a few volumes made in memory."""
    rows: list[dict[str, Any]] = []
    costs = measured(plans)
    for plan in plans:
        n_bytes, seconds = costs[plan.contrast.name]
        rows.append(
            {
                "contrast": plan.contrast.name,
                "prepared": plan.n_kept,
                "to_prepare": len(plan.why),
                "gigabytes": round(n_bytes * len(plan.why) / BYTES_PER_GB, 3),
                "minutes": round(seconds * len(plan.why) / n_cores() / 60, 1),
            }
        )
    pd.DataFrame(rows).to_csv(sys.stdout, index=False)
    needed, free = sum(row["gigabytes"] for row in rows), free_bytes(root) / BYTES_PER_GB
    say(f"about {needed:.3g} GB of {free:.3g} GB that are free in {root}; {n_cores()} core(s)")
    if needed > free:
        warn("the disk is too small for that.")


def free_bytes(folder: Path) -> int:
    """Free space where a folder is, or will be."""
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    return shutil.disk_usage(there).free


def shown(finished: Iterator, n_sources: int) -> Iterator:
    """A progress bar over source files."""
    return progress(finished, n_sources, "preparing", "file")


def report(experiment: Experiment, plans: list[ContrastPlan], done: Done, seconds: float) -> None:
    """Name every file that gave no volume, and say what was written."""
    for plan in plans:
        failed = {s: e.reason for s in plan.sources if (e := plan.cache.entry(s)) and e.reason}
        for source, reason in failed.items():
            experiment.problem(f"{plan.contrast.name}: {source} {reason}.")
        if failed and len(failed) == len(plan.sources):
            experiment.problem(
                f"{plan.contrast.name}: none of its {len(failed)} files can be used."
            )
    per_volume = f", {done.n_bytes / done.n_volumes / 1e6:.3g} MB each" if done.n_volumes else ""
    say(
        f"{done.n_volumes} volumes prepared in {seconds:.1f} s: {done.n_bytes / BYTES_PER_GB:.3g} GB"
        f"{per_volume}, in {plans[0].cache.folder.parent}"
    )
