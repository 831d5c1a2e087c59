"""Runs the program in forked children, one for each line `start`, so that tests can kill many of them.

    python tests/reliability/prepare_in_children.py

Lines on standard input, words separated by tabs: `start LOG COMMIT_EVERY WORD ...` forks a child that runs
`run.py WORD ...` with its messages in LOG (COMMIT_EVERY above 0: what was prepared counts after so many
volumes) and prints its process id; `wait ID` prints how it ended.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

import utils.modes.prepare
import utils.modes.train
import utils.modes.verify  # noqa: F401 - imported once, for all children
from datasets.cache import preparation, shards
from run import main
from tests.reliability.cached_cohort import CachedCohort


def run_child(log: str, commit_every: int, words: list[str]) -> None:
    """Run the program and leave with its exit code; 99 for a traceback."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    if commit_every:
        shards.COMMIT_EVERY_N = commit_every
    code = 99
    try:
        code = main(words)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def compile_loops() -> None:
    """Load the compiled loops, which takes longer than what the children do."""
    with tempfile.TemporaryDirectory() as folder:
        cohort = CachedCohort(Path(folder), 1).write()
        for contrast in cohort.experiment().contrasts:
            plan = preparation.plan_contrast(
                Path(folder), contrast, "strict", "uint16", [cohort.volume(0, contrast.name)]
            )
            preparation.measured([plan], 1)


def serve() -> None:
    """Answer requests until standard input ends."""
    torch.set_num_threads(1)
    compile_loops()
    print("ready", flush=True)
    for line in sys.stdin:
        request, *words = line.rstrip("\n").split("\t")
        if request == "wait":
            _, status = os.waitpid(int(words[0]), 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        child = os.fork()
        if child == 0:
            run_child(words[0], int(words[1]), words[2:])
        print(child, flush=True)


if __name__ == "__main__":
    serve()
