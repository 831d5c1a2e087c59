"""From settings to members of an ensemble, and from members to checkpoints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from BrainAgeNetworks.checkpoints import load_checkpoint, save_checkpoint
from BrainAgeNetworks.registry import NetworkPlan
from BrainAgeNetworks.targets import BinsTarget, Target, YearsTarget, target_to_dict
from datasets.augmentation import AugmentationPlan
from datasets.subjects import subjects_hash
from utils.common.errors import UserError
from utils.common.paths import NetworkPaths
from utils.common.provenance import versions
from utils.common.randomness import seed_from
from utils.common.tables import write_table
from utils.experiment.experiment import Cell, Experiment
from utils.settings.schema import Settings
from utils.training.member import Member, MemberPlan
from utils.training.optimisation import OptimisationPlan
from utils.training.solver import LoopPlan

# Keys that may differ when a training goes on: they do not change what is learned from an epoch.
FREE_KEYS = {
    "data": {
        "data_directory", "path_template", "session", "scaling_values", "subjects", "exclude",
        "data_folder_name", "dataset_size", "male_train", "male_train_age", "male_validation",
        "male_validation_age", "num_workers", "memory_gb", "dataset_sex", "modality_flag",
        "cache_directory",
    },
    "training": {
        "ensemble_size", "number_of_epochs", "validation_batch_size", "keep_every", "tensorboard",
        "collapsed_networks", "early_stopping_patience", "early_stopping_min_patience",
    },
    "network": set(),
}  # fmt: skip

# Parts of a checkpoint's record that must be the same, and what a message calls them.
COMPARED = {"contrast": "the contrast's", "network_plan": "the network's", "target": "the target's"}


def choose_device(experiment: Experiment) -> torch.device:
    """The device of --device or [MISC]; `auto` is the first GPU, or the CPU."""
    name = experiment.options.device or experiment.settings.misc.device
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda"):
        number = int(name.partition(":")[2] or 0)
        if not torch.cuda.is_available() or number >= torch.cuda.device_count():
            n_found = torch.cuda.device_count() if torch.cuda.is_available() else 0
            raise UserError(f"device {name}: torch sees {n_found} GPU(s) here; use auto or cpu.")
    return torch.device(name)


def build_target(settings: Settings, mean_age_years: float) -> Target:
    """Years about the training mean, or age bins for `loss_function = kl`."""
    if settings.training.loss_function != "kl":
        return YearsTarget(mean_age_years)
    network = settings.network
    first, last = network.age_bins
    return BinsTarget(
        mean_age_years, first, last, network.bin_width_years, network.soft_label_sd_years
    )


def member_plan(
    settings: Settings, cell: Cell, mean_age_years: float, device: torch.device
) -> MemberPlan:
    """What the networks of a cell have in common."""
    network, training = settings.network, settings.training
    target = build_target(settings, mean_age_years)
    schedule = (
        "cyclic"
        if training.learning_rate_cyclical
        else "plateau"
        if training.learning_rate_validation_scheduler
        else "step"
    )
    return MemberPlan(
        network=NetworkPlan(
            network=network.network,
            box=cell.contrast.box,
            n_outputs=target.n_outputs,
            widths=network.widths,
            dropout_rates=(network.dropout_rate_1, network.dropout_rate_2, network.dropout_rate_3),
            upsample=network.upsample_2mm
            and cell.contrast.voxel_mm == 2.0
            and network.network == "agemapper",
        ),
        target=target,
        optimisation=OptimisationPlan(
            optimiser=training.optimiser,
            learning_rate=training.learning_rate,
            betas=training.optimizer_beta,
            epsilon=training.optimizer_epsilon,
            weight_decay=training.optimizer_weight_decay,
            schedule=schedule,
            gamma=training.learning_rate_scheduler_gamma,
            step_size_epochs=training.learning_rate_scheduler_step_size,
            patience_epochs=training.learning_rate_scheduler_patience,
            threshold=training.learning_rate_scheduler_threshold,
            min_rate=training.learning_rate_scheduler_min_value,
            max_rate=training.learning_rate_scheduler_max_value,
            cycle_steps=training.learning_rate_scheduler_step_number,
        ),
        patience_epochs=training.early_stopping_patience,
        min_delta=training.early_stopping_min_delta,
        min_epochs=training.early_stopping_min_patience,
        device=device,
    )


def loop_plan(experiment: Experiment, cell: Cell) -> LoopPlan:
    """The loop over epochs; order and augmentation are the same for all networks of a cell."""
    data, training = experiment.settings.data, experiment.settings.training
    return LoopPlan(
        n_epochs=experiment.options.epochs or training.number_of_epochs,
        training_batch_size=training.training_batch_size,
        validation_batch_size=training.validation_batch_size,
        seed=seed_from(training.seed, cell.name, "order"),
        augmentation=AugmentationPlan(
            shift_voxels=data.shift_voxels if data.shift_transformation else 0,
            mirror=data.mirror_transformation,
        ),
        n_workers=data.num_workers,
    )


def network_seed(settings: Settings, cell: Cell, number: int, attempt: int = 1) -> int:
    """Seed of one network; `attempt` 2 is the retraining of a collapsed one."""
    return seed_from(settings.training.seed, cell.name, "network", number, attempt)


def training_record(
    experiment: Experiment,
    cell: Cell,
    scale_factor: float,
    training_subjects: pd.DataFrame,
    plan: MemberPlan,
    null_mae_years: float,
) -> dict[str, Any]:
    """What travels with the weights so that they cannot be used on the wrong volumes."""
    ages = training_subjects["age_years"]
    settings = experiment.settings
    return {
        "experiment": settings.name,
        "contrast": {**cell.contrast.describe(), "scale_factor": scale_factor},
        "scale_factor_is_auto": cell.contrast.scale_factor is None,
        "sex": cell.sex,
        "conform": settings.data.conform,
        "network_plan": plan.network.to_dict(),
        "target": target_to_dict(plan.target),
        "training_ages": {
            "n": len(ages),
            "mean_years": float(ages.mean()),
            "sd_years": float(ages.std()) if len(ages) > 1 else 0.0,
            "min_years": float(ages.min()),
            "max_years": float(ages.max()),
        },
        "validation_null_mae_years": null_mae_years,
        "training_subjects_hash": subjects_hash(training_subjects["subject_id"]),
        "split_hash": experiment.split_hash,
        "settings": _plain(
            {name: getattr(settings, name).model_dump() for name in ("data", "training", "network")}
        ),
        "versions": versions(),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def collapsed(mae_years: float, null_mae_years: float) -> bool:
    """Whether a network is no better on validation than the mean age of training."""
    return not mae_years < null_mae_years


class CheckpointKeeper:
    """Keeps members: last and best checkpoint, every k-th epoch, history, TensorBoard."""

    def __init__(self, experiment: Experiment, cell: Cell, record: dict[str, Any]):
        self.paths = experiment.cell_paths(cell)
        self.record = record
        self.keep_every = experiment.settings.training.keep_every
        self._writers: dict[int, Any] = {}
        self._tensorboard = None
        if experiment.settings.training.tensorboard:
            self._tensorboard = lambda number: experiment.paths.tensorboard(cell.name, number)

    def keep(self, member: Member, is_best: bool) -> None:
        """Best before last: a run killed between them redoes the epoch and writes the same best."""
        paths = self.paths.network(member.number)
        content = {**self.record, **member.state_dict()}
        content["validation_mae_years"] = float(member.best.get("validation_mae_years", math.nan))
        if is_best:
            save_checkpoint(content, paths.best)
        if self.keep_every and member.epoch % self.keep_every == 0:
            save_checkpoint(content, paths.epoch(member.epoch))
        save_checkpoint(content, paths.last)
        write_table(pd.DataFrame(member.history), paths.history, decimals=None)
        if self._tensorboard:
            self._write_events(member)

    def _write_events(self, member: Member) -> None:
        if member.number not in self._writers:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, wanted only here

            folder: Path = self._tensorboard(member.number)  # type: ignore[misc]
            self._writers[member.number] = SummaryWriter(str(folder), purge_step=member.epoch)
        row = member.history[-1]
        for key in row.keys() - {"epoch"}:
            self._writers[member.number].add_scalar(key, row[key], member.epoch)
        self._writers[member.number].flush()

    def close(self) -> None:
        """Close event files."""
        for writer in self._writers.values():
            writer.close()


def restore(member: Member, path: Path, record: dict[str, Any]) -> None:
    """Continue a member from a checkpoint of the same training.

    Raises
    ------
    UserError
        The training differs from the checkpoint's: subjects, contrast, network or settings; every
        difference is listed.
    """
    content = load_checkpoint(path)
    differences = _differences(content, record)
    if differences:
        raise UserError(
            f"{path}: cannot be continued with what is set now: {'; '.join(differences)}. Restore "
            "that, or start afresh with -c 0 --yes (the old run is moved aside)."
        )
    member.load_state_dict(content)


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    found = []
    for name, what in COMPARED.items():
        before, now = old.get(name) or {}, new[name]
        found += [
            f"{what} {key} was {before.get(key)!r} and is {now[key]!r}"
            for key in now
            if before.get(key) != now[key]
        ]
    if old.get("sex") != new["sex"]:
        found.append(f"it was trained on {old.get('sex')}, not {new['sex']} subjects")
    if old.get("training_subjects_hash") != new["training_subjects_hash"]:
        found.append("the training subjects are not the same")
    for section, free in FREE_KEYS.items():
        before, now = old["settings"][section], new["settings"][section]
        found += [
            f"[{section.upper()}] {key} was {before.get(key)!r} and is {now[key]!r}"
            for key in now
            # a key that the checkpoint does not have came with a later version, and changed nothing then
            if key in before and key not in free and before[key] != now[key]
        ]
    return found


def checkpoint_to_continue(paths: NetworkPaths, choice: str) -> Path:
    """The file that `-c last`, `-c best` or `-c K` means; the error lists what there is."""
    path = {"last": paths.last, "best": paths.best}.get(choice) or paths.epoch(int(choice))
    if path.is_file():
        return path
    there = [name for name, p in (("last", paths.last), ("best", paths.best)) if p.is_file()]
    there += [str(epoch) for epoch in paths.kept_epochs()]
    raise UserError(
        f"-c {choice}: {path} does not exist; there is {', '.join(there) or 'no checkpoint'}."
    )
