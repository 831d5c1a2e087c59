"""Members, volumes and keepers for the tests of the Solver: networks of a few hundred weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from BrainAgeNetworks.checkpoints import load_checkpoint, save_checkpoint
from BrainAgeNetworks.registry import NetworkPlan
from BrainAgeNetworks.targets import YearsTarget
from datasets.loaders import CellVolumes
from datasets.volumes import VolumeReader
from utils.training.member import Member, MemberPlan
from utils.training.optimisation import OptimisationPlan


def make_plan(
    schedule: str = "plateau", patience_epochs: int = 40, dropout: float = 0.3, **optimisation
) -> MemberPlan:
    """A small AgeMapper; the schedules move within two or three epochs."""
    moving = {
        "learning_rate": 0.01, "patience_epochs": 0, "threshold": 5.0, "step_size_epochs": 2,
        "min_rate": 0.001, "max_rate": 0.02, "cycle_steps": 3,
    }  # fmt: skip
    return MemberPlan(
        network=NetworkPlan("agemapper", (16, 18, 16), 1, (2, 3, 4), (dropout, dropout, 0.0)),
        target=YearsTarget(63.0),
        optimisation=OptimisationPlan(schedule=schedule, **(moving | optimisation)),
        patience_epochs=patience_epochs,
        min_delta=0.0,
        min_epochs=0,
        device=torch.device("cpu"),
    )


class FileKeeper:
    """Keeps every epoch of every member as a real checkpoint file."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.best: dict[int, list[int]] = {}

    def keep(self, member: Member, is_best: bool) -> None:
        save_checkpoint(member.state_dict(), self.folder / f"{member.number}_{member.epoch}.pt")
        if is_best:
            self.best.setdefault(member.number, []).append(member.epoch)

    def keep_position(self, member: Member) -> None:
        place = f"{member.number}_{member.epoch}_{member.progress.next_step}.pt"
        save_checkpoint(member.state_dict(), self.folder / place)

    def restore(self, member: Member, epoch: int) -> Member:
        member.load_state_dict(load_checkpoint(self.folder / f"{member.number}_{epoch}.pt"))
        return member


@pytest.fixture
def member_plan():
    return make_plan


@pytest.fixture
def keeper(tmp_path):
    return FileKeeper(tmp_path / "kept")


@pytest.fixture
def cell(tiny_cohort) -> tuple[CellVolumes, CellVolumes]:
    """Nine subjects to train on, four to validate on."""
    order = np.random.default_rng(0).permutation(len(tiny_cohort.subject_ids)).tolist()

    def chosen(places: list[int]) -> CellVolumes:
        return CellVolumes(
            [tiny_cohort.subject_ids[i] for i in places],
            [tiny_cohort.paths[i] for i in places],
            tiny_cohort.ages_years[places],
            VolumeReader(tiny_cohort.contrast, 100.0),
        )

    return chosen(order[:9]), chosen(order[9:])
