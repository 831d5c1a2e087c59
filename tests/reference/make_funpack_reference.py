"""Makes funpack_4_0_1.json: which columns FUNPACK drops as sparse or redundant, and how it writes dates.

Run with an environment that has fmrib-unpack 4.0.1: python tests/reference/make_funpack_reference.py
The tables are part of the file, so that the test needs no generator of random numbers to agree.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from funpack import processing_functions_core as core
from funpack import util
from funpack.plugins import fmrib


def redundancy_table(seed):
    """Columns of which some repeat others with noise, each with its own missing values."""
    rng = np.random.default_rng(seed)
    n = 150
    table = rng.integers(0, 40, (n, 6)).astype(float)
    near = [table[:, k % 6] * 3 + rng.integers(0, 1 + 3 * k, n) for k in range(6)]
    table = np.column_stack([table, *near])
    block = rng.random(n) < 0.3
    for k in range(table.shape[1]):
        gone = rng.random(n) < rng.choice([0.0, 0.03, 0.1])
        if rng.random() < 0.5:
            gone |= block
        table[gone, k] = np.nan
    return pd.DataFrame(table)


def redundancy_case(seed):
    table = redundancy_table(seed)
    dropped = core.matrixRedundantColumns(table, 0.99, 0.2)
    return {
        "columns": [[None if np.isnan(x) else x for x in table[c]] for c in table],
        "dropped": sorted([int(a), int(b)] for a, b in dropped),
    }


def sparsity_case(values):
    """Which rule of sparsity the values break."""
    missing = [np.nan] * 300  # without them FUNPACK passes over a limit beyond the number of rows
    found = core.isSparse(
        pd.Series([*values, *missing], dtype=float),
        util.CTYPES.integer,
        51,
        1e-6,
        None,
        0.99,
        abscat=False,
    )
    return {"values": values, "why": found[1]}


def date_case(text):
    class Table:
        def __init__(self):
            self.series = {"x": pd.Series(pd.to_datetime([text]))}

        def columns(self, _):
            return [type("Column", (), {"name": "x"})]

        def __getitem__(self, key):
            return self.series[key[1]]

        def __setitem__(self, key, value):
            self.series[key[1]] = value

    table = Table()
    fmrib.normalisedDate(table, 1)
    return {"date": text, "year": float(np.asarray(table.series["x"])[0])}


def main():
    counts = [(50, 0), (51, 0), (26, 25), (50, 1), (100, 1), (98, 2), (200, 3), (200, 1), (495, 5)]
    content = {
        "redundancy": [redundancy_case(seed) for seed in range(8)],
        "sparsity": [sparsity_case([0.0] * zeros + [1.0] * ones + [2.0] * ones) for zeros, ones in counts]
        + [sparsity_case([1.0 + 1e-8 * k for k in range(60)]), sparsity_case([float(k) for k in range(50)])],
        "dates": [
            date_case(text)
            for text in ("2014-01-01", "2014-07-02", "2016-02-29", "2016-12-31", "1938-05-15", "2019-12-31")
        ],
    }  # fmt: skip
    path = Path(__file__).with_name("funpack_4_0_1.json")
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
