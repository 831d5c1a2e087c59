"""Trained networks of a cell, loaded with what travelled with their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from BrainAgeNetworks.checkpoints import load_checkpoint
from BrainAgeNetworks.registry import NetworkPlan, build_network
from BrainAgeNetworks.targets import Target, target_from_dict
from datasets.contrasts import described_contrast
from utils.common.errors import UserError
from utils.common.messages import warn
from utils.common.paths import CellPaths
from utils.experiment.experiment import Cell
from utils.experiment.training import collapsed


@dataclass(frozen=True)
class TrainedNetwork:
    """One network with its target and the record of its training."""

    number: int
    network: torch.nn.Module
    target: Target
    record: dict[str, Any]

    @classmethod
    def of(cls, weights: dict[str, torch.Tensor], record: dict[str, Any]) -> TrainedNetwork:
        """The network that a record describes, with these weights."""
        network = build_network(NetworkPlan.from_dict(record["network_plan"]))
        network.load_state_dict(weights)
        return cls(record["number"], network, target_from_dict(record["target"]), record)

    @property
    def collapsed(self) -> bool:
        """No better on validation than the mean age of training."""
        return collapsed(
            self.record["validation_mae_years"], self.record["validation_null_mae_years"]
        )


def load_trained(cell: Cell, paths: CellPaths) -> list[TrainedNetwork]:
    """The best checkpoints of a cell's networks.

    Raises
    ------
    UserError
        None is there, one is damaged, or they were trained for another contrast, sex, grid or scaling.
    """
    found = paths.networks()
    without_best = paths.networks_without_best()
    if not found:
        raise UserError(
            f"{paths.folder}: no trained network; run -m train first."
            if not without_best
            else f"{paths.folder}: none of its networks has a best checkpoint: they diverged. Train again "
            "with a lower learning_rate."
        )
    if without_best:
        names = ", ".join(network_paths.folder.name for network_paths in without_best)
        warn(f"{paths.folder}: {names} diverged, has no best checkpoint and is not used.")
    networks = []
    for network_paths in found:
        record = load_checkpoint(network_paths.best)
        refuse_mismatch(record, cell, str(network_paths.best))
        weights, average = record.pop("weights"), record.pop("average", None)
        record.pop("optimiser")
        networks.append(TrainedNetwork.of(average["weights"] if average else weights, record))
    _refuse_mixture(networks, paths)
    return networks


def _refuse_mixture(networks: list[TrainedNetwork], paths: CellPaths) -> None:
    """Refuse networks of one cell that were trained on differently read volumes; warn of other subjects."""
    first = networks[0].record
    for other in (trained.record for trained in networks[1:]):
        read, differently = (_how_read(record) for record in (first, other))
        differences = [
            f"{key} {read[key]} and {differently[key]}"
            for key in read
            if read[key] != differently[key]
        ]
        if differences:
            raise UserError(
                f"{paths.folder}: networks {first['number']} and {other['number']} were trained on volumes read "
                f"with {'; '.join(differences)}. Train them anew together (-c 0 --yes)."
            )
        if other["training_subjects_hash"] != first["training_subjects_hash"]:
            warn(
                f"{paths.folder}: networks {first['number']} and {other['number']} were trained on different "
                "subjects."
            )


def _how_read(record: dict[str, Any]) -> dict[str, Any]:
    """All that decides what a volume looks like to a network."""
    contrast = _without_place(described_contrast(record["contrast"]))
    return contrast | {"conform": record["conform"]}


def _without_place(contrast: dict[str, Any]) -> dict[str, Any]:
    """A described contrast without where its file lies, which is each cohort's own."""
    return {k: value for k, value in contrast.items() if k not in ("data_file", "volume_index")}


def refuse_mismatch(record: dict[str, Any], cell: Cell, path: str) -> None:
    """Refuse networks that were trained for another contrast, sex, grid or scaling; every difference is named."""
    described = described_contrast(record["contrast"]), cell.contrast.describe()
    trained, wanted = map(_without_place, described)
    problems = []
    if record["sex"] != cell.sex:
        problems.append(f"trained on {record['sex']}, used for {cell.sex}")
    if cell.contrast.scale_factor is None or record["scale_factor_is_auto"]:
        trained.pop("scale_factor"), wanted.pop("scale_factor")  # frozen with the weights
        if (cell.contrast.scale_factor is None) != record["scale_factor_is_auto"]:
            problems.append("scale_factor is auto on one side only")
    problems += [
        f"{key} was {trained[key]} in training and is {wanted[key]}"
        for key in wanted
        if trained.get(key) != wanted[key]
    ]
    if problems:
        raise UserError(
            f"{path}: does not fit {cell.name}: {'; '.join(problems)}. Use the contrast table and "
            "sexes of the trained experiment."
        )


def averaged_networks(networks: list[TrainedNetwork]) -> dict[int, bool]:
    """Number -> whether a network enters the mean: it did not collapse, or all of them did."""
    if all(trained.collapsed for trained in networks):
        return {trained.number: True for trained in networks}
    return {trained.number: not trained.collapsed for trained in networks}
