"""How accurate is each combination of contrasts on subjects it was not fitted on, when contrasts are missing?

Simulates predictions of 3 and of 57 contrasts, whose errors are correlated through shared factors, for 100 and 1,100
validation and 1,000 test subjects. With 20 % missing, whole modalities (a sixth of the contrasts) are missing together.
Reported: the mean absolute error on test, years; for ridge also when only validation subjects with all contrasts are
used ("mean" where these are too few); and the correlation of corrected delta and age on test when the straight-line
correction was fitted on the subjects of the fit with the weights they made (in-sample) or out of fold.

Run from the repository root: python benchmarks/combination.py [--cohorts 20] [--seed 1] [--json PATH]
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.common.files import write_json
from utils.common.randomness import generator
from utils.evaluation.ensembling import METHODS, ContrastCombination

N_TEST = 1000
N_MODALITIES = 6
N_FACTORS = 6
COMPLETE_ONLY = "ridge, complete subjects only"


@dataclass(frozen=True)
class Study:
    """What the contrasts of one simulated study have in common and of their own."""

    loadings: np.ndarray  # (factors, C) years
    noise_years: np.ndarray  # (C,)

    @classmethod
    def draw(cls, rng: np.random.Generator, n_contrasts: int) -> Study:
        """The first factor moves all contrasts alike (the true delta and what all share), the others some."""
        loadings = rng.normal(0, 1, (N_FACTORS, n_contrasts))
        loadings[0] = 2.5
        return cls(loadings, rng.uniform(2, 6, n_contrasts))

    def cohort(
        self, rng: np.random.Generator, n: int, missing: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predictions (n, C), shrunk to the mean age as their noise demands, and ages."""
        n_contrasts = self.noise_years.size
        age = rng.uniform(45, 82, n)
        errors = rng.normal(size=(n, N_FACTORS)) @ self.loadings
        errors += rng.normal(size=(n, n_contrasts)) * self.noise_years
        variance = np.sum(self.loadings**2, axis=0) + self.noise_years**2
        slope = 1 / (1 + variance / np.var(age))
        predicted = 63.5 + slope * ((age - 63.5)[:, None] + errors)
        modality = np.arange(n_contrasts) * min(N_MODALITIES, n_contrasts) // n_contrasts
        absent = rng.random((n, modality.max() + 1)) < missing
        predicted[absent[:, modality]] = np.nan
        return predicted, age


def run_cohort(
    seed: int, cohort: int, n_contrasts: int, n_validation: int, missing: float
) -> dict[str, dict[str, float]]:
    """Test MAE of each method, and r(delta, age) after a correction fitted in-sample and out of fold."""
    rng = generator(seed, "combination", cohort, n_contrasts, n_validation, str(missing))
    study = Study.draw(rng, n_contrasts)
    predicted, age = study.cohort(rng, n_validation, missing)
    test, test_age = study.cohort(rng, N_TEST, missing)
    kept = np.isfinite(predicted).any(axis=1)
    predicted, age = predicted[kept], age[kept]
    ids = [f"S{k:05d}" for k in range(len(age))]
    names = [f"contrast {c}" for c in range(n_contrasts)]
    found = {}
    for method in METHODS:
        combination = ContrastCombination(names, method).fit(predicted, age, ids, rng)
        new = combination.apply(test).predicted_years
        found[method] = {"mae_years": mean_error(new, test_age)}
        if missing == 0.0 and method != "mean":
            folded = combination.out_of_fold(predicted, age, ids, rng)
            inside = combination.apply(predicted).predicted_years
            outside = folded.apply(predicted).predicted_years
            found[method] |= {
                "r_in_sample": correlation_left(inside, age, new, test_age),
                "r_out_of_fold": correlation_left(outside, age, new, test_age),
            }
    if missing:
        whole = np.isfinite(predicted).all(axis=1)
        rows = np.flatnonzero(whole)
        ridge = ContrastCombination(names).fit(
            predicted[rows], age[rows], [ids[i] for i in rows], rng
        )
        new = ridge.apply(test).predicted_years
        found[COMPLETE_ONLY] = {"mae_years": mean_error(new, test_age)}
    return found


def mean_error(predicted: np.ndarray, age: np.ndarray) -> float:
    """Mean absolute error, years, of the subjects who have a prediction."""
    return float(np.nanmean(np.abs(predicted - age)))


def correlation_left(
    fitted: np.ndarray, fitted_age: np.ndarray, new: np.ndarray, new_age: np.ndarray
) -> float:
    """r of age and the new subjects' deltas about the line through the fitted ones."""
    slope, intercept = np.polyfit(fitted_age, fitted, 1)
    return float(np.corrcoef(new - intercept - slope * new_age, new_age)[0, 1])


def summary(cohorts: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Means over cohorts; for r also the root of the mean square."""
    out: dict[str, dict[str, float]] = {}
    for method in cohorts[0]:
        out[method] = {}
        for name in cohorts[0][method]:
            values = np.array([cohort[method][name] for cohort in cohorts])
            out[method][name] = round(float(values.mean()), 4)
            if name == "mae_years":
                out[method]["mae_years_largest"] = round(float(values.max()), 4)
            else:
                out[method][name + "_rms"] = round(float(np.sqrt(np.mean(values**2))), 4)
    return out


def main() -> None:
    """Print a table a setting and write all numbers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cohorts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    results = []
    for n_contrasts in (3, 57):
        for n_validation in (100, 1100):
            for missing in (0.0, 0.2):
                setting = (n_contrasts, n_validation, missing)
                cohorts = [
                    run_cohort(options.seed, cohort, *setting) for cohort in range(options.cohorts)
                ]
                entry = {
                    "contrasts": n_contrasts,
                    "validation_subjects": n_validation,
                    "missing": missing,
                    "methods": summary(cohorts),
                }
                results.append(entry)
                print(f"{n_contrasts} contrasts, {n_validation} validation, {missing:.0%} missing")
                for method, values in entry["methods"].items():
                    print(f"  {method:30s}", values, flush=True)
    if options.json:
        description = {"cohorts": options.cohorts, "seed": options.seed, "test_subjects": N_TEST}
        write_json({**description, "settings": results}, options.json)


if __name__ == "__main__":
    main()
