"""AgeMapper: five pooled convolutions and three fully connected layers.

Roibu et al. 2023, 10th IEEE Swiss Conference on Data Science, doi 10.1109/SDS57534.2023.00010.
Origin: the published release (BSD-3-Clause); names of layers are the published ones, so that its state
dicts fit. Change: the width of the first Linear follows from the input box, where the release has
5 x 6 x 5 written in.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import nn

from BrainAgeNetworks.blocks import blocks, checked_poolings, doubled, in_float32, pooled_box
from BrainAgeNetworks.registry import NetworkPlan, register

PUBLISHED_WIDTHS = (32, 64, 64, 64, 64)
HIDDEN_WIDTHS = (96, 32)


class AgeMapper(nn.Module):
    """(B, 1, X, Y, Z) -> (B, n_outputs); 1,313,345 parameters at 160 x 192 x 160 with one output."""

    def __init__(self, plan: NetworkPlan):
        super().__init__()
        widths = plan.widths or PUBLISHED_WIDTHS
        n_poolings = checked_poolings(plan.n_poolings, len(widths))
        self.Upsample = doubled(plan.upsample)
        self.Feature_Extractor = nn.Sequential()
        for i, block in enumerate(blocks(widths, n_poolings, bias=False)):
            self.Feature_Extractor.add_module(f"Convolution_{i}", block)
        n_features = math.prod(pooled_box(plan.first_box, n_poolings)) * widths[-1]
        sizes = (n_features, *HIDDEN_WIDTHS, plan.n_outputs)
        self.FullyConnected = nn.Sequential()
        for number, (n_in, n_out) in zip((3, 2, 1), itertools.pairwise(sizes)):
            rate = plan.dropout_rates[3 - number]
            if rate > 0:
                self.FullyConnected.add_module(f"Dropout_FullyConnected_{number}", nn.Dropout(rate))
            self.FullyConnected.add_module(f"FullyConnected_{number}", nn.Linear(n_in, n_out))
            if number > 1:
                self.FullyConnected.add_module(f"ReluActivation_{number}", nn.ReLU())

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        features = self.Feature_Extractor(self.Upsample(volumes))
        return in_float32(self.FullyConnected, features.flatten(start_dim=1))


register("agemapper")(AgeMapper)
