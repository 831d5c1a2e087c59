"""Batch-norm over all processes is torch's batch-norm over all subjects at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from BrainAgeNetworks.registry import NetworkPlan, build_network
from BrainAgeNetworks.synchronised_norm import SynchronisedNorm, synchronise_norms
from tests.networks import synchronised_in_processes
from tests.networks.synchronised_in_processes import layer, run, steps

TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 2e-2}


@pytest.fixture(scope="module", params=[2, 3])
def by_processes(request, tmp_path_factory) -> tuple[int, Path]:
    """Their number, and what each of them found."""
    folder = tmp_path_factory.mktemp("norm")
    script = synchronised_in_processes.__file__
    words = ("-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={request.param}")
    ended = subprocess.run(
        [sys.executable, *words, script, str(folder)],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(script).parents[2]),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return request.param, folder


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_it_is_batch_norm_over_all_subjects(by_processes, dtype):
    n, folder = by_processes
    found = [torch.load(folder / f"{str(dtype)[6:]}_{index}.pt") for index in range(n)]
    # in one process no exchange is needed, and the layer's own forward is torch's
    whole = run(layer(dtype), steps(n, dtype))
    near = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype] * 10}
    for name in ("outputs", "to_volumes"):
        for step, expected in enumerate(whole[name]):
            joined = torch.cat([part[name][step] for part in found])
            torch.testing.assert_close(joined, expected, **near)
    for of_parts in zip(whole["to_weights"], *[part["to_weights"] for part in found]):
        torch.testing.assert_close(sum(of_parts[1:]), of_parts[0], **near)
    for part in found:
        assert part["state"].keys() == whole["state"].keys()
        for name, value in whole["state"].items():
            torch.testing.assert_close(part["state"][name], value, **near)
    joined = torch.cat([part["evaluated"] for part in found])
    torch.testing.assert_close(joined, whole["evaluated"], **near)


@pytest.mark.parametrize("network", ["agemapper", "sfcn"])
def test_a_network_keeps_its_parameters_buffers_and_names(network):
    built = build_network(NetworkPlan(network, (32, 32, 32), 1, (2, 3, 4)))
    before = dict(built.state_dict(keep_vars=True))
    layers = [name for name, layer in built.named_modules() if isinstance(layer, nn.BatchNorm3d)]
    built.eval()
    assert synchronise_norms(built) is built
    after = dict(built.state_dict(keep_vars=True))
    assert list(after) == list(before) and all(after[name] is before[name] for name in before)
    assert layers and all(type(built.get_submodule(name)) is SynchronisedNorm for name in layers)
    assert not any(module.training for module in built.modules())


def test_alone_it_is_plain_batch_norm():
    plain, norm = layer(torch.float32).train(), synchronise_norms(layer(torch.float32)).train()
    volumes = torch.randn(4, 4, 3, 2, 5)
    assert torch.equal(plain(volumes), norm(volumes))
    assert torch.equal(plain[0].running_var, norm[0].running_var)


def test_it_wants_volumes():
    with pytest.raises(ValueError, match="expected 5 axes, not 4"):
        SynchronisedNorm(4)(torch.zeros(2, 4, 3, 3))


def test_it_is_not_taken_for_a_layer_that_looks_at_one_process():
    assert not isinstance(SynchronisedNorm(4), nn.BatchNorm3d)
