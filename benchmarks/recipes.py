"""Which way of learning works? `python benchmarks/recipes.py --folder /tmp/recipes --seeds 1 2 3`

One cohort of the demo's kind is simulated and prepared. Every recipe, a few settings that differ from the base, then
trains an ensemble of three on it, through the command line's own function; for each seed the base comes first, then the
recipes, so that a ratio to the base is always one of the same seed and cell (the same order of subjects). Networks
learn in float32, so that a run can be repeated bit by bit on the same kind of processor.

Recipes are to be chosen by the validation MAE; the test MAE is there to be reported. Validation and test sets are
larger than the demo's: 70 subjects could not tell two good recipes from one another.

- reached : epochs until a network is within 2 % of its best validation MAE (median over networks);
- at the mean : epochs whose validation MAE is above 95 % of the mean age's (median over networks);
- r(delta, truth) : delta with age regressed out, against the true delta of the contrast, test split; in the JSON
  also against the delta that all contrasts share.

A finished run is not run again, whatever the seeds and recipes of the next call are; take another folder after a change
of a recipe or of the program. The JSON of an earlier call is added to.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from run import main as run_program  # noqa: E402
from utils.common.errors import EXIT_DONE, EXIT_PARTIAL  # noqa: E402
from utils.common.files import read_json, write_json  # noqa: E402
from utils.common.paths import CellPaths  # noqa: E402
from utils.common.tables import read_table  # noqa: E402

RESULTS = Path(__file__).with_name("results") / "recipes.json"
BASE = "demo of 0.2"
NEAR_BEST = 1.02
NEAR_MEAN = 0.95

# Written out, so that the base stays what it is when docs/examples/demo.ini changes.
BASE_SETTINGS: dict[str, Any] = {
    "DATA.shift_transformation": False,
    "TRAINING.number_of_epochs": 9,
    "TRAINING.training_batch_size": 8,
    "TRAINING.validation_batch_size": 16,
    "TRAINING.learning_rate": 7e-4,
    "TRAINING.learning_rate_schedule": "plateau",
    "TRAINING.learning_rate_scheduler_patience": 2,
    "TRAINING.early_stopping_patience": 40,
    "TRAINING.precision": "float32",
    "TRAINING.tensorboard": False,
    "NETWORK.widths": (8, 16, 32, 32),
}


@dataclass(frozen=True)
class Recipe:
    """A name and the settings in which it differs from the base."""

    name: str
    changes: dict[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """All settings that are not the program's defaults."""
        return BASE_SETTINGS | self.changes


COSINE = {"TRAINING.learning_rate_schedule": "cosine", "TRAINING.learning_rate": 2e-3}
WARM = COSINE | {"TRAINING.warm_up_epochs": 0.5}
# The simulated ages are 45 to 82; a soft label's tail needs room on both sides.
BINS = {"TRAINING.loss_function": "kl", "NETWORK.age_bins": (40.0, 87.0)}
# Each augmentation adds to the one before.
SHIFT = {"DATA.shift_transformation": True, "DATA.shift_voxels": 1}
MIRROR = SHIFT | {"DATA.mirror_transformation": True}
TURN = MIRROR | {"DATA.rotation_degrees": 5.0, "DATA.zoom_fraction": 0.03}
GAIN = TURN | {"DATA.gain_fraction": 0.1}

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(BASE),
        Recipe(
            "published",
            {
                "TRAINING.learning_rate": 5e-3,
                "TRAINING.learning_rate_scheduler_patience": 15,
                "TRAINING.training_batch_size": 12,
                "DATA.shift_transformation": True,
                "DATA.shift_voxels": 2,
            },
        ),
        Recipe("rate 3e-4", {"TRAINING.learning_rate": 3e-4}),
        Recipe("rate 2e-3", {"TRAINING.learning_rate": 2e-3}),
        Recipe("rate 5e-3", {"TRAINING.learning_rate": 5e-3}),
        Recipe("warm-up", {"TRAINING.warm_up_epochs": 1.0}),
        Recipe("cosine 7e-4", COSINE | {"TRAINING.learning_rate": 7e-4}),
        Recipe("cosine", COSINE),
        Recipe("cosine, warm-up", WARM),
        Recipe("cosine, warm-up, EMA", WARM | {"TRAINING.ema_decay": 0.98}),
        Recipe("cosine, warm-up, clipping", WARM | {"TRAINING.gradient_clip_norm": 100.0}),
        Recipe(
            "cosine, warm-up, adamW 0.05",
            WARM | {"TRAINING.optimiser": "adamW", "TRAINING.optimizer_weight_decay": 0.05},
        ),
        Recipe("age bins", BINS),
        Recipe("age bins, cosine, warm-up", WARM | BINS),
        Recipe("sfcn, age bins, cosine, warm-up", WARM | BINS | {"NETWORK.network": "sfcn"}),
        Recipe("sfcn, cosine, warm-up", WARM | {"NETWORK.network": "sfcn"}),
        Recipe("cosine, warm-up, shift", WARM | SHIFT),
        Recipe("cosine, warm-up, shift, mirror", WARM | MIRROR),
        Recipe("cosine, warm-up, shift, mirror, turn", WARM | TURN),
        Recipe("cosine, warm-up, shift, mirror, turn, gain", WARM | GAIN),
        Recipe("cosine, warm-up, age-balanced", WARM | {"TRAINING.sampling": "age_balanced"}),
        Recipe("cosine, warm-up, 6 epochs", WARM | {"TRAINING.number_of_epochs": 6}),
        Recipe("cosine, warm-up, 20 epochs", WARM | {"TRAINING.number_of_epochs": 20}),
        Recipe(
            "cosine, warm-up, shift, mirror, 20 epochs",
            WARM | MIRROR | {"TRAINING.number_of_epochs": 20},
        ),
        Recipe("20 epochs", {"TRAINING.number_of_epochs": 20}),
    )
}


def main() -> int:
    """Run what is asked for, print the table, write all finished rows."""
    given = arguments()
    folder = given.folder / f"{given.voxel_mm:g}mm_{given.subjects}"
    simulate(folder, given)
    names = list(dict.fromkeys([BASE, *given.recipes]))
    rows = []
    for seed in given.seeds:
        for cell in given.cells:
            for name in names:
                row = train(folder, RECIPES[name], cell, seed, given.epochs)
                rows.append(row)
                print(
                    f"seed {seed} {cell} {name}: validation {row['validation_mae_years']:.3f} y, "
                    f"test {row['test_mae_years']:.3f} y, reached {row['epochs_reached']:g}, "
                    f"at the mean {row['epochs_at_mean']:g}",
                    flush=True,
                )
    print(table_of(rows).to_string())
    cohort = {"voxel_mm": given.voxel_mm, "n_train": given.subjects, **evaluated_sizes(given)}
    save(given.output, cohort, rows)
    return 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--recipes", nargs="+", choices=RECIPES, default=list(RECIPES), metavar="NAME"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--cells", nargs="+", default=["T1_nonlinear_female"])
    parser.add_argument("--epochs", type=int, help="for every recipe, instead of its own")
    parser.add_argument("--voxel-mm", type=float, default=4.0)
    parser.add_argument("--subjects", type=int, default=320, help="for training, of each sex")
    parser.add_argument("--evaluated", type=int, nargs=2, default=[160, 240],
                        metavar=("VALIDATION", "TEST"), help="subjects of each sex")  # fmt: skip
    parser.add_argument("--folder", type=Path, required=True, help="where cohort and runs are kept")
    parser.add_argument("--output", type=Path, default=RESULTS, help="JSON to add the rows to")
    return parser.parse_args()


def evaluated_sizes(given: argparse.Namespace) -> dict[str, int]:
    """Subjects of each sex that are predicted."""
    return dict(zip(("n_validation", "n_test"), given.evaluated))


def simulate(folder: Path, given: argparse.Namespace) -> None:
    """The cohort, with the contrasts of the wanted cells, prepared; nothing where it is there already."""
    if (folder / "cohort_is_prepared").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("demo.ini", "demo_eval.ini"):
        shutil.copy(ROOT / "docs" / "examples" / name, folder / name)
    settings = {
        "SIMULATION.contrasts": contrasts_of(given.cells),
        "SIMULATION.voxel_mm": given.voxel_mm,
        "SIMULATION.n_train_per_sex": given.subjects,
        **{f"SIMULATION.{k}_per_sex": n for k, n in evaluated_sizes(given).items()},
        "DATA.modality_flag": contrasts_of(given.cells),
    }
    for mode in ("simulate", "prepare"):
        run_mode(folder, mode, settings, [], folder / f"{mode}.log")
    (folder / "cohort_is_prepared").touch()


def contrasts_of(cells: list[str]) -> tuple[str, ...]:
    """Names of contrasts, from names of cells."""
    return tuple(dict.fromkeys(cell.rpartition("_")[0] for cell in cells))


def train(folder: Path, recipe: Recipe, cell: str, seed: int, epochs: int | None) -> dict[str, Any]:
    """Train and test one cell by a recipe; its row. A row that is there already is read."""
    settings = recipe.settings() | {
        "TRAINING.seed": seed,
        "DATA.modality_flag": contrasts_of([cell]),
        "MAPPING.bootstrap_resamples": 100,
    }
    if epochs:
        settings["TRAINING.number_of_epochs"] = epochs
    n_epochs = settings["TRAINING.number_of_epochs"]
    words = f"{recipe.name} {n_epochs} epochs {cell} {seed}".replace(",", "").replace(" ", "_")
    kept = folder / "rows" / f"{words}.json"
    if kept.exists():
        return read_json(kept)
    settings["MISC.experiments_directory"] = str(folder / "runs" / words)
    run_mode(folder, "train-and-evaluate-data", settings, ["--cell", cell], folder / "runs.log")
    results = folder / "runs" / words / "demo"
    row = {"recipe": recipe.name, "cell": cell, "seed": seed, "epochs": n_epochs}
    row |= measured(results, folder / "simulated" / "demo", cell)
    kept.parent.mkdir(exist_ok=True)
    write_json(row, kept)
    shutil.rmtree(folder / "runs" / words)
    return row


def run_mode(
    folder: Path, mode: str, settings: dict[str, Any], words: list[str], log: Path
) -> None:
    """A mode of the program on the folder's demo.ini, its messages into a file."""
    given = [
        word for key, value in settings.items() for word in ("--set", f"{key}={written(value)}")
    ]
    with log.open("a", encoding="utf-8") as stream, redirect_stderr(stream):
        code = run_program(["-m", mode, "-n", str(folder / "demo"), *words, *given])
    if code not in (EXIT_DONE, EXIT_PARTIAL):  # a recipe may collapse: that is a result
        raise SystemExit(f"-m {mode} ended with {code}; see {log}")


def written(value: Any) -> str:
    """A value as an ini file has it."""
    return json.dumps(value) if isinstance(value, str) else str(value).replace("'", '"')


def measured(results: Path, cohort: Path, cell: str) -> dict[str, Any]:
    """What came of one ensemble of an experiment."""
    paths = CellPaths(results / cell)
    row: dict[str, Any] = {}
    for split in ("validation", "test"):
        metrics = read_json(paths.metrics(split))
        networks = [network["mae_years"]["value"] for network in metrics["networks"]]
        row[f"{split}_mae_years"] = metrics["ensemble"]["mae_years"]["value"]
        row[f"{split}_single_mae_years"] = float(np.mean(networks))
        row[f"{split}_null_mae_years"] = metrics["null_mae_years"]
    row["collapsed"] = sum(network["collapsed"] for network in metrics["networks"])
    histories = [
        read_table(network.history)["validation_mae_years"].to_numpy(float)
        for network in paths.networks()
    ]
    null = row["validation_null_mae_years"]
    row["epochs_reached"] = float(
        np.median([1 + np.argmax(h <= NEAR_BEST * h.min()) for h in histories])
    )
    row["epochs_at_mean"] = float(np.median([first_below(h, NEAR_MEAN * null) for h in histories]))
    predictions = read_table(paths.predictions("test")).merge(
        read_table(cohort / "truth.csv"), on="subject_id", suffixes=("", "_true")
    )
    contrast = cell.rpartition("_")[0]
    for name, column in (("r_truth", f"delta_{contrast}"), ("r_shared_truth", "shared_delta")):
        row[name] = partial_r(predictions, f"{column}_years")
    return {key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()}


def first_below(values: np.ndarray, limit: float) -> int:
    """How many epochs come before the first whose value is below the limit: all, if none is."""
    below = np.flatnonzero(values < limit)
    return int(below[0]) if len(below) else len(values)


def partial_r(predictions: pd.DataFrame, truth: str) -> float:
    """Correlation of delta (age regressed out, line and square) with a true delta."""
    ages = predictions["age_years"].to_numpy(float)
    delta = predictions["predicted_years"].to_numpy(float) - ages
    delta = delta - np.polynomial.Polynomial.fit(ages, delta, 2)(ages)
    return float(np.corrcoef(delta, predictions[truth].to_numpy(float))[0, 1])


def table_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A row a recipe: medians over seeds and cells, and the ratio to the base with its range."""
    table = pd.DataFrame(rows)
    keys = ["cell", "seed"]
    base = table[table["recipe"] == BASE].set_index(keys)["validation_mae_years"]
    table["ratio"] = table["validation_mae_years"] / [base[tuple(k)] for k in table[keys].values]
    groups = table.groupby("recipe", sort=False)
    low, high = groups["ratio"].min(), groups["ratio"].max()
    shown = pd.DataFrame(
        {
            "runs": groups.size(),
            "validation MAE": groups["validation_mae_years"].median().round(2),
            "/ base": groups["ratio"].median().round(3),
            "from-to": [f"{a:.2f}-{b:.2f}" for a, b in zip(low, high)],
            "single": groups["validation_single_mae_years"].median().round(2),
            "test MAE": groups["test_mae_years"].median().round(2),
            "mean age": groups["test_null_mae_years"].median().round(2),
            "r(delta, truth)": groups["r_truth"].median().round(2),
            "reached": groups["epochs_reached"].median(),
            "at the mean": groups["epochs_at_mean"].median(),
            "collapsed": groups["collapsed"].sum(),
        }
    )
    return shown.sort_values("/ base")


def save(path: Path, cohort: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Add the rows of a cohort to a file; rows of the same runs are replaced."""
    content: dict[str, Any] = read_json(path) if path.exists() else {"cohorts": []}
    others = [c for c in content["cohorts"] if c["cohort"] != cohort]
    before = [row for c in content["cohorts"] if c["cohort"] == cohort for row in c["rows"]]

    def run_of(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["seed"], row["cell"], row["recipe"], row["epochs"]

    merged = {run_of(row): row for row in (*before, *rows)}
    content = {
        "base": {key: written(value) for key, value in BASE_SETTINGS.items()},
        "recipes": {
            recipe.name: {key: written(value) for key, value in recipe.changes.items()}
            for recipe in RECIPES.values()
        },
        "cohorts": [*others, {"cohort": cohort, "rows": [merged[k] for k in sorted(merged)]}],
    }
    write_json(content, path)


if __name__ == "__main__":
    raise SystemExit(main())
