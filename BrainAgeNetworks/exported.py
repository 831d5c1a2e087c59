"""An exported network: its tensors, and its card as the record that a checkpoint would hold."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from BrainAgeNetworks.checkpoints import CheckpointError
from BrainAgeNetworks.tensor_files import read_tensors
from utils.common.model_cards import read_card
from utils.common.paths import ExportPaths

# Of the card into the record, as they are.
_KEPT = (
    "experiment", "sex", "scale_factor_is_auto", "conform", "network_plan", "target",
    "training_subjects_hash", "split_hash", "settings", "bfloat16_change",
)  # fmt: skip


def is_exported(path: Path) -> bool:
    """Whether a card lies beside a file of weights."""
    return path.suffix == ".safetensors" and ExportPaths(path.parent).card.is_file()


def read_exported_network(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """State dict and record of `network_<k>.safetensors` in a folder of `-m export`; checksums are verified.

    The record has the keys of a checkpoint's that are needed to predict or to go on from the weights.

    Raises
    ------
    UserError
        File or card is missing or damaged, or the card does not know the file.
    """
    card = read_card(ExportPaths(path.parent).card)
    entry = next((entry for entry in card["networks"] if entry["file"] == path.name), None)
    if entry is None:
        names = ", ".join(entry["file"] for entry in card["networks"])
        raise CheckpointError(
            f"{path}: is not one of the networks of the model card beside it ({names})."
        )
    weights = read_tensors(path, card["files"][path.name]["sha256"])
    return weights, _record(card, entry)


def _record(card: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """The card as a checkpoint's record; what was left out of the card for privacy is NaN."""
    ages = {
        key: math.nan if value is None else value for key, value in card["training_ages"].items()
    }
    ages["mean_years"] = card["target"]["mean_age_years"]
    return {
        **{key: card[key] for key in _KEPT},
        # where a file lies is the receiver's own
        "contrast": {**card["contrast"], "data_file": ""},
        "number": entry["number"],
        "seed": entry["seed"],
        "epoch": entry["epoch"],
        "training_ages": ages,
        # only the quotient of these two is exported, and only it is ever asked for
        "validation_mae_years": entry["validation_mae_share"],
        "validation_null_mae_years": 1.0,
    }
