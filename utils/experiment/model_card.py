"""What a model card says: everything needed to use the networks elsewhere, and nothing about one person.

As in `summary/`: no numbers of fewer than ten subjects, ages of the youngest and oldest in whole years. Ids,
paths and names of machines are in none of the records that it is made from, or are left out by name.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from BrainAgeNetworks.checkpoints import weights_hash
from datasets.contrasts import described_contrast
from figures.privacy import MINIMUM_COUNT, text_for_export
from utils.common.errors import UserError
from utils.common.files import read_json
from utils.common.messages import warn
from utils.common.provenance import versions
from utils.common.text import shown
from utils.evaluation.deltas import LINES, AgeBiasCorrection, CorrectionRefused
from utils.evaluation.metrics import MEASURES
from utils.evaluation.sex_deltas import FITTED_ON
from utils.experiment.experiment import Cell, Experiment
from utils.experiment.results import PERSON_SPLITS, read_metrics, read_predictions
from utils.experiment.trained import TrainedNetwork

# Keys of [DATA] that tell how volumes became input; the others name files, or lie with the machine.
DATA_KEYS = (
    "preprocessing", "conform", "cache_storage", "shift_transformation", "shift_voxels",
    "mirror_transformation", "rotation_degrees", "zoom_fraction", "gain_fraction", "gamma_fraction",
)  # fmt: skip
# Keys of [TRAINING] that name a file or change nothing about the weights.
TRAINING_KEYS_LEFT_OUT = (
    "use_pre_trained", "tensorboard", "keep_every", "checkpoint_minutes", "validation_batch_size",
)  # fmt: skip
CITATIONS = {
    "agemapper": "Roibu et al. 2023, 10th IEEE Swiss Conference on Data Science, doi 10.1109/SDS57534.2023.00010",
    "sfcn": "Peng et al. 2021, Medical Image Analysis 68:101871, doi 10.1016/j.media.2020.101871",
}
# Of the records of a cell's networks: the same in each of them.
_OF_ALL_NETWORKS = ("conform", "training_subjects_hash", "split_hash")
# Two fits of the same line to the same numbers; a fit to other predictions differs by far more.
_SAME_LINE = 1e-6


def exported_networks(networks: list[TrainedNetwork]) -> list[TrainedNetwork]:
    """Those that enter the average because they learned something."""
    return [trained for trained in networks if not trained.collapsed]


def model_card(
    experiment: Experiment, cell: Cell, networks: list[TrainedNetwork]
) -> dict[str, Any]:
    """The card without the checksums of the files: plain values.

    networks : all of the cell, of which at least one is exported.

    Raises
    ------
    UserError
        The exported networks differ in more than their seed.
    """
    chosen = exported_networks(networks)
    record, settings = chosen[0].record, experiment.settings
    _refuse_differing(cell, chosen)
    n_training = record["training_ages"]["n"]
    few = n_training < MINIMUM_COUNT
    contrast = described_contrast(record["contrast"])
    contrast.pop("data_file")
    tested_hash = weights_hash(*(trained.network for trained in networks))
    metrics = {s: _metrics(experiment, cell, s, tested_hash) for s in PERSON_SPLITS}
    network_name = record["network_plan"]["network"]
    return {
        "experiment": record["experiment"],
        "simulated": experiment.simulated,
        "contrast": contrast,
        "scale_factor_is_auto": record["scale_factor_is_auto"],
        "sex": record["sex"],
        "conform": record["conform"],
        "network_plan": record["network_plan"],
        "target": record["target"],
        "networks": [_network(trained) for trained in chosen],
        "n_trained": len(networks),
        "training_ages": _ages(record["training_ages"]),
        # a hash of so few ids could be found by trying ids
        "training_subjects_hash": None if few else record["training_subjects_hash"],
        "split_hash": None if few else record["split_hash"],
        "settings": _settings(record["settings"]),
        "started_from": _started_from(record.get("pre_trained")),
        "metrics": metrics,
        "bias_correction": _bias_correction(experiment, cell, metrics[FITTED_ON]),
        "bfloat16_change": _bfloat16_change(experiment, cell, networks, tested_hash),
        "licence": settings.export.licence,
        "contact": settings.export.contact,
        "citations": [CITATIONS[network_name]] if network_name in CITATIONS else [],
        "trained_with": record["versions"],
        "exported_with": versions(),
    }


def _refuse_differing(cell: Cell, networks: list[TrainedNetwork]) -> None:
    """One card describes all of them; what it says must be true of each."""
    first, *others = networks
    said = _common(first)
    problems = []
    for other in others:
        found = _common(other)
        problems += [
            f"{key} is {shown(said.get(key))} in network {first.number} and {shown(found.get(key))} in network "
            f"{other.number}"
            for key in dict.fromkeys([*said, *found])
            if said.get(key) != found.get(key)
        ]
    if problems:
        raise UserError(
            f"{cell.name}: its networks are of different trainings, which one model card cannot describe: "
            f"{'; '.join(problems)}. Train those that differ again."
        )


def _common(trained: TrainedNetwork) -> dict[str, Any]:
    """What the networks of a cell have in common; where a file lay is no part of it."""
    record = trained.record
    contrast = described_contrast(record["contrast"])
    contrast.pop("data_file")
    parts = {
        "contrast": contrast,
        "network_plan": record["network_plan"],
        "target": record["target"],
    }
    named = {f"{part} {key}": value for part in parts for key, value in parts[part].items()}
    return named | {key: record.get(key) for key in _OF_ALL_NETWORKS}


def _network(trained: TrainedNetwork) -> dict[str, Any]:
    record = trained.record
    share = record["validation_mae_years"] / record["validation_null_mae_years"]
    return {
        "number": trained.number,
        "file": f"network_{trained.number}.safetensors",
        "seed": record["seed"],
        "epoch": record["epoch"],
        # rounded down, so that a limit of two decimals is on the same side of it
        "validation_mae_share": math.floor(100 * share) / 100,
    }


def _ages(ages: dict[str, Any]) -> dict[str, Any]:
    if ages["n"] < MINIMUM_COUNT:
        return dict.fromkeys(ages)
    return {
        **ages,
        "min_years": math.floor(ages["min_years"]),
        "max_years": math.ceil(ages["max_years"]),
    }


def _settings(settings: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of the training's settings those that matter to its result."""
    data, training = settings["data"], settings["training"]
    return {
        "data": {key: data[key] for key in DATA_KEYS if key in data},
        "training": {k: v for k, v in training.items() if k not in TRAINING_KEYS_LEFT_OUT},
        "network": settings["network"],
    }


def _started_from(pre_trained: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the networks were before they were trained here; not the name of the file."""
    if not pre_trained:
        return None
    return {key: value for key, value in pre_trained.items() if key != "file"}


def _metrics(experiment: Experiment, cell: Cell, split: str, tested_hash: str) -> dict[str, Any]:
    """Accuracy of the mean of the networks in a split, or why it is left out."""
    metrics = read_metrics(experiment, cell, split)
    reason = ""
    if metrics is None:
        reason = "not tested"
    elif metrics.get("networks_sha256") != tested_hash:
        reason = "the networks are not those that were tested; run -m test again"
    elif metrics["n"] < MINIMUM_COUNT:
        reason = f"fewer than {MINIMUM_COUNT} subjects"
    if metrics is None or reason:
        warn(f"{cell.name}: the model card says nothing of {split} subjects: {reason}.")
        return {"left_out": reason}
    return {
        "n": metrics["n"],
        "age_mean_years": metrics["age_mean_years"],
        "age_sd_years": metrics["age_sd_years"],
        "age_min_years": math.floor(metrics["age_min_years"]),
        "age_max_years": math.ceil(metrics["age_max_years"]),
        "null_mae_years": metrics["null_mae_years"],
        **{measure: metrics["ensemble"][measure] for measure in MEASURES},
        "flags": [
            {"name": flag["name"], "reason": text_for_export(flag["reason"])}
            for flag in metrics.get("flags", [])
        ],
    }


def _bias_correction(
    experiment: Experiment, cell: Cell, validation: dict[str, Any]
) -> dict[str, Any]:
    """The line that `-m ensemble` fitted for this contrast and sex, or why it is left out."""
    path = experiment.paths.bias_correction
    if not path.is_file():
        return {"left_out": "no bias correction was fitted (-m ensemble)"}
    by_split = read_json(path)["corrections"].get(cell.sex, {})
    found = [
        record[cell.contrast.name] for record in by_split.values() if cell.contrast.name in record
    ]
    if not found or "refused" in found[0]:
        return {"left_out": found[0]["refused"] if found else "none for this contrast and sex"}
    line = found[0]
    if line["method"] not in LINES:
        return {
            "left_out": f"the correction '{line['method']}' is no line; bias_correction.json of the experiment has it"
        }
    if "left_out" in validation or not _is_of_these_predictions(experiment, cell, line):
        reason = "it was fitted on predictions of other networks; run -m test and -m ensemble again"
        warn(f"{cell.name}: the model card has no bias correction: {reason}.")
        return {"left_out": reason}
    return {
        "method": line["method"],
        "fitted_on": FITTED_ON,
        **{
            key: line[key]
            for key in (
                "alpha_years", "alpha_low_years", "alpha_high_years", "beta", "beta_low", "beta_high",
                "residual_sd_years", "n_fit", "age_mean_years",
            )
        },
        "age_min_years": math.floor(line["age_min_years"]),
        "age_max_years": math.ceil(line["age_max_years"]),
    }  # fmt: skip


def _is_of_these_predictions(experiment: Experiment, cell: Cell, line: dict[str, Any]) -> bool:
    """Whether the predictions that lie there now give the same line."""
    table = read_predictions(experiment, cell, FITTED_ON)
    if table is None:
        return False
    predicted, ages = table["predicted_years"].to_numpy(float), table["age_years"].to_numpy(float)
    try:
        again = AgeBiasCorrection(line["method"]).fit(predicted, ages, table["subject_id"].tolist())
    except CorrectionRefused:
        return False
    fitted = again.to_dict()
    return all(
        bool(np.isclose(fitted[key], line[key], rtol=0, atol=_SAME_LINE))
        for key in ("alpha_years", "beta")
    )


def _bfloat16_change(
    experiment: Experiment, cell: Cell, networks: list[TrainedNetwork], tested_hash: str
) -> dict[str, Any] | None:
    """What predicting in bfloat16 changed on validation; about the exported networks, which were averaged."""
    change = (read_metrics(experiment, cell, FITTED_ON) or {}).get("bfloat16_change")
    if not change or change["networks"] != tested_hash or change["n"] < MINIMUM_COUNT:
        return None
    return {
        **change,
        "networks": weights_hash(*(trained.network for trained in exported_networks(networks))),
    }
