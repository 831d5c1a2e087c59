"""Networks that `-m export` wrote, here or elsewhere, ready to predict with."""

from __future__ import annotations

from pathlib import Path

import torch

from BrainAgeNetworks.exported import read_exported_network
from utils.common.errors import UserError
from utils.common.messages import warn
from utils.common.model_cards import Export, file_entry
from utils.common.randomness import generator
from utils.experiment.experiment import Cell, Experiment
from utils.experiment.exported_contrasts import exports_of
from utils.experiment.trained import TrainedNetwork, load_trained, refuse_mismatch


def networks_of(experiment: Experiment, cell: Cell) -> tuple[str, list[TrainedNetwork]]:
    """Whose networks a cell is predicted with, and these: of this or another experiment, or exported ones."""
    mapping = experiment.settings.mapping
    if mapping.exported:
        networks = load_exported(
            cell, exports_of(experiment.settings).of(cell.contrast.name, cell.sex)
        )
        return f"{networks[0].record['experiment']} (exported)", networks
    trained_in = mapping.experiment_name or experiment.settings.name
    return trained_in, load_trained(cell, experiment.paths_of(trained_in).cell(cell.name))


def load_exported(cell: Cell, export: Export) -> list[TrainedNetwork]:
    """The networks of an export.

    Raises
    ------
    UserError
        A file is missing or damaged; or they were trained for another contrast, sex, grid or scaling.
    """
    networks = []
    for entry in export.card["networks"]:
        path = export.paths.network(entry["number"])
        weights, record = read_exported_network(path)
        refuse_mismatch(record, cell, str(path))
        networks.append(TrainedNetwork.of(weights, record))
    text = export.paths.text
    if not text.is_file() or file_entry(text) != export.card["files"][text.name]:
        warn(
            f"{text}: is missing, damaged or was changed; the networks are whole, and {export.paths.card.name} "
            "says the same."
        )
    return networks


@torch.inference_mode()
def refuse_other_outputs(
    original: list[TrainedNetwork], exported: list[TrainedNetwork], folder: Path
) -> None:
    """Two networks each: the same ages, to the last bit, for a volume of noise.

    Raises
    ------
    UserError
        A network gives another age than the one it was exported from.
    """
    box = exported[0].record["contrast"]["crop"]
    shape = [stop - start for start, stop in box]
    probe = torch.from_numpy(
        generator("export probe").random((1, 1, *shape), dtype="float32")
    ).contiguous(memory_format=torch.channels_last_3d)
    for before, after in zip(original, exported, strict=True):
        ages = []
        for trained in (before, after):
            network = trained.network.cpu().eval()
            network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
            ages.append(trained.target.years(network(probe)))
        if not torch.equal(*ages):
            raise UserError(
                f"{folder}: network {before.number} gives {ages[1].item():.6f} years for a volume of noise "
                f"and the one it was exported from {ages[0].item():.6f}; nothing was exported."
            )
