"""Which way is taken, with steps whose results and times are made up."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from BrainAgeNetworks.fused import choosing


class Scaled(nn.Module):
    """One weight; the fused way multiplies its output by `error`, or fails."""

    def __init__(self, error: float = 1.0, failure: Exception | None = None):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0]))
        self.register_buffer("n_batches", torch.zeros(()))
        self.dropout = nn.Dropout(0.5)
        self.error, self.failure, self.way = error, failure, "plain"

    def forward(self, volumes):
        self.n_batches += 1
        if self.way == "fused" and self.failure is not None:
            raise self.failure
        outputs = self.dropout(volumes).mean(dim=(1, 2, 3, 4))[:, None] * self.weight
        return outputs * self.error if self.way == "fused" else outputs


def set_way(network, way):
    network.way = way
    return network


@pytest.fixture(autouse=True)
def gpu_that_is_none(monkeypatch):
    monkeypatch.setattr(choosing, "available", lambda: (True, ""))
    monkeypatch.setattr(choosing, "set_blocks", set_way)


def choose(network, plain_ms=3.0, fused_ms=2.0, autocast=None):
    """`choose_blocks` with times that are given, by the way that a step took."""
    ways = []

    def time_of(step):
        step()
        ms = (plain_ms, fused_ms)[len(ways) % 2] + (100 if len(ways) < 4 else 0)  # warm-up
        ways.append(ms)
        return ms

    volumes = torch.rand(4, 1, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    return choosing.choose_blocks(
        network, volumes, torch.zeros(4), lambda outputs, ages: (outputs[:, 0] - ages).square().mean(),
        autocast, time_of,
    )  # fmt: skip


def test_the_faster_of_two_that_agree():
    choice = choose(Scaled(1 + 1e-4))
    assert (choice.way, choice.plain_ms, choice.fused_ms) == ("fused", 3.0, 2.0)
    assert choice.reason == (
        "blocks: fused, the faster: a step of 2.0 ms fused, 3.0 ms plain "
        "(output and gradients 1.0e-04 and 2.0e-04 from float32, plain 0.0e+00 and 0.0e+00)."
    )
    assert choose(Scaled(), 2.0, 3.0).way == "plain"


@pytest.mark.parametrize("error", [1.01, float("nan")])
def test_a_wrong_result_is_refused(error):
    choice = choose(Scaled(error))
    assert choice.way == "plain"
    assert "too far off" in choice.reason


def test_bf16_measures_by_its_own_rounding():
    """A product in bf16 is off by up to 2^-9; the fused way may be as far and half as much again."""

    class Multiplied(Scaled):
        def forward(self, volumes):
            outputs = super().forward(volumes)
            return (outputs @ torch.full((1, 1), 1 + 2**-8 * 0.9)).float()

    assert choose(Multiplied(1 + 2e-3), autocast=None).way == "plain"
    assert choose(Multiplied(1 + 2e-3), autocast=torch.bfloat16).way == "fused"


def test_a_failing_compiler_is_named():
    choice = choose(Scaled(failure=RuntimeError("out of registers\nmore")))
    assert choice.way == "plain"
    assert "fail here (RuntimeError: out of registers)" in choice.reason


@pytest.mark.parametrize(
    ("times", "way", "words"),
    [
        ((math.inf, 2.0), "fused", "does not fit the GPU's memory otherwise"),
        ((3.0, math.inf), "plain", "does not fit the GPU's memory fused"),
        ((math.inf, math.inf), "plain", "in neither way"),
    ],
)
def test_out_of_memory(times, way, words, monkeypatch):
    def time_of(step):
        step()
        ms = times[("plain", "fused").index(last[-1])]
        if math.isinf(ms):
            raise torch.OutOfMemoryError("made up")
        return ms

    last = []
    monkeypatch.setattr(
        choosing, "set_blocks", lambda network, way: (last.append(way), set_way(network, way))[1]
    )
    choice = choosing.choose_blocks(
        Scaled(), torch.rand(4, 1, 3, 3, 3), torch.zeros(4),
        lambda outputs, ages: outputs.square().mean(), None, time_of,
    )  # fmt: skip
    assert choice.way == way
    assert words in choice.reason


def test_nothing_is_left_behind():
    network = Scaled()
    state = torch.get_rng_state()
    before = torch.backends.cudnn.conv.fp32_precision
    choose(network)
    assert network.n_batches == 0
    assert network.weight.grad is None
    assert network.way == "plain"
    assert torch.get_rng_state().equal(state)
    assert torch.backends.cudnn.conv.fp32_precision == before


def test_without_kernels_the_reason_is_passed_on(monkeypatch):
    monkeypatch.setattr(choosing, "available", lambda: (False, "no Triton."))
    assert choose(Scaled()) == choosing.BlockChoice("plain", "no Triton.")
