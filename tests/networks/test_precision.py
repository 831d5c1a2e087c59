"""In which precision convolutions are computed, and that cuDNN stays on where float32 is meant."""

from __future__ import annotations

import pytest
import torch

from BrainAgeNetworks.precision import computing_in, exact_convolutions, precision_of

CPU = torch.device("cpu")


@pytest.mark.parametrize("fast", [True, False])
def test_auto_is_bfloat16_where_the_processor_multiplies_it(monkeypatch, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": fast})
    assert precision_of("auto", CPU) == (torch.bfloat16 if fast else torch.float32)
    assert precision_of("float32", CPU) == torch.float32
    assert precision_of("bfloat16", CPU) == torch.bfloat16


def test_only_the_block_is_in_bfloat16():
    layer, values = torch.nn.Conv3d(1, 2, 3), torch.rand(1, 1, 4, 4, 4)
    with computing_in(torch.bfloat16, CPU):
        assert layer(values).dtype == torch.bfloat16
    with computing_in(torch.float32, CPU):
        assert layer(values).dtype == torch.float32
    assert layer.weight.dtype == torch.float32


def test_exact_convolutions_switch_off_tf32_and_nothing_else():
    cudnn = torch.backends.cudnn
    before = (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.conv.fp32_precision)
    with exact_convolutions():
        assert (cudnn.enabled, cudnn.benchmark, cudnn.deterministic) == before[:3]
        assert cudnn.conv.fp32_precision == "ieee"
    assert cudnn.conv.fp32_precision == before[3]
