"""Whether the machine can do it: torch and its faults, device, memory, disk, cores. torch is imported inside."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from utils.common.cores import n_cores
from utils.common.errors import UserError
from utils.common.free_memory import free_memory_bytes
from utils.experiment.caches import cache_of, cache_root
from utils.experiment.checks.findings import Finding, Level
from utils.experiment.experiment import Cell, Experiment

BYTES_PER_GB = 1e9
# pytorch#166122 (four times slower), #166643 (three times the memory), #163539 (a wrong result).
TORCH_WITH_FAULTY_CONV3D = re.compile(r"2\.9\.")
# Beside weights and activations: cuDNN's workspace, the allocator's rounding, the CUDA context.
GPU_OVERHEAD = 1.3
# Adam keeps two values a weight; a checkpoint holds the weights with them.
VALUES_A_WEIGHT_KEPT = 3
VALUES_A_WEIGHT_IN_MEMORY = 4  # and its gradient
# Those being read ahead, the one that is computed with, and the one before it.
N_BATCHES_IN_MEMORY = 4
TYPICAL_AGE_YEARS = 60.0  # only sets where a network would start


@dataclass(frozen=True)
class NetworkSize:
    """One network of a cell."""

    n_parameters: int
    bytes_a_step: int  # at its worst moment, without weights, gradients and optimiser


def check_machine(
    experiment: Experiment, subjects: pd.DataFrame, training: bool = True
) -> list[Finding]:
    """Everything about the machine, and what the training of the largest networks would need of it."""
    findings = [*_torch(), *_cores(experiment)]
    device = _device(experiment, findings)
    sizes = _sizes(experiment, findings, device, with_activations=True) if training else {}
    if sizes:
        findings += _memory(experiment, subjects, device, sizes)
        findings += _disk(experiment, sizes)
    return findings


def check_machine_quickly(experiment: Experiment) -> list[Finding]:
    """The same without what a batch needs, which takes torch some seconds to work out."""
    findings = [*_torch(), *_cores(experiment)]
    sizes = _sizes(experiment, findings, _device(experiment, []), with_activations=False)
    return [*findings, *(_disk(experiment, sizes) if sizes else ())]


def _torch() -> Iterator[Finding]:
    import torch

    version = torch.__version__
    if TORCH_WITH_FAULTY_CONV3D.match(version):
        yield _finding(
            "warning",
            f"torch {version} has a faulty Conv3d: with bf16 or AMP it is four times slower, takes three times "
            "the memory, and a wrong result is reported (pytorch issues 166122, 166643, 163539)",
            "Install torch 2.10 or later, or 2.8 or earlier",
        )
    yield _finding("note", f"torch {version}, {_cudnn()}")


def _cudnn() -> str:
    import torch

    if not torch.cuda.is_available():
        return "no GPU that it can use"
    number = torch.backends.cudnn.version()
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return f"cuDNN {number or 'missing'}, {names}"


def _device(experiment: Experiment, findings: list[Finding]) -> Any:
    """The device of the run; one that is not there stops it."""
    import torch

    from utils.experiment.training import choose_device

    try:
        device = choose_device(experiment)
    except UserError as error:
        findings.append(_finding("error", str(error).rstrip(".")))
        return torch.device("cpu")
    if device.type == "cuda" and torch.backends.cudnn.version() is None:
        findings.append(
            _finding("warning", "torch has no cuDNN here: 3D convolutions will be slow",
                     "Install a build of torch with cuDNN")
        )  # fmt: skip
    return device


def _cores(experiment: Experiment) -> Iterator[Finding]:
    n_here, n_workers = n_cores(), experiment.settings.data.num_workers
    if n_workers > max(n_here, 2):
        yield _finding(
            "warning", f"num_workers = {n_workers}, and this process may use {n_here} core(s)",
            "Lower [DATA] num_workers, or ask the scheduler for more cores",
        )  # fmt: skip
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > n_here:
        yield _finding(
            "warning", f"OMP_NUM_THREADS = {asked}, and this process may use {n_here} core(s)",
            "Lower it: more threads than cores wait for each other",
        )  # fmt: skip


def _sizes(
    experiment: Experiment, findings: list[Finding], device: Any, with_activations: bool
) -> dict[str, NetworkSize]:
    """Cell -> size of its networks; an architecture that cannot be built stops the run."""
    from utils.experiment.training import member_plan

    sizes: dict[str, NetworkSize] = {}
    by_box: dict[Any, NetworkSize] = {}
    for cell in experiment.cells:
        try:
            plan = member_plan(experiment, cell, TYPICAL_AGE_YEARS, device)
            if plan.network not in by_box:
                by_box[plan.network] = network_size(experiment, plan, with_activations)
            sizes[cell.name] = by_box[plan.network]
        except UserError as error:
            said = str(error).rstrip(".")
            findings.append(Finding("error", "settings", said, contrast=cell.contrast.name))
    return sizes


def network_size(experiment: Experiment, plan: Any, with_activations: bool = True) -> NetworkSize:
    """Parameters of a network (`MemberPlan`), and bytes of a step, which is rehearsed without being computed."""
    from BrainAgeNetworks.peak_memory import bytes_for_backward, state_bytes
    from BrainAgeNetworks.precision import precision_of
    from BrainAgeNetworks.registry import count_parameters

    network, n_bytes = plan.build_network(), 0
    if with_activations:
        training = experiment.settings.training
        part = -(-training.training_batch_size // training.accumulation_steps)
        precision = precision_of(training.precision, plan.device)
        n_bytes = bytes_for_backward(network, plan.network.box, part, precision)
        n_bytes -= state_bytes(network)
    return NetworkSize(count_parameters(network), n_bytes)


def _memory(
    experiment: Experiment, subjects: pd.DataFrame, device: Any, sizes: dict[str, NetworkSize]
) -> Iterator[Finding]:
    """Memory of the device for a training step, and of the machine for the volumes of a cell."""
    from utils.training.side_by_side import SMALL_BATCH_VOXELS

    cell = max(experiment.cells, key=lambda c: math.prod(c.contrast.box) * (c.name in sizes))
    size, training = sizes[cell.name], experiment.settings.training
    batch, box_bytes = training.training_batch_size, 4 * math.prod(cell.contrast.box)
    weights = training.ensemble_size * 4 * VALUES_A_WEIGHT_IN_MEMORY * size.n_parameters
    is_small = batch * box_bytes <= 4 * SMALL_BATCH_VOXELS
    at_once = training.ensemble_size if is_small else 1
    kept = _kept_bytes(experiment, subjects, cell, box_bytes)
    volumes = "volumes kept in memory" if kept else "volumes read ahead"
    kept = kept or batch * box_bytes * N_BATCHES_IN_MEMORY
    on_gpu = device.type == "cuda"
    needed = weights + size.bytes_a_step * (GPU_OVERHEAD if on_gpu else at_once)
    free = _free_gpu_bytes(device) if on_gpu else free_memory_bytes()
    where = "GPU memory" if on_gpu else "memory"
    said = f"{cell.name}: {training.ensemble_size} networks of {size.n_parameters:,} parameters, batches of {batch}"
    if on_gpu:
        yield from _space(said, where, needed, free, "Lower training_batch_size")
        yield from _space(f"{cell.name}: {volumes}", "memory", kept, free_memory_bytes(),
                          "Lower memory_gb")  # fmt: skip
    else:
        remedy = "Lower memory_gb, training_batch_size or [NETWORK] widths"
        yield from _space(f"{said}, {volumes}", where, needed + kept, free, remedy)


def _kept_bytes(
    experiment: Experiment, subjects: pd.DataFrame, cell: Cell, box_bytes: int
) -> float:
    """Bytes of the volumes that training keeps: those not prepared, if they fit into memory_gb."""
    chosen = subjects["split"].isin(("train", "validation"))
    if cell.sex != "both":
        chosen &= subjects["sex"] == cell.sex
    wanted = float(_n_unprepared(experiment, cell, subjects.loc[chosen, "subject_id"])) * box_bytes
    return wanted if wanted <= experiment.settings.data.memory_gb * BYTES_PER_GB else 0.0


def _n_unprepared(experiment: Experiment, cell: Cell, subject_ids: pd.Series) -> int:
    """How many of these subjects' volumes are not in the cache."""
    root = cache_root(experiment)
    try:
        cache = cache_of(experiment, root, cell.contrast) if root else None
    except UserError:  # a damaged index: training says so
        return len(subject_ids)
    if cache is None:
        return len(subject_ids)
    paths = (experiment.volume_path(cell.contrast, subject_id) for subject_id in subject_ids)
    return sum(cache.entry(path) is None for path in paths)


def _space(
    said: str, where: str, needed: float, free: float | None, remedy: str
) -> Iterator[Finding]:
    """What is needed; a warning where less is free. What is free changes, so a note does not say it."""
    text = f"{said}: about {needed / BYTES_PER_GB:.2g} GB of {where}"
    if free is not None and needed > free:
        yield _finding("warning", f"{text}, and {free / BYTES_PER_GB:.2g} GB are free", remedy)
    else:
        yield _finding("note", text)


def _free_gpu_bytes(device: Any) -> float | None:
    import torch

    try:
        return float(torch.cuda.mem_get_info(device)[0])
    except RuntimeError:
        return None


def _disk(experiment: Experiment, sizes: dict[str, NetworkSize]) -> Iterator[Finding]:
    """Disk for the checkpoints that this run keeps."""
    training = experiment.settings.training
    # best, last, and the one before
    n_kept = 3 + (experiment.n_epochs // training.keep_every if training.keep_every else 0)
    n_values = sum(size.n_parameters for size in sizes.values()) * VALUES_A_WEIGHT_KEPT
    needed = 4.0 * n_values * n_kept * training.ensemble_size
    folder = experiment.paths.root
    while not folder.exists():
        folder = folder.parent
    said = f"checkpoints of {len(sizes)} cell(s), {n_kept} a network, in {experiment.paths.root}"
    remedy = "Free space, or keep fewer (keep_every)" if training.keep_every else "Free space"
    yield from _space(said, "disk", needed, float(shutil.disk_usage(folder).free), remedy)


def _finding(level: Level, reason: str, remedy: str = "") -> Finding:
    return Finding(level, "machine", reason, remedy)
