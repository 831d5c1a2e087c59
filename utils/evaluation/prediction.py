"""Trained networks and volumes -> predicted ages."""

from __future__ import annotations

import numpy as np
import torch

from BrainAgeNetworks.folding import folded
from BrainAgeNetworks.precision import exact_convolutions
from BrainAgeNetworks.targets import Target
from datasets.device_batches import on_device
from datasets.loaders import CellVolumes, evaluation_epoch
from utils.common.messages import progress


@torch.inference_mode()
def predict_years(
    networks: list[tuple[torch.nn.Module, Target]],
    volumes: CellVolumes,
    batch_size: int,
    device: torch.device,
    n_workers: int = 0,
    precision: torch.dtype = torch.float32,
) -> np.ndarray:
    """(S, K) predicted ages in years of S subjects by K networks; NaN where a volume failed.

    Each volume is read once for all networks; why one failed stands in `volumes.failures`. Batch-norm is
    folded into the convolutions, which are computed in `precision`.
    """
    predicted = np.full((len(volumes), len(networks)), np.nan)
    quick = [folded(network, precision).to(device) for network, _ in networks]
    epoch = evaluation_epoch(volumes, batch_size)
    batches = progress(
        on_device(epoch, device, n_workers), len(epoch.groups), "predicting", "batch"
    )
    with exact_convolutions():
        for batch in batches:
            for k, (network, (_, target)) in enumerate(zip(quick, networks)):
                years = target.years(network(batch.volumes))
                predicted[batch.positions.numpy(), k] = years.double().cpu()
    return predicted
