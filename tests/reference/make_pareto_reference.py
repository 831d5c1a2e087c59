"""Makes pareto_reference.json: simulated critical values of the Anderson-Darling statistic of fitted GPDs.

Run from the repository root: python tests/reference/make_pareto_reference.py (about a minute)
The published table (Choulakian and Stephens 2001, as printed in PALM's palm_pareto.m) is for estimation by maximum
likelihood; the program estimates by moments. "moments" holds the critical values at p = 0.05 that the program uses.
"likelihood" holds medians under maximum likelihood, beside the published ones at the shape of the *opposite* sign:
these are the ones that the simulation meets, to 4 % (at k = 0.2: simulated 0.41, printed in PALM 0.376 for k = 0.2 and
0.426 for k = -0.2). This script computes everything by itself: it imports nothing of the program.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scipy import optimize

SHAPES = [-0.2, -0.15, -0.1, -0.05, 0.0, 0.05, 0.1, 0.15, 0.2]
PUBLISHED_MEDIANS = {-0.2: 0.426, -0.1: 0.410, 0.0: 0.397, 0.1: 0.386, 0.2: 0.376}
N_EXCESSES = 250
N_RUNS = 20_000
N_RUNS_LIKELIHOOD = 4000


def draw(rng: np.random.Generator, shape: float) -> np.ndarray:
    """A sample of unit scale, by inversion."""
    u = rng.uniform(size=N_EXCESSES)
    return -np.log(u) if shape == 0 else (1.0 - u**shape) / shape


def by_moments(y: np.ndarray) -> tuple[float, float]:
    """Hosking and Wallis: scale, shape."""
    ratio = y.mean() ** 2 / y.var(ddof=1)
    return y.mean() * (ratio + 1) / 2, (ratio - 1) / 2


def by_likelihood(y: np.ndarray) -> tuple[float, float]:
    """Maximum likelihood: with theta = shape / scale, shape = -mean ln(1 - theta y)."""

    def loss(theta: float) -> float:
        shape = -np.mean(np.log1p(-theta * y))
        return np.log(shape / theta) - shape if abs(theta) > 1e-12 else np.log(y.mean())

    end = 1.0 / y.max()
    found = min(
        (
            optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-9})
            for bounds in ((-5.0 / y.mean(), -1e-9), (1e-9, end * (1 - 1e-4)))
        ),
        key=lambda result: result.fun,
    )
    shape = -float(np.mean(np.log1p(-found.x * y)))
    return shape / found.x, shape


def statistic(y: np.ndarray, scale: float, shape: float) -> float:
    """Anderson-Darling; infinite when the fitted tail ends inside the sample."""
    y = np.sort(y)
    inside = 1.0 - shape * y / scale
    if inside.min() <= 0:
        return float("inf")
    tail = np.exp(np.log(inside) / shape)
    odd = 2 * np.arange(1, y.size + 1) - 1
    return float(-y.size - np.mean(odd * (np.log1p(-tail) + np.log(tail[::-1]))))


def simulated(estimate, shape: float, n_runs: int, p: float) -> float:
    """The value that the statistic exceeds with probability `p`."""
    rng = np.random.default_rng(1)
    values = []
    for _ in range(n_runs):
        y = draw(rng, shape)
        values.append(statistic(y, *estimate(y)))
    return round(float(np.quantile(values, 1 - p, method="higher")), 4)


def main() -> None:
    """Write the file beside this script."""
    content = {
        "n_excesses": N_EXCESSES,
        "moments": {
            "shapes": SHAPES,
            "critical_5_percent": [simulated(by_moments, k, N_RUNS, 0.05) for k in SHAPES],
        },
        "likelihood": [
            {
                "shape": k,
                "simulated_median": simulated(by_likelihood, k, N_RUNS_LIKELIHOOD, 0.5),
                "published_median_at_minus_shape": PUBLISHED_MEDIANS[-k],
            }
            for k in PUBLISHED_MEDIANS
        ],
    }
    text = json.dumps(content, indent=1) + "\n"
    Path(__file__).with_name("pareto_reference.json").write_text(text)


if __name__ == "__main__":
    main()
