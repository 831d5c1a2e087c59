"""Writes one file again and again until it is killed: the process that test_reliability_kills.py kills.

    python tests/reliability/write_in_a_loop.py KIND PATH

Each line on standard input, a number, starts a child that writes this generation and those after it
to PATH as fast as it can; its process id is printed; when it is dead, `dead` is printed. KIND is
checkpoint, table, parquet, report, or naive: the control that writes to the final name, as a program
without this care does.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pandas as pd
import torch

from utils.common.files import write_text
from utils.common.paths import NetworkPaths
from utils.common.tables import write_table
from utils.experiment.checkpoints import save_last

N_VALUES = 40_000


def write(kind: str, path: Path, generation: int) -> None:
    """Write one generation; every value in the file is its number."""
    if kind == "checkpoint":
        weights = torch.full((N_VALUES,), float(generation))
        save_last({"generation": generation, "weights": weights}, NetworkPaths(path.parent))
    elif kind == "naive":
        weights = torch.full((N_VALUES,), float(generation))
        torch.save({"generation": generation, "weights": weights}, path)
    elif kind in ("table", "parquet"):
        write_table(pd.DataFrame({"generation": [generation] * (N_VALUES // 10)}), path)
    else:
        write_text(f"<html>{f' {generation} ' * N_VALUES}</html>\n", path)


def main(kind: str, path: Path) -> None:
    """Serve requests for children until standard input ends."""
    torch.set_num_threads(1)
    write(kind, path, 0)
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            for generation in itertools.count(int(line)):
                write(kind, path, generation)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("dead", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
