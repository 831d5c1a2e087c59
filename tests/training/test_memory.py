"""Steps that do not fit: counted memory against measured, and what is said about it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from BrainAgeNetworks import peak_memory
from BrainAgeNetworks.peak_memory import bytes_for_backward, bytes_needed, largest_batch
from BrainAgeNetworks.recomputing import recompute
from BrainAgeNetworks.registry import NetworkPlan, build_network
from utils.common import free_memory
from utils.training import memory
from utils.training.memory import free_bytes, is_out_of_memory, out_of_memory_message

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
BOX = (64, 64, 64)

PEAK = """
import torch
from BrainAgeNetworks.recomputing import recompute
from BrainAgeNetworks.registry import NetworkPlan, build_network
import BrainAgeNetworks

def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

def step(network, optimiser, volumes):
    network(volumes).square().mean().backward()
    optimiser.step()
    optimiser.zero_grad()

def made(box, form):
    network = form(build_network(NetworkPlan("agemapper", box)))
    return network, torch.optim.Adam(network.parameters(), fused=True)

torch.set_num_threads(1)
for form in (recompute, lambda network: network):  # the peak only grows
    step(*made((32, 32, 32), form), torch.zeros(2, 1, 32, 32, 32))  # what torch needs for itself
    before = status("VmRSS")
    step(*made((64, 64, 64), form), torch.zeros(4, 1, 64, 64, 64))
    print(status("VmHWM") - before)
"""

LIMITED = """
import resource, torch
from BrainAgeNetworks.registry import NetworkPlan, build_network
from BrainAgeNetworks.peak_memory import bytes_for_backward
from utils.training.memory import is_out_of_memory, out_of_memory_message
import BrainAgeNetworks

BOX = (48, 48, 48)
torch.set_num_threads(1)
network = build_network(NetworkPlan("agemapper", BOX))

def step(n):
    network(torch.zeros(n, 1, *BOX)).square().mean().backward()

step(2)
bytes_for_backward(network, BOX, 2)  # what the imports of the rehearsal take
n_pages = int(open("/proc/self/statm").read().split()[0])
limit = n_pages * resource.getpagesize() + 600_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    step(24)
except Exception as error:
    assert is_out_of_memory(error), error
    said = out_of_memory_message(network, BOX, 24, torch.device("cpu"), recomputing=True, error=error)
print(said)
step(int(said.split("training_batch_size = ")[1].split(";")[0]))
"""


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def network(box=BOX) -> nn.Module:
    return build_network(NetworkPlan("agemapper", box))


def test_a_weight_and_a_sigmoid_by_hand():
    """s = sigmoid(w v), loss = mean(s^2); n values of v, which no convolution rearranges."""

    class Weighted(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, volumes):
            return (volumes * self.weight).sigmoid()

    n = 100 * 1000
    # at its worst, in the square's backward: v, s, the mean's gradient g, s^1, 2 s^1, and g 2 s^1
    counted = bytes_for_backward(Weighted(), (10, 10, 10), 100)
    assert counted == pytest.approx(4 * 6 * n, rel=1e-3)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
def test_counted_memory_is_what_a_step_takes():
    for form, measured in zip((recompute, lambda plain: plain), map(int, run(PEAK).split())):
        counted = bytes_for_backward(form(network()), BOX, 4)
        assert 0.7 * counted < measured < bytes_needed(counted), (measured, counted)


def test_the_network_is_not_touched():
    own = network()
    before = {name: value.clone() for name, value in own.state_dict().items()}
    own.eval()
    bytes_for_backward(own, BOX, 2, torch.bfloat16)
    assert not own.training and all(p.grad is None for p in own.parameters())
    for name, value in own.state_dict().items():
        assert value.device == CPU and torch.equal(value, before[name])


def test_half_precision_takes_little_more_than_half():
    single, half = (
        bytes_for_backward(network(), BOX, 8, dtype) for dtype in (torch.float32, torch.bfloat16)
    )
    assert 0.5 < half / single < 0.6  # max-pooling's positions are int64 in both


@pytest.mark.parametrize("gigabytes", [0.5, 1.0, 3.0])
def test_the_largest_batch_fits_and_the_next_does_not(gigabytes):
    free = int(gigabytes * 1e9)
    found = largest_batch(network(), BOX, free, 1000)
    assert bytes_needed(bytes_for_backward(network(), BOX, found)) <= free
    assert bytes_needed(bytes_for_backward(network(), BOX, found + 1)) > free
    assert largest_batch(network(), BOX, free, found - 1) == found - 1
    assert largest_batch(network(), BOX, 1000, 12) == 0


def test_which_errors_are_of_memory():
    with pytest.raises(RuntimeError) as torch_on_cpu:
        torch.empty(2**52)
    with pytest.raises(MemoryError) as numpy_on_cpu:
        np.empty(2**52)
    assert is_out_of_memory(torch_on_cpu.value) and is_out_of_memory(numpy_on_cpu.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("can't allocate memory"))


def test_a_step_that_failed_is_told_a_batch_that_works():
    said = run(LIMITED)
    found = re.search(
        r"a training step on 24 volumes of 48 x 48 x 48 voxels does not fit into the memory of the "
        r"machine \((\d\.\d) GB are free for it\)\. (\d+) would fit: set \[TRAINING\] "
        r"training_batch_size = \2; or accumulation_steps = (\d+), with which ",
        said,
    )
    assert found, said
    fits, steps = int(found[2]), int(found[3])
    assert 2 <= fits < 24 <= fits * steps < 24 + fits


@pytest.mark.parametrize(
    ("free", "recomputing", "expected"),
    [
        (10_000_000, False, r"Not even 2 would fit: take a machine .* smaller crop\.$"),
        (700_000_000, False, r"\. \d would fit: set .*; or set .* with which 12 would fit\.$"),
        (700_000_000, True, r"\. \d would fit: set .* at a time\)\.$"),
        (None, False, r"Set \[TRAINING\] training_batch_size to a smaller value, .* larger one\.$"),
        (10**12, True, r"\. 11 would fit: .* accumulation_steps = 2, .*at a time\)\.$"),
    ],
)
def test_ways_out(monkeypatch, free, recomputing, expected):
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    said = out_of_memory_message(network(), BOX, 12, CPU, recomputing=recomputing)
    assert re.search(expected, said), said


def test_free_memory_is_read_where_the_system_says_it(monkeypatch, tmp_path):
    assert free_bytes(CPU) > 0
    monkeypatch.setattr(free_memory, "MEMINFO", tmp_path / "none")
    monkeypatch.setattr(free_memory, "STATM", tmp_path / "none")
    assert free_bytes(CPU) is None
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   512 kB\n")
    monkeypatch.setattr(free_memory, "MEMINFO", tmp_path / "meminfo")
    assert free_bytes(CPU) == 512 * 1024


def test_storages_are_counted_once_and_given_back():
    with peak_memory._counted_storages() as most:
        whole = torch.empty(1000, device="meta")
        views = [whole[:500], whole.view(10, 100)]
        assert most() == 4000
        del whole, views
        for _ in range(5):
            torch.empty(1000, device="meta")
        assert most() == 4000
