"""SFCN, the simple fully convolutional network.

Peng et al. 2021, Medical Image Analysis 68:101871, doi 10.1016/j.media.2020.101871. Origin: the authors'
release (MIT); names of layers are theirs. Changes: the average pool covers whatever box the poolings
leave (5 x 6 x 5 at 160 x 192 x 160), the output is flat, log-softmax is left to the target, so that the
same network also regresses years, and 2 mm volumes may be upsampled, as AgeMapper does.
"""

from __future__ import annotations

import torch
from torch import nn

from BrainAgeNetworks.blocks import (
    blocks,
    checked_poolings,
    doubled,
    in_float32,
    pooled_box,
    unpooled_block,
)
from BrainAgeNetworks.registry import NetworkPlan, register
from utils.common.errors import UserError

PUBLISHED_WIDTHS = (32, 64, 128, 256, 256, 64)


class WholeAverage(nn.AvgPool3d):
    """AvgPool3d over all that is left, (B, C, X, Y, Z) -> (B, C, 1, 1, 1), whose gradient repeats its bits on GPUs."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.mean((2, 3, 4), keepdim=True)


class SFCN(nn.Module):
    """(B, 1, X, Y, Z) -> (B, n_outputs); 2,952,936 parameters with 40 outputs."""

    def __init__(self, plan: NetworkPlan):
        super().__init__()
        widths = plan.widths or PUBLISHED_WIDTHS
        if len(widths) < 2:
            raise UserError(
                "[NETWORK] widths: sfcn needs at least two (the last is its 1x1x1 block)."
            )
        n_poolings = checked_poolings(plan.n_poolings, len(widths) - 1)
        self.upsample = doubled(plan.upsample)
        self.feature_extractor = nn.Sequential()
        for i, block in enumerate(blocks(widths[:-1], n_poolings, bias=True)):
            self.feature_extractor.add_module(f"conv_{i}", block)
        last = unpooled_block(widths[-2], widths[-1], bias=True, kernel_size=1)
        self.feature_extractor.add_module(f"conv_{len(widths) - 1}", last)
        box = pooled_box(plan.first_box, n_poolings)
        self.classifier = nn.Sequential()
        self.classifier.add_module("average_pool", WholeAverage(box))
        if plan.dropout_rates[0] > 0:
            self.classifier.add_module("dropout", nn.Dropout(plan.dropout_rates[0]))
        self.classifier.add_module(
            f"conv_{len(widths)}", nn.Conv3d(widths[-1], plan.n_outputs, kernel_size=1)
        )

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        features = self.feature_extractor(self.upsample(volumes))
        return in_float32(self.classifier, features).flatten(start_dim=1)


register("sfcn")(SFCN)
