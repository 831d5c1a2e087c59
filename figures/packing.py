"""Associations and curves packed small for the report: typed arrays and JSON, deflated, as base64.

580,000 pairs are 23 MB as JSON. Here r takes two bytes, -log10 p and -log10 q two (steps of 0.005, exact
values beside for the few above 327), n and the interval's width nearly none, since they repeat from delta to
delta and are stored as differences. The exact numbers stay in the Parquet table.

Layout after inflating: length of the header (uint32, little-endian), header (JSON), buffers. A buffer holds a
delta x nIDP array, byte planes apart (all lowest bytes first), which deflates better than whole numbers.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from figures.association_table import HIDDEN_CASES, AssociationView

R_STEP = 1 / 32767
P_STEP = 0.005
HALF_WIDTH_STEP = 5e-5  # of Fisher's z
MISSING_U16 = 65535
BEYOND_U16 = 65534  # -log10 p above P_STEP * BEYOND_U16: see the list of large values
MISSING_R = -32768
NO_COUNT = -1
NO_CODE = 255
MOST_CODES = 254


def pack_json(content: Any) -> str:
    """Plain content as deflated JSON in base64."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _as_text(text.encode("utf-8"))


def unpack_json(packed: str) -> Any:
    """The inverse of `pack_json`."""
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def pack_associations(view: AssociationView) -> str:
    """All pairs of delta and nIDP in base64; the header names what each place means."""
    grids = _grids(view)
    buffers, arrays, offset = [], {}, 0
    for name, grid in grids.items():
        coded = grid
        differences = name in ("n", "cases", "half")
        if differences:
            coded = grid.copy()
            coded[1:] = grid[1:] - grid[:-1]  # wraps around; the inverse wraps back
        planes = np.ascontiguousarray(coded).view(np.uint8).reshape(-1, coded.dtype.itemsize).T
        buffers.append(planes.tobytes())
        arrays[name] = {
            "type": coded.dtype.str,
            "offset": offset,
            "differences": differences,
        }
        offset += len(buffers[-1])
    header = _header(view)
    header["arrays"] = arrays
    for short, column in (("p", "nlog10p"), ("q", "nlog10q_bh")):
        large = np.flatnonzero(grids[short].ravel() == BEYOND_U16)
        exact = _grid(view, column).ravel()[large]
        header[f"large_{short}"] = [[int(i), round(float(v), 2)] for i, v in zip(large, exact)]
    text = json.dumps(header, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return _as_text(b"".join([np.uint32(len(text)).astype("<u4").tobytes(), text, *buffers]))


def _as_text(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 9)).decode("ascii")


def _header(view: AssociationView) -> dict[str, Any]:
    categories = list(dict.fromkeys(view.nidps["category"]))
    place = {name: code for code, name in enumerate(categories)}
    name = view.nidps["name"].where(view.nidps["name"] != view.nidps["nidp"], "")
    return {
        "steps": {"r": R_STEP, "p": P_STEP, "half": HALF_WIDTH_STEP},
        "alpha": view.alpha,
        "deltas": [list(delta) for delta in view.deltas],
        "familyOfDelta": view.family_of_delta,
        "families": [
            {
                "name": family.name,
                "tests": family.n_tests,
                "bonferroni": family.bonferroni_nlog10p,
                "bh": family.bh_nlog10p,
            }
            for family in view.families
        ],
        "categories": categories,
        "reasons": _reasons(view),
        "nidps": list(view.nidps["nidp"]),
        "names": list(name),
        "descriptions": list(view.nidps["description"]),
        "categoryOf": [place[name] for name in view.nidps["category"]],
    }


def _reasons(view: AssociationView) -> list[str]:
    """Why a pair has no p: the distinct reasons, the commonest kept should there be too many."""
    reason = view.table["reason"]
    counts = reason[reason != ""].value_counts()
    return sorted(counts.index[:MOST_CODES])


def _grid(view: AssociationView, column: str, missing: float = np.nan) -> np.ndarray:
    """A column as a delta x nIDP array of float64."""
    grid = np.full((len(view.deltas), view.n_nidps), missing)
    table = view.table
    grid[table["delta_place"].to_numpy(), table["nidp_place"].to_numpy()] = table[column].to_numpy()
    return grid


def _grids(view: AssociationView) -> dict[str, np.ndarray]:
    r, low, high = (_grid(view, name) for name in ("r", "ci_lo", "ci_hi"))
    with np.errstate(divide="ignore", invalid="ignore"):
        half = (np.arctanh(high) - np.arctanh(low)) / 2
        nlog10q = _grid(view, "nlog10q_bh")
    code = {name: place for place, name in enumerate(_reasons(view))}
    line = -np.log10(view.alpha)
    family = _grid(view, "family_place")
    tests = np.array([*(max(f.n_tests, 1) for f in view.families), 1.0])
    bonferroni_line = line + np.log10(tests[np.nan_to_num(family, nan=-1).astype(int)])
    passes = _flag_grids(view)
    reasons = view.table.assign(code=view.table["reason"].map(code).astype("float64"))
    coded = replace(view, table=reasons)
    grids = {
        "r": np.where(np.isfinite(r), np.round(np.nan_to_num(r) / R_STEP), MISSING_R).astype("<i2"),
        "p": _kept_on_side(_u16(_grid(view, "nlog10p"), P_STEP), bonferroni_line, passes[0]),
        "q": _kept_on_side(_u16(nlog10q, P_STEP), np.full(r.shape, line), passes[1]),
        "half": _u16(half, HALF_WIDTH_STEP),
        "n": _counts(_grid(view, "n")),
        "family": _codes(family),
        "reason": _codes(_grid(coded, "code")),
    }
    if view.table["n_cases"].notna().any():
        grids["cases"] = _counts(_grid(view, "n_cases"))
    return grids


def _flag_grids(view: AssociationView) -> tuple[np.ndarray, np.ndarray]:
    """Which pairs pass Bonferroni, which pass Benjamini-Hochberg."""
    table = view.table.assign(
        _bonferroni=view.passes_bonferroni().astype(float), _bh=view.passes_bh().astype(float)
    )
    flagged = replace(view, table=table)
    return tuple(_grid(flagged, name, 0.0) > 0 for name in ("_bonferroni", "_bh"))  # type: ignore[return-value]


def _kept_on_side(coded: np.ndarray, line: np.ndarray, passes: np.ndarray) -> np.ndarray:
    """Move a rounded value by one step where rounding took it across its threshold: counts stay exact."""
    value = coded * P_STEP
    known = coded < BEYOND_U16
    moved = coded.astype(np.int64)
    moved += known & passes & (value < line)
    moved -= known & ~passes & (value >= line) & (coded > 0)
    return moved.astype("<u2")


def _u16(values: np.ndarray, step: float) -> np.ndarray:
    coded = np.round(np.nan_to_num(values, nan=0.0, posinf=1e9, neginf=0.0) / step)
    coded = np.clip(coded, 0, BEYOND_U16)
    return np.where(np.isnan(values), MISSING_U16, coded).astype("<u2")


def _counts(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), np.nan_to_num(values), NO_COUNT).astype("<i4")


def _codes(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values) & (values >= 0) & (values <= MOST_CODES)
    return np.where(known, np.nan_to_num(values), NO_CODE).astype(np.uint8)


def unpack_associations(packed: str) -> tuple[dict[str, Any], pd.DataFrame]:
    """Header and table of what `pack_associations` wrote, as the page's script reads it.

    Returns
    -------
    header : dict
    table : DataFrame
        contrast, sex, nidp, r, nlog10p, nlog10q, ci_lo, ci_hi, n, n_cases, reason for every pair on the grid.
    """
    content = zlib.decompress(base64.b64decode(packed))
    size = int(np.frombuffer(content, "<u4", 1)[0])
    header = json.loads(content[4 : 4 + size])
    shape = (len(header["deltas"]), len(header["nidps"]))
    grids = {}
    for name, entry in header["arrays"].items():
        dtype = np.dtype(entry["type"])
        start = 4 + size + entry["offset"]
        planes = np.frombuffer(content, np.uint8, shape[0] * shape[1] * dtype.itemsize, start)
        grid = np.ascontiguousarray(planes.reshape(dtype.itemsize, -1).T).view(dtype).reshape(shape)
        grids[name] = np.cumsum(grid, axis=0, dtype=dtype) if entry["differences"] else grid
    r = np.where(grids["r"] == MISSING_R, np.nan, grids["r"] * R_STEP)
    half = np.where(grids["half"] == MISSING_U16, np.nan, grids["half"] * HALF_WIDTH_STEP)
    p, q = (
        np.where(grids[name] == MISSING_U16, np.nan, grids[name] * P_STEP) for name in ("p", "q")
    )
    for values, large in ((p, header["large_p"]), (q, header["large_q"])):
        for place, value in large:
            values.ravel()[place] = value
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = np.tanh(np.arctanh(r) - half), np.tanh(np.arctanh(r) + half)
    reasons = [*header["reasons"], ""]
    cases = grids.get("cases", np.full(shape, NO_COUNT)).astype(float)
    delta, nidp = np.indices(shape).reshape(2, -1)
    table = pd.DataFrame(
        {
            "contrast": [header["deltas"][i][0] for i in delta],
            "sex": [header["deltas"][i][1] for i in delta],
            "nidp": [header["nidps"][i] for i in nidp],
            "r": r.ravel(),
            "nlog10p": p.ravel(),
            "nlog10q": q.ravel(),
            "ci_lo": low.ravel(),
            "ci_hi": high.ravel(),
            "n": np.where(grids["n"] < 0, np.nan, grids["n"]).ravel(),
            "n_cases": np.where(cases == NO_COUNT, np.nan, cases).ravel(),
            "reason": [reasons[min(int(c), len(reasons) - 1)] for c in grids["reason"].ravel()],
        }
    )
    return header, table


__all__ = [
    "HIDDEN_CASES",
    "pack_associations",
    "pack_json",
    "unpack_associations",
    "unpack_json",
]
