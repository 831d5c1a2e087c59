"""Trainings that one process and several must do alike; a script for torchrun, and functions for the tests.

`python -m torch.distributed.run --standalone --nproc_per_node=2 shared_training.py FOLDER RESULT NAME...` does
the trainings NAME in two processes and keeps checkpoints below RESULT. Networks and volumes are float64.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from BrainAgeNetworks.checkpoints import load_checkpoint, save_checkpoint
from BrainAgeNetworks.registry import NetworkPlan
from BrainAgeNetworks.synchronised_norm import synchronise_norms
from BrainAgeNetworks.targets import YearsTarget
from datasets.augmentation import AugmentationPlan
from datasets.cache.preparation import ContrastPlan, carry_out, plan_contrast
from datasets.cache.reading import ContrastCache
from datasets.contrasts import read_contrast_table
from datasets.loaders import CellVolumes
from datasets.volumes import VolumeReader
from tests.conftest import CROP, SHAPE, save_volume
from utils.common.errors import UserError
from utils.common.interruption import STOP, StopRequested
from utils.training.losses import build_loss
from utils.training.member import Member, MemberPlan
from utils.training.optimisation import OptimisationPlan
from utils.training.processes import ALONE, Processes, processes
from utils.training.solver import LoopPlan, Solver
from utils.training.step import TrainingStep

CPU = torch.device("cpu")
N_TRAIN, N_VALIDATION = 11, 5
LOOP = LoopPlan(
    n_epochs=3,
    training_batch_size=4,  # eleven subjects: 4, 4, 3; two processes have 2 + 2 and 1 + 2
    validation_batch_size=4,  # five subjects: 4 and 1; the last group leaves a process without any
    seed=11,
    augmentation=AugmentationPlan(shift_voxels=1, mirror=True),
)
PLAN = MemberPlan(
    network=NetworkPlan("agemapper", (16, 18, 16), 1, (2, 3, 4)),
    target=YearsTarget(63.0),
    optimisation=OptimisationPlan(
        learning_rate=0.01, patience_epochs=0, threshold=5.0, clip_norm=50.0, average_decay=0.9
    ),
    patience_epochs=40,
    min_delta=0.0,
    min_epochs=0,
    device=CPU,
)


def make_volumes(folder: Path) -> None:
    """A prepared cohort, and a file that says where everything lies."""
    table = folder / "contrasts.csv"
    table.write_text(
        "name,scale_factor,resolution,data_file,shape,crop\n"
        f"tiny,100,8mm,tiny.nii.gz,{' '.join(map(str, SHAPE))},{CROP}\n"
    )
    draw = np.random.default_rng(5)
    ages = draw.uniform(46, 80, N_TRAIN + N_VALIDATION)
    paths = [folder / "subjects" / f"{number:03d}.nii.gz" for number in range(len(ages))]
    for path, age in zip(paths, ages):
        save_volume(path, (draw.integers(0, 60, SHAPE) + age).astype(np.int16))
    carry_out([planned(folder, paths)], 1, lambda finished, n: finished)
    content = {"ages": ages.tolist(), "paths": [str(path) for path in paths]}
    (folder / "volumes.json").write_text(json.dumps(content))


def planned(folder: Path, paths: list[Path]) -> ContrastPlan:
    """What there is to prepare; it knows the cache."""
    contrast = read_contrast_table(folder / "contrasts.csv")["tiny"]
    return plan_contrast(folder / "cache", contrast, "strict", "uint16", paths)


def read_volumes(folder: Path) -> tuple[CellVolumes, CellVolumes]:
    """Training and validation."""
    content = json.loads((folder / "volumes.json").read_text())
    contrast = read_contrast_table(folder / "contrasts.csv")["tiny"]
    there = planned(folder, [Path(path) for path in content["paths"]]).cache
    cache = ContrastCache.open(there.folder, there.key)

    def chosen(part: slice) -> CellVolumes:
        paths = [Path(path) for path in content["paths"][part]]
        ages = np.array(content["ages"][part])
        reader = VolumeReader(contrast, 100.0, cache=cache)
        return CellVolumes([path.name[:3] for path in paths], paths, ages, reader)

    return chosen(slice(N_TRAIN)), chosen(slice(N_TRAIN, None))


class FileKeeper:
    """Keeps every epoch and every position as a file."""

    def __init__(self, folder: Path):
        self.folder = folder

    def keep(self, member: Member, is_best: bool) -> None:
        save_checkpoint(member.state_dict(), self.folder / f"{member.number}_{member.epoch}.pt")

    def keep_position(self, member: Member) -> None:
        save_checkpoint(member.state_dict(), self.folder / f"{member.number}_position.pt")


def build(number: int, plan: MemberPlan = PLAN) -> Member:
    """A member in float64 whose network takes the float32 volumes of the loaders."""
    member = plan.build(number, 100 + number)
    for network in (member.network, member.average.network):
        network.double()
        network.register_forward_pre_hook(lambda _, volumes: (volumes[0].double(),))
    return member


def train(
    folder: Path,
    result: Path,
    here: Processes = ALONE,
    members: list[Member] | None = None,
    norm: str = "synchronised",
    loss=None,
    **changes,
) -> list[Member]:
    """Fit two members; in one process with the batches of `smallest_group` processes."""
    members = members or [build(1), build(2)]
    if here.n > 1 and norm == "synchronised":
        for member in members:
            synchronise_norms(member.network)
    n_parts = changes.pop("n_parts", 1)
    step = TrainingStep(
        loss or build_loss("mse", PLAN.target), CPU, n_parts=n_parts, processes=here
    )
    loop = dataclasses.replace(LOOP, **{"smallest_group": max(2, here.n), **changes})
    Solver(members, step, FileKeeper(result)).fit(*read_volumes(folder), loop)
    return members


def restored(folder: Path, name: str) -> list[Member]:
    """Both members from files such as 1_position.pt."""
    members = [build(1), build(2)]
    for member in members:
        member.load_state_dict(load_checkpoint(folder / f"{member.number}_{name}.pt"))
    return members


class StopAfter:
    """A loss during whose n-th training step a signal comes."""

    def __init__(self, n_steps: int):
        self.n_left = n_steps
        self.loss = build_loss("mse", PLAN.target)

    def __call__(self, outputs: torch.Tensor, ages_years: torch.Tensor) -> torch.Tensor:
        self.n_left -= torch.is_grad_enabled()
        if self.n_left == 0:
            STOP.requested = "SIGTERM"
        return self.loss(outputs, ages_years)


def whole(folder: Path, result: Path, here: Processes) -> None:
    train(folder, result, here)


def stopped(folder: Path, result: Path, here: Processes) -> None:
    """A signal comes to the last process in the second step of the second epoch."""
    try:
        train(folder, result, here, loss=StopAfter(10) if here.index == here.n - 1 else None)
    except StopRequested as request:
        (result / f"stopped_{here.index}").write_text(str(request))
    STOP.requested = ""


def gone_on(folder: Path, result: Path, here: Processes) -> None:
    train(folder, result, here, restored(result.parent / "stopped", "position"))


def of_each(folder: Path, result: Path, here: Processes) -> None:
    train(folder, result, here, norm="each", smallest_group=2 * here.n)


def in_parts(folder: Path, result: Path, here: Processes) -> None:
    train(folder, result, here, n_parts=2, training_batch_size=7)


def differing(folder: Path, result: Path, here: Processes) -> None:
    """What is not the same everywhere, and what fails in one."""
    for name, work in (
        ("same", lambda: here.same_everywhere({"the settings": {"a": here.index}})),
        ("together", lambda: refuse_at_last(here)),
    ):
        try:
            work()
        except UserError as error:
            (result / f"{name}_{here.index}").write_text(str(error))


def refuse_at_last(here: Processes) -> None:
    with here.together():
        if here.index == here.n - 1:
            raise UserError("the disk is full.")


def in_processes(
    folder: Path, result: Path, names: list[str], n: int = 2
) -> subprocess.CompletedProcess:
    """Do these trainings in n processes that torchrun starts."""
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *(f"--nproc_per_node={n}", __file__, str(folder), str(result), *names),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def main() -> None:
    folder, result = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    with processes(lambda: CPU) as (here, _):
        for name in sys.argv[3:]:
            (result / name).mkdir(parents=True, exist_ok=True)
            globals()[name](folder, result / name, here)


if __name__ == "__main__":
    main()
