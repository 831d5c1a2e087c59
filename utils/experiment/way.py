"""On what and in which precision trained networks predict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from BrainAgeNetworks.checkpoints import weights_hash
from BrainAgeNetworks.precision import precision_name, precision_of
from utils.common.messages import warn
from utils.evaluation.precision import PrecisionChange
from utils.experiment.experiment import Cell, Experiment
from utils.experiment.results import read_metrics
from utils.experiment.trained import TrainedNetwork


@dataclass(frozen=True)
class Way:
    """On what and in which precision a cell predicts; bfloat16 needs a `change` that can be accepted."""

    device: torch.device
    wanted: torch.dtype
    networks_hash: str  # of the weights that `change` is about
    change: PrecisionChange | None = None

    @property
    def precision(self) -> torch.dtype:
        accepted = self.change is not None and self.change.is_acceptable
        return self.wanted if accepted else torch.float32

    def describe(self) -> dict[str, Any]:
        """For a metrics file."""
        change = self.change.to_dict() | {"networks": self.networks_hash} if self.change else None
        return {"precision": precision_name(self.precision), "bfloat16_change": change}


def way_to_predict(
    experiment: Experiment, cell: Cell, networks: list[TrainedNetwork], device: torch.device
) -> Way:
    """What [MAPPING] precision asks for, with what is known of these networks in bfloat16."""
    choice = experiment.settings.mapping.precision
    if choice == "auto" and device.type == "cpu":
        choice = "float32"
    found = weights_hash(*(trained.network for trained in networks))
    way = Way(device, precision_of(choice, device), found)
    if way.wanted == torch.float32:
        return way
    change = _known_change(experiment, cell, networks, found)
    if change is None and experiment.options.mode == "predict":
        warn(
            f"{cell.name}: these networks were not compared in bfloat16 and float32 (-m test does it on "
            "validation); float32 is used."
        )
    return replace(way, change=change)


def _known_change(
    experiment: Experiment, cell: Cell, networks: list[TrainedNetwork], found: str
) -> PrecisionChange | None:
    """What an earlier test of the same weights, or who exported them, found."""
    told = networks[0].record.get("bfloat16_change")
    if told is None:
        metrics = read_metrics(experiment, cell, "validation") or {}
        told = metrics.get("bfloat16_change")
    if not told or told["networks"] != found:
        return None
    return PrecisionChange(told["n"], told["largest_years"], told["mean_years"])
