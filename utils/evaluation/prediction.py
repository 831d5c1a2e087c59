"""Trained networks and volumes -> predicted ages."""

from __future__ import annotations

import numpy as np
import torch

from BrainAgeNetworks.targets import Target
from datasets.loaders import CellVolumes, evaluation_batches
from utils.common.messages import progress


@torch.inference_mode()
def predict_years(
    networks: list[tuple[torch.nn.Module, Target]],
    volumes: CellVolumes,
    batch_size: int,
    device: torch.device,
    n_workers: int = 0,
) -> np.ndarray:
    """(S, K) predicted ages in years of S subjects by K networks; NaN where a volume failed.

    Each volume is read once for all networks; why one failed stands in `volumes.failures`.
    """
    predicted = np.full((len(volumes), len(networks)), np.nan)
    for network, _ in networks:
        network.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        network.eval()
    n_batches = -(-len(volumes) // batch_size)
    batches = evaluation_batches(volumes, batch_size, n_workers)
    for batch in progress(batches, n_batches, "predicting", "batch"):
        inputs = batch.volumes.to(device)
        for k, (network, target) in enumerate(networks):
            predicted[batch.positions.numpy(), k] = target.years(network(inputs)).double().cpu()
    return predicted
