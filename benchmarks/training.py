"""How fast do networks learn and predict? As published and as here, beside the least that it can cost.

Run from the repository root: python benchmarks/training.py [--device cuda] [--sizes half,demo] [--quick]

The published way is written here from plain torch modules: eager, float32, contiguous volumes, Adam, and a
loader that reads every file anew in every epoch. Ours is this program's, one change after the other, so that one
sees what each gives. Before anything is timed, all ways must give the published network's outputs and
gradients. In each round every way has its turn, in an order that rotates; a ratio is taken within a round, then
the median over rounds. On a CPU, ways that set the memory allocator run in a process of their own.

- Steps: a batch that is already on the device; training (forward, backward, update) and inference. On a GPU
  timed by CUDA events, on a CPU by the clock.
- Floor: the operations and bytes that BrainAgeNetworks/costs.py counts, everything fused, at the rates that a
  large matrix product (or convolution, if quicker) and a large copy reach in this very run, in the way's own
  precision. "limit" is what a way spends most of its counted time on: which layer, and whether by arithmetic or
  by bytes.
- Three: the three networks of an ensemble, a step each on the same batch, against one.
- Epochs: volumes of the largest of the sizes (quick, CPU: half), made here, in a temporary folder; a whole epoch each.

The machine is described by its processor's and GPU's models, nothing that names it.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import math
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from BrainAgeNetworks.blocks import set_blocks
from BrainAgeNetworks.costs import NetworkCost, Rates, count_costs
from BrainAgeNetworks.folding import folded
from BrainAgeNetworks.registry import NetworkPlan
from BrainAgeNetworks.targets import YearsTarget
from datasets.augmentation import AugmentationPlan
from datasets.cache.index import CacheKey
from datasets.cache.preparation import carry_out, plan_contrast
from datasets.cache.quantised import expanded, quantised_batches
from datasets.cache.reading import ContrastCache
from datasets.contrasts import Contrast
from datasets.loaders import CellVolumes, training_batches, training_epoch
from datasets.volumes import VolumeReader
from utils.common.allocator import tune_allocator
from utils.common.files import write_json
from utils.common.randomness import generator
from utils.training.member import MemberPlan
from utils.training.optimisation import OptimisationPlan
from utils.training.side_by_side import run_each

RESULTS = Path(__file__).with_name("results")
NETWORKS = ("agemapper", "sfcn")
# Network input; stored grid; start of the crop; voxel size, mm.
SIZES = {
    "full": ((160, 192, 160), (182, 218, 182), (10, 12, 0), 1.0),
    "half": ((80, 96, 80), (91, 109, 91), (5, 6, 0), 2.0),
    "demo": ((40, 48, 40), (46, 55, 46), (3, 3, 0), 4.0),
}
BATCH_SIZES = {
    "cuda": {"full": 12, "half": 12, "demo": 12},
    "cpu": {"full": 2, "half": 4, "demo": 8},
}
N_OUTPUTS = {"agemapper": 1, "sfcn": 40}
DROPOUT = {"agemapper": 0.0, "sfcn": 0.5}  # as published
LEARNING_RATE = 5e-3
N_WORKERS = 2
SHIFT_VOXELS = 2
# Largest difference from the published network's outputs and gradients, as a share of them (Euclidean norms).
TOLERANCES = {"float32": 1e-2, "tf32": 2e-1, "bfloat16": 6e-1}  # untrained, small: gradients cancel
# Shortest time that a rate is taken over.
RATE_SECONDS = 0.2
PUBLISHED = "published"
PACKAGES = ("torch", "numpy", "nibabel", "numba", "triton")


# ------------------------------------------------------------------------- the networks, as published


class PublishedAgeMapper(nn.Module):
    """Roibu et al. 2023, 10th IEEE Swiss Conference on Data Science; its names of layers."""

    def __init__(self, box: tuple[int, int, int], dropout: float):
        super().__init__()
        self.Feature_Extractor = nn.Sequential()
        widths = (1, 32, 64, 64, 64, 64)
        for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
            block = nn.Sequential(
                nn.Conv3d(n_in, n_out, 3, padding=1, bias=False),
                nn.BatchNorm3d(n_out),
                nn.MaxPool3d(2, 2),
                nn.ReLU(),
            )
            self.Feature_Extractor.add_module(f"Convolution_{i}", block)
        self.FullyConnected = nn.Sequential()
        self.FullyConnected.add_module(
            "FullyConnected_3", nn.Linear(64 * math.prod(s // 32 for s in box), 96)
        )
        self.FullyConnected.add_module("ReluActivation_3", nn.ReLU())
        self.FullyConnected.add_module("FullyConnected_2", nn.Linear(96, 32))
        self.FullyConnected.add_module("ReluActivation_2", nn.ReLU())
        self.FullyConnected.add_module("FullyConnected_1", nn.Linear(32, 1))

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        return self.FullyConnected(self.Feature_Extractor(volumes).flatten(1))


class PublishedSFCN(nn.Module):
    """Peng et al. 2021, Medical Image Analysis 68:101871; its names of layers."""

    def __init__(self, box: tuple[int, int, int], dropout: float):
        super().__init__()
        self.feature_extractor = nn.Sequential()
        widths = (1, 32, 64, 128, 256, 256)
        for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
            block = nn.Sequential(
                nn.Conv3d(n_in, n_out, 3, padding=1),
                nn.BatchNorm3d(n_out),
                nn.MaxPool3d(2, 2),
                nn.ReLU(),
            )
            self.feature_extractor.add_module(f"conv_{i}", block)
        self.feature_extractor.add_module(
            "conv_5", nn.Sequential(nn.Conv3d(256, 64, 1), nn.BatchNorm3d(64), nn.ReLU())
        )
        self.classifier = nn.Sequential()
        self.classifier.add_module("average_pool", nn.AvgPool3d([s // 32 for s in box]))
        self.classifier.add_module("dropout", nn.Dropout(dropout))
        self.classifier.add_module("conv_6", nn.Conv3d(64, 40, 1))

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.feature_extractor(volumes)).flatten(1)


def published_network(name: str, box: tuple[int, int, int], dropout: float) -> nn.Module:
    """The published network with fresh weights, contiguous, float32."""
    return {"agemapper": PublishedAgeMapper, "sfcn": PublishedSFCN}[name](box, dropout)


# ------------------------------------------------------------------------------------------------ ways


@dataclass(frozen=True)
class Way:
    """How a network is computed; what is not said is as published."""

    name: str
    ours: bool = False  # built by MemberPlan: channels_last_3d
    bfloat16: bool = False
    blocks: str = "plain"
    fused_optimiser: bool = False
    folded: bool = False  # batch-norm folded into convolutions; inference
    search: bool = False  # cuDNN tries its algorithms
    tf32: bool = True  # CUDA multiplies float32 in TF32, as torch's convolutions do by default
    allocator: bool = False

    @property
    def precision(self) -> str:
        """Key of `TOLERANCES` on a GPU."""
        return "bfloat16" if self.bfloat16 else "tf32" if self.tf32 else "float32"


def training_ways(device: str) -> list[Way]:
    """From the published way to ours, each with one change more."""
    first, ways = Way(PUBLISHED), []
    if device == "cuda":
        ways.append(Way("published, without TF32", tf32=False))
    chain: list[tuple[str, dict[str, Any]]] = [
        ("channels_last_3d", {"ours": True}),
        ("+ bf16", {"bfloat16": True}),
        ("+ fused blocks", {"blocks": "fused"}),
        ("+ fused optimiser", {"fused_optimiser": True}),
        ("+ cuDNN's search", {"search": True})
        if device == "cuda"
        else ("+ allocator", {"allocator": True}),
    ]
    return [first, *ways, *_chained(first, chain)]


def inference_ways(device: str) -> list[Way]:
    """The same for predictions; float32 first, since it stays the default."""
    first = Way(PUBLISHED)
    last = ("allocator", {"allocator": True})
    if device == "cuda":
        last = ("cuDNN's search", {"search": True})
    in_float32 = _chained(
        first,
        [
            ("channels_last_3d", {"ours": True}),
            ("+ folded", {"folded": True}),
            (f"+ {last[0]}", last[1]),
        ],
    )
    return [first, *in_float32, replace(in_float32[-1], name="+ bf16", bfloat16=True)]


def _chained(first: Way, changes: list[tuple[str, dict[str, Any]]]) -> list[Way]:
    ways = [first]
    for name, change in changes:
        ways.append(replace(ways[-1], name=name, **change))
    return ways[1:]


@dataclass(frozen=True)
class Job:
    """What is measured: a way of computing a network on batches of a size."""

    network: str
    size: str
    batch_size: int
    way: Way
    training: bool
    n_networks: int = 1
    dropout: bool = True

    @property
    def box(self) -> tuple[int, int, int]:
        """Network input."""
        return SIZES[self.size][0]


@dataclass(frozen=True)
class Learner:
    """A network with its optimiser."""

    network: nn.Module
    optimiser: torch.optim.Optimizer


def built(job: Job, device: torch.device, seed: int = 1) -> Learner:
    """A network in the way's form, with the published network's weights drawn from `seed`."""
    dropout = DROPOUT[job.network] if job.dropout else 0.0
    torch.manual_seed(seed)
    published = published_network(job.network, job.box, dropout)
    with torch.no_grad():  # statistics and slopes that are not those of an untrained network
        for layer in published.modules():
            if isinstance(layer, nn.BatchNorm3d):
                layer.weight.normal_(1.0, 0.3)
                layer.running_mean.normal_(0.0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
    if not job.way.ours:
        network = published.to(device)
        return Learner(network, torch.optim.Adam(network.parameters(), lr=LEARNING_RATE))
    plan = NetworkPlan(
        job.network, job.box, N_OUTPUTS[job.network], dropout_rates=(dropout, 0.0, 0.0)
    )
    member = MemberPlan(
        plan, YearsTarget(0.0), OptimisationPlan(learning_rate=LEARNING_RATE), 1, 0.0, 0, device
    ).build(1, seed)
    member.network.load_state_dict(published.state_dict())
    set_blocks(member.network, job.way.blocks)
    if job.way.fused_optimiser:
        return Learner(member.network, member.optimiser)
    return Learner(member.network, torch.optim.Adam(member.network.parameters(), lr=LEARNING_RATE))


def loss_of(network: str, outputs: torch.Tensor) -> torch.Tensor:
    """Squared years from 0, or (SFCN) the divergence of soft labels, as published."""
    if network == "agemapper":
        return outputs.square().mean()
    labels = torch.full_like(outputs, 1 / outputs.shape[1])
    return functional.kl_div(outputs.log_softmax(1), labels, reduction="batchmean")


def train_on(learner: Learner, job: Job, volumes: torch.Tensor) -> None:
    """Forward, backward, update."""
    learner.optimiser.zero_grad(set_to_none=True)
    with torch.autocast(volumes.device.type, torch.bfloat16, enabled=job.way.bfloat16):
        outputs = learner.network(volumes)
    loss_of(job.network, outputs.float()).backward()
    learner.optimiser.step()


def training_step(job: Job, volumes: torch.Tensor) -> Callable[[], None]:
    """A step of one network, or of several on the same batch, as the Solver shares the cores."""
    learners = [built(job, volumes.device, seed) for seed in range(1, job.n_networks + 1)]
    for learner in learners:
        learner.network.train()
    if job.n_networks == 1:
        return partial(train_on, learners[0], job, volumes)
    voxels, alone = job.batch_size * math.prod(job.box), volumes.device.type == "cpu"

    def step() -> None:
        with run_each(len(learners), voxels, possible=alone) as each:
            each(lambda i: train_on(learners[i], job, volumes), len(learners))

    return step


def inference_step(job: Job, volumes: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A forward pass that gives the outputs."""
    network = built(job, volumes.device).network.eval()
    if job.way.folded:
        network = folded(network, torch.bfloat16 if job.way.bfloat16 else torch.float32)
    without_graph = torch.inference_mode if job.way.ours else torch.no_grad

    def step() -> torch.Tensor:
        with (
            without_graph(),
            torch.autocast(volumes.device.type, torch.bfloat16, enabled=job.way.bfloat16),
        ):
            return network(volumes).float()

    return step


# ------------------------------------------------------------------------------- a process that measures


class Bench:
    """Does jobs on a device; keeps what it built, so that a turn begins warm."""

    def __init__(self, device: str, seconds: float):
        self.device, self.seconds = torch.device(device), seconds
        self._steps: dict[Job, Callable[[], Any]] = {}
        self._volumes: dict[tuple[str, int], torch.Tensor] = {}

    def volumes(self, job: Job) -> torch.Tensor:
        """The batch that all ways compute with."""
        key = (job.size, job.batch_size)
        if key not in self._volumes:
            random = generator("volumes", *key)
            values = random.random((job.batch_size, 1, *job.box), dtype=np.float32)
            self._volumes[key] = torch.from_numpy(values).to(self.device)
        return self._volumes[key]

    def turn(self, job: Job) -> float:
        """Milliseconds per sample and network pass of this job, now."""
        self._set_up(job.way)
        if job not in self._steps:
            make = training_step if job.training else inference_step
            self._steps[job] = make(job, self.volumes(job))
            for _ in range(3 if self.device.type == "cuda" else 1):
                self._steps[job]()
        step = self._steps[job]
        gc.collect()
        return self._milliseconds(step, self.seconds) / job.batch_size

    def compared(self, job: Job) -> float:
        """Norm of the difference from the published network, as a share of the norm."""
        self._set_up(job.way)
        published = replace(job, way=Way(PUBLISHED, tf32=False))
        found = self._values(job)
        self._set_up(published.way)
        expected = self._values(published)
        return max(
            float((a.double() - b.double()).norm() / b.double().norm())
            for a, b in zip(found, expected)
        )

    def rates(self, precision: str) -> Rates:
        """What a large matrix product or convolution, whichever is quicker, and a large copy reach."""
        self._set_up(Way("", tf32=precision == "tf32"))
        on_gpu = self.device.type == "cuda"
        size, n_values = (8192, 2**28) if on_gpu else (2048, 2**25)
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        a, b = (torch.randn(size, size, device=self.device).to(dtype) for _ in range(2))
        product = torch.empty_like(a)
        times = [
            self._milliseconds(lambda: torch.mm(a, b, out=product), RATE_SECONDS) for _ in range(3)
        ]
        flop_per_s = max(2 * size**3 / min(times) * 1e3, self._convolution_rate(dtype))
        source = torch.ones(n_values, device=self.device)
        target = torch.ones_like(source)
        times = [self._milliseconds(lambda: target.copy_(source), RATE_SECONDS) for _ in range(3)]
        return Rates(flop_per_s, 2 * source.nbytes / min(times) * 1e3)

    def _convolution_rate(self, dtype: torch.dtype) -> float:
        """FLOP per second of a 3D convolution of 64 channels: some libraries are quicker at it than at products."""
        n, edge = (64, 80) if self.device.type == "cuda" else (64, 40)
        layer = nn.Conv3d(n, n, 3, padding=1, bias=False).to(
            self.device, dtype, memory_format=torch.channels_last_3d
        )
        volumes = torch.randn((4, n, edge, edge, edge), device=self.device).to(
            dtype=dtype, memory_format=torch.channels_last_3d
        )
        with torch.inference_mode():
            times = [self._milliseconds(lambda: layer(volumes), RATE_SECONDS) for _ in range(3)]
        return 2 * 27 * n * volumes.numel() / min(times) * 1e3

    def forget(self) -> None:
        """Give back networks and volumes."""
        self._steps.clear()
        self._volumes.clear()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def epoch(self, job: Job, source: str, cohort: Cohort) -> float:
        """Seconds of a whole epoch: every volume from where it lies, a training step on every batch."""
        self._set_up(job.way)
        key = replace(job, batch_size=-cohort.n)  # one network for all sources
        if key not in self._steps:
            learner = built(job, self.device)
            learner.network.train()
            self._steps[key] = partial(train_on, learner, job)
        step = self._steps[key]
        batches = cohort.batches(source, job.batch_size, self.device)
        gc.collect()
        start = time.perf_counter()
        n = 0
        for volumes in batches:
            step(volumes)
            n += len(volumes)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        assert n == cohort.n, f"{source} gave {n} of {cohort.n} volumes"
        return time.perf_counter() - start

    def _values(self, job: Job) -> list[torch.Tensor]:
        """What must agree: outputs; in training also all gradients."""
        volumes = self.volumes(job)
        if not job.training:
            return [inference_step(job, volumes)()]
        network = built(replace(job, dropout=False), self.device).network.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=job.way.bfloat16):
            outputs = network(volumes).float()
        loss_of(job.network, outputs).backward()
        gradients = [parameter.grad.flatten() for parameter in network.parameters()]
        return [outputs.detach(), torch.cat(gradients)]

    def _set_up(self, way: Way) -> None:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = way.tf32
        torch.backends.cudnn.benchmark = way.search

    def _milliseconds(self, step: Callable[[], Any], seconds: float) -> float:
        """Mean over as many calls as fill the time."""
        if self.device.type != "cuda":
            start, n = time.perf_counter(), 0
            while n == 0 or time.perf_counter() - start < seconds:
                step()
                n += 1
            return 1e3 * (time.perf_counter() - start) / n
        first = self._between_events(step, 2)
        return self._between_events(step, max(3, math.ceil(1e3 * seconds / first)))

    def _between_events(self, step: Callable[[], Any], n: int) -> float:
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        for _ in range(n):
            step()
        after.record()
        torch.cuda.synchronize()
        return before.elapsed_time(after) / n


def serve(pipe: Connection, device: str, seconds: float) -> None:
    """A process that does what it is asked until it is asked nothing more."""
    bench = Bench(device, seconds)
    while (request := pipe.recv()) is not None:
        name, arguments = request
        try:
            pipe.send((getattr(bench, name)(*arguments), None))
        except Exception as error:  # what went wrong is said by the process that asked
            pipe.send((None, f"{type(error).__name__}: {error}"))


class Measurer:
    """Two processes, with and without the allocator's settings; on a GPU one does everything."""

    def __init__(self, device: str, seconds: float):
        spawn = multiprocessing.get_context("spawn")
        self.separate = device == "cpu"
        self._pipes, self._processes = [], []
        for allocator in (False, True) if self.separate else (False,):
            if allocator:
                tune_allocator()  # for the process that starts next: torch looks when it is imported
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=serve, args=(theirs, device, seconds))
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def ask(self, way: Way, name: str, *arguments: Any) -> Any:
        """Let the process of this way do something."""
        pipe = self._pipes[int(way.allocator and self.separate)]
        pipe.send((name, arguments))
        value, problem = pipe.recv()
        if problem:
            raise SystemExit(f"{way.name}, {name}: {problem}")
        return value

    def forget(self) -> None:
        """Both give back their memory."""
        for allocator in (False, True) if self.separate else (False,):
            self.ask(Way("", allocator=allocator), "forget")

    def close(self) -> None:
        """End the processes."""
        for pipe, process in zip(self._pipes, self._processes):
            pipe.send(None)
            process.join()


# ------------------------------------------------------------------------------------- whole epochs


@dataclass(frozen=True)
class Cohort:
    """Simulated volumes of one size in a folder."""

    folder: Path
    size: str
    n: int

    @property
    def contrast(self) -> Contrast:
        """How they are read: divided by their mean, as T1 volumes are."""
        box, shape, start, voxel_mm = SIZES[self.size]
        crop = tuple((first, first + edge) for first, edge in zip(start, box))
        return Contrast(
            "simulated", "T1.nii.gz", 1.0, voxel_mm, shape, crop, None, True, "structural"
        )  # type: ignore[arg-type]

    @property
    def paths(self) -> list[Path]:
        """Their files."""
        return [self.folder / f"S{k:04d}" / "T1.nii.gz" for k in range(self.n)]

    def make(self) -> None:
        """Write the files, and prepare them as `-m prepare` does."""
        shape = self.contrast.shape
        axes = np.ogrid[tuple(slice(-1, 1, complex(0, edge)) for edge in shape)]
        brain = sum(np.square(axis / 0.75) for axis in axes) < 1
        for path in self.paths:
            path.parent.mkdir(parents=True)
            random = generator(path.parent.name, "benchmark")
            values = np.zeros(shape, np.float32)
            values[brain] = random.gamma(20, 40, int(brain.sum()))
            image = nib.Nifti1Image(values, self.contrast.affine)
            nib.openers.Opener.default_compresslevel = 1
            nib.save(image, path)
        plan = plan_contrast(self.folder / "cache", self.contrast, "strict", "uint16", self.paths)
        carry_out([plan], N_WORKERS, lambda finished, _: finished)

    def volumes(self) -> CellVolumes:
        """The subjects, with their cache."""
        key = CacheKey.of(self.contrast, "strict", "uint16")
        cache = ContrastCache.open(self.folder / "cache" / key.folder_name, key)
        reader = VolumeReader(self.contrast, 1.0, cache=cache)
        return CellVolumes(
            [path.parent.name for path in self.paths], self.paths, np.full(self.n, 60.0), reader
        )

    def batches(self, source: str, batch_size: int, device: torch.device) -> Iterable[torch.Tensor]:
        """An epoch of shuffled and shifted volumes on the device, from their files, the cache, or memory."""
        if source == "files":
            return self._from_files(batch_size, device)
        volumes = (
            self.volumes()
        )  # found and opened before the clock starts, as before a run's first epoch
        prepared = self._from_cache(volumes, batch_size, device)
        if source == "cache":
            return prepared
        return [batch.clone() for batch in prepared]

    def _from_files(self, batch_size: int, device: torch.device) -> Iterator[torch.Tensor]:
        loader = DataLoader(
            PublishedDataset(self.paths, self.contrast),
            batch_size=batch_size, shuffle=True, num_workers=N_WORKERS,
        )  # fmt: skip
        for batch in loader:
            yield batch.type(torch.FloatTensor).unsqueeze(1).to(device)

    def _from_cache(
        self, volumes: CellVolumes, batch_size: int, device: torch.device
    ) -> Iterator[torch.Tensor]:
        plan = AugmentationPlan(shift_voxels=SHIFT_VOXELS)
        if device.type == "cuda":
            epoch = training_epoch(volumes, batch_size, plan, 1, 1)
            for stored in quantised_batches(epoch, N_WORKERS, pinned=True):
                yield expanded(stored, device)
            return
        for batch in training_batches(volumes, batch_size, plan, 1, 1, N_WORKERS):
            yield batch.volumes


class PublishedDataset(Dataset):
    """The published loader's steps: decompress, crop, divide, roll; once per epoch and volume."""

    def __init__(self, paths: list[Path], contrast: Contrast):
        self.paths, self.contrast = paths, contrast

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        volume = np.array(nib.load(self.paths[index]).dataobj)
        volume = volume[tuple(slice(*edges) for edges in self.contrast.crop)]
        volume = volume / volume.mean()
        for axis, shift in enumerate(np.random.randint(-SHIFT_VOXELS, SHIFT_VOXELS + 1, 3)):  # noqa: NPY002
            volume = np.roll(volume, shift, axis=axis)
        return torch.from_numpy(volume)


# ------------------------------------------------------------------------------------------- measuring


def alternate(turns: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Every way's turn in every round, in an order that rotates; the first round is not counted."""
    found: dict[str, list[float]] = {name: [] for name in turns}
    names = list(turns)
    for round_ in range(rounds + 1):
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            value = turns[name]()
            if round_:
                found[name].append(value)
    return found


def ratios(of: list[float], to: list[float]) -> list[float]:
    """to / of within a round: median, lowest, highest."""
    found = [b / a for a, b in zip(of, to)]
    return [float(f(found)) for f in (np.median, np.min, np.max)]


def precision_on(device: str, way: Way) -> str:
    """In what a way multiplies on this device."""
    return way.precision if device == "cuda" or way.bfloat16 else "float32"


def steps(
    measurer: Measurer, device: str, jobs: list[Job], rounds: int, rates: dict[str, Rates]
) -> dict[str, Any]:
    """Rows of one network, size and kind of step."""
    times = alternate(
        {job.way.name: partial(measurer.ask, job.way, "turn", job) for job in jobs}, rounds
    )
    rows = {}
    for job in jobs:
        own, precision = times[job.way.name], precision_on(device, job.way)
        cost = counted(job)
        floor = cost.floor(rates[precision], job.training)
        spent = cost.floor(rates[precision], job.training, fused=job.way.blocks == "fused")
        ms = float(np.median(own))
        rows[job.way.name] = {
            "ms": ms,
            "ms_of_each_round": own,
            "times_the_published": ratios(own, times[PUBLISHED]),
            "floor_ms": floor.ms,
            "share_of_floor": floor.ms / ms,
            "arithmetic_ms": floor.arithmetic_ms,
            "bytes_ms": spent.bytes_ms,
            "limit": f"{spent.limit} of {spent.layer}",
        }
    return rows


def counted(job: Job) -> NetworkCost:
    """What the job's network costs in the job's precision."""
    plan = NetworkPlan(job.network, job.box, N_OUTPUTS[job.network])
    return count_costs(plan, torch.bfloat16 if job.way.bfloat16 else torch.float32, job.batch_size)


def three_to_one(measurer: Measurer, job: Job, rounds: int) -> dict[str, Any]:
    """Three networks on the same batch against one of them."""
    several = replace(job, n_networks=3)
    turns = {
        "one": partial(measurer.ask, job.way, "turn", job),
        "three": partial(measurer.ask, job.way, "turn", several),
    }
    times = alternate(turns, rounds)
    return {
        "ms_of_one": float(np.median(times["one"])),
        "ms_of_three": float(np.median(times["three"])),
        "three_to_one": ratios(times["one"], times["three"]),
    }


def epochs(measurer: Measurer, job: Job, cohort: Cohort, rounds: int) -> dict[str, Any]:
    """Whole epochs: as published, our network with the published loader, and ours from cache and memory."""
    published = replace(job, way=Way(PUBLISHED))
    wanted = {
        "published": (published, "files"),
        "our network, published loader": (job, "files"),
        "ours, from the cache": (job, "cache"),
        "ours, from memory": (job, "memory"),
    }
    turns = {
        name: partial(measurer.ask, own.way, "epoch", own, source, cohort)
        for name, (own, source) in wanted.items()
    }
    times = alternate(turns, rounds)
    rows: dict[str, Any] = {
        name: {
            "ms_a_volume": 1e3 * float(np.median(own)) / cohort.n,
            "seconds_of_each_round": own,
            "times_the_published": ratios(own, times["published"]),
        }
        for name, own in times.items()
    }
    cache, memory = times["ours, from the cache"], times["ours, from memory"]
    rows["cache_to_memory"] = ratios(memory, cache)
    return rows


def machine(device: str) -> dict[str, Any]:
    """What it ran on: nothing that names it."""
    model = platform.processor() or platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as handle:
        for line in handle:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    described = {
        "device": device,
        "cores": len(os.sched_getaffinity(0)),
        "cpu": model,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_average_before": os.getloadavg()[0],
        "versions": versions,
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        described |= {
            "gpu": properties.name,
            "gpu_memory_gb": round(properties.total_memory / 1e9, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return described


# -------------------------------------------------------------------------------------------- printing


def spread(values: list[float]) -> str:
    """Median (lowest-highest)."""
    middle, low, high = (f"{v:.0f}" if v >= 100 else f"{v:.3g}" for v in values)
    return f"{middle:>6s} {f'({low}-{high})':14s}"


def print_steps(title: str, rows: dict[str, Any]) -> None:
    """A line a way."""
    print(
        f"\n{title:34s} {'ms':>9s}  {'times published':22s}{'floor ms':>9s} {'of floor':>8s}  limit"
    )
    for name, row in rows.items():
        print(
            f"  {name:32s} {row['ms']:9.3f}  {spread(row['times_the_published']):22s}"
            f"{row['floor_ms']:9.3f} {row['share_of_floor']:8.1%}  {row['limit']}",
            flush=True,
        )


def print_epochs(title: str, rows: dict[str, Any]) -> None:
    """A line a source of volumes."""
    print(f"\n{title:34s} {'ms':>9s}  times published")
    for name, row in rows.items():
        if name != "cache_to_memory":
            print(f"  {name:32s} {row['ms_a_volume']:9.2f}  {spread(row['times_the_published'])}")
    print(f"  from the cache to from memory: {spread(rows['cache_to_memory'])}", flush=True)


def print_rates(rates: dict[str, Rates]) -> None:
    """What this machine reaches."""
    for precision, reached in rates.items():
        print(
            f"{precision:9s} {reached.flop_per_s / 1e12:8.2f} TFLOP/s in a matrix product or convolution, "
            f"{reached.bytes_per_s / 1e9:7.1f} GB/s in a copy",
            flush=True,
        )


# -------------------------------------------------------------------------------------------- the run


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    device: str
    sizes: list[str]
    batch_size: int | None
    rounds: int
    seconds: float
    quick: bool

    def batch(self, size: str) -> int:
        """Samples a step."""
        return self.batch_size or BATCH_SIZES[self.device][size]

    def ways(self, size: str, training: bool) -> list[Way]:
        """All of them; of full-size volumes in a quick run on a CPU the first and the last."""
        ways = (training_ways if training else inference_ways)(self.device)
        if self.quick and self.device == "cpu" and size == "full":
            return [ways[0], ways[-1]]
        return ways


def compare_all(measurer: Measurer, extent: Extent) -> dict[str, float]:
    """Every way must give the published network's outputs and gradients; on small volumes."""
    found = {}
    for network in NETWORKS:
        for training in (True, False):
            for way in extent.ways("demo", training):
                job = Job(network, "demo", 4, way, training)
                name = f"{network}, {'training' if training else 'inference'}, {way.name}"
                found[name] = measurer.ask(way, "compared", job)
                if not found[name] <= TOLERANCES[precision_on(extent.device, way)]:
                    raise SystemExit(f"{name}: differs from the published by {found[name]:.1e}.")
    print(f"All ways give the published values within {max(found.values()):.0e} of the largest.")
    return found


def measure(measurer: Measurer, extent: Extent) -> dict[str, Any]:
    """Everything, printed as it comes."""
    rates: dict[str, Rates] = {}
    update_rates(measurer, extent.device, rates)
    print_rates(rates)
    found: dict[str, Any] = {
        "differences": compare_all(measurer, extent),
        "steps": {},
        "three_networks": {},
    }
    for size in extent.sizes:
        for network in NETWORKS:
            update_rates(measurer, extent.device, rates)
            for training in (True, False):
                jobs = [
                    Job(network, size, extent.batch(size), way, training)
                    for way in extent.ways(size, training)
                ]
                title = f"{network}, {size}, {'training' if training else 'inference'}"
                rows = steps(measurer, extent.device, jobs, extent.rounds, rates)
                print_steps(f"{title}, {jobs[0].batch_size} a batch", rows)
                found["steps"][title] = rows
                if training:
                    three = three_to_one(measurer, jobs[-1], extent.rounds)
                    found["three_networks"][f"{network}, {size}"] = three
                    print(f"  three networks to one: {spread(three['three_to_one'])}", flush=True)
            measurer.forget()
    print("\nBest rates over the run")
    print_rates(rates)
    found["rates"] = {precision: asdict(reached) for precision, reached in rates.items()}
    return found | {"epochs": measure_epochs(measurer, extent)}


def update_rates(measurer: Measurer, device: str, rates: dict[str, Rates]) -> None:
    """Measure again and keep the best: where other programs compute, too, one time is not enough."""
    for precision in (
        ("tf32", "float32", "bfloat16") if device == "cuda" else ("float32", "bfloat16")
    ):
        found = measurer.ask(Way(""), "rates", precision)
        known = rates.get(precision, found)
        rates[precision] = Rates(
            max(found.flop_per_s, known.flop_per_s), max(found.bytes_per_s, known.bytes_per_s)
        )


def measure_epochs(measurer: Measurer, extent: Extent) -> dict[str, Any]:
    """AgeMapper from simulated files, the cache and memory, volumes of the largest of the sizes."""
    size = extent.sizes[0]
    if extent.quick and extent.device == "cpu" and size == "full":
        size = "half"
    batch_size = extent.batch(size)
    job = Job("agemapper", size, batch_size, training_ways(extent.device)[-1], True)
    with tempfile.TemporaryDirectory() as folder:
        cohort = Cohort(Path(folder), size, (8 if extent.device == "cuda" else 4) * batch_size)
        cohort.make()
        rows = epochs(measurer, job, cohort, extent.rounds)
    title = f"agemapper, {size}, epochs of {cohort.n} volumes"
    print_epochs(title, rows)
    return {title: rows}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    found = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cuda", "cpu"), default=found)
    parser.add_argument("--sizes", default=",".join(SIZES), help="of full,half,demo")
    parser.add_argument("--batch", type=int, help="samples a step, whatever the size")
    parser.add_argument("--rounds", type=int, help="3, with --quick 2")
    parser.add_argument("--seconds", type=float, default=0.5, help="least length of a turn (0.5)")
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds; CPU: full size only first and last"
    )
    parser.add_argument("--output", type=Path, help="default: results/training_DEVICE.json")
    given = parser.parse_args()
    sizes = [size for size in SIZES if size in given.sizes.split(",")]
    if not sizes or set(given.sizes.split(",")) - set(SIZES):
        parser.error(f"--sizes: some of {','.join(SIZES)}")
    rounds = given.rounds or (2 if given.quick else 3)
    extent = Extent(given.device, sizes, given.batch, rounds, given.seconds, given.quick)
    described, start = machine(given.device), time.monotonic()
    measurer = Measurer(given.device, given.seconds)
    try:
        results = measure(measurer, extent)
    finally:
        measurer.close()
    output = given.output or RESULTS / f"training_{given.device}.json"
    write_json(
        {
            "machine": described | {"load_average_after": os.getloadavg()[0]},
            "rounds": rounds,
            "seconds_a_turn": given.seconds,
            "minutes": (time.monotonic() - start) / 60,
            "ms": "per sample; ratios within a round: median, lowest, highest over rounds",
            **results,
        },
        output,
    )
    print(f"\n{(time.monotonic() - start) / 60:.1f} minutes; written to {output}")


if __name__ == "__main__":
    main()
