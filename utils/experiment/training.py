"""From settings to members of an ensemble: plans, seeds, and the record that travels with weights."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from BrainAgeNetworks.fused.choosing import way_of_blocks
from BrainAgeNetworks.precision import precision_name, precision_of
from BrainAgeNetworks.registry import NetworkPlan, with_one_pooling_fewer
from BrainAgeNetworks.targets import BinsTarget, Target, YearsTarget, target_to_dict
from datasets.augmentation import AugmentationPlan
from datasets.contrasts import Contrast
from datasets.subjects import subjects_hash
from utils.common.errors import UserError
from utils.common.provenance import versions
from utils.common.randomness import seed_from
from utils.experiment.experiment import Cell, Experiment
from utils.settings.schema import Settings
from utils.settings.training import NetworkSettings
from utils.training.losses import build_loss
from utils.training.member import Member, MemberPlan
from utils.training.optimisation import OptimisationPlan
from utils.training.solver import LoopPlan
from utils.training.step import TrainingStep

RESOLUTION_2MM = 2.0  # the published networks are for 1 mm


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
    experiment: Experiment, cell: Cell, mean_age_years: float, device: torch.device
) -> MemberPlan:
    """What the networks of a cell have in common."""
    settings = experiment.settings
    network, training = settings.network, settings.training
    target = build_target(settings, mean_age_years)
    return MemberPlan(
        network=network_plan(network, cell.contrast, target.n_outputs),
        target=target,
        optimisation=OptimisationPlan(
            optimiser=training.optimiser,
            learning_rate=training.learning_rate,
            betas=training.optimizer_beta,
            epsilon=training.optimizer_epsilon,
            weight_decay=training.optimizer_weight_decay,
            schedule=training.schedule,
            gamma=training.learning_rate_scheduler_gamma,
            step_size_epochs=training.learning_rate_scheduler_step_size,
            patience_epochs=training.learning_rate_scheduler_patience,
            threshold=training.learning_rate_scheduler_threshold,
            min_rate=training.learning_rate_scheduler_min_value,
            max_rate=training.learning_rate_scheduler_max_value,
            cycle_steps=training.learning_rate_scheduler_step_number,
            n_epochs=experiment.n_epochs,
            warm_up_epochs=training.warm_up_epochs,
            clip_norm=training.gradient_clip_norm,
            average_decay=training.ema_decay,
        ),
        patience_epochs=training.early_stopping_patience,
        min_delta=training.early_stopping_min_delta,
        min_epochs=training.early_stopping_min_patience,
        device=device,
        blocks=blocks_of(experiment, device),
        recompute=training.recompute_activations,
        frozen_layers=training.frozen_layers,
        layer_learning_rates=training.layer_learning_rates,
    )


def network_plan(network: NetworkSettings, contrast: Contrast, n_outputs: int) -> NetworkPlan:
    """The architecture for a contrast's volumes; 2 mm ones are upsampled, or pooled once less."""
    plan = NetworkPlan(
        network=network.network,
        box=contrast.box,
        n_outputs=n_outputs,
        widths=network.widths,
        dropout_rates=(network.dropout_rate_1, network.dropout_rate_2, network.dropout_rate_3),
    )
    if contrast.voxel_mm != RESOLUTION_2MM:
        return plan
    if network.resolution_2mm == "native":
        return with_one_pooling_fewer(plan)
    return replace(plan, upsample=True)


def loop_plan(experiment: Experiment, cell: Cell) -> LoopPlan:
    """The loop over epochs; order and augmentation are the same for all networks of a cell."""
    data, training = experiment.settings.data, experiment.settings.training
    return LoopPlan(
        n_epochs=experiment.n_epochs,
        training_batch_size=training.training_batch_size,
        validation_batch_size=training.validation_batch_size,
        seed=seed_from(training.seed, cell.name, "order"),
        augmentation=AugmentationPlan(
            shift_voxels=data.shift_voxels if data.shift_transformation else 0,
            mirror=data.mirror_transformation,
            rotation_degrees=data.rotation_degrees,
            zoom_fraction=data.zoom_fraction,
            gain_fraction=data.gain_fraction,
            gamma_fraction=data.gamma_fraction,
        ),
        sampling=training.sampling,
        n_workers=data.num_workers,
        checkpoint_s=60 * training.checkpoint_minutes or math.inf,
    )


def blocks_of(experiment: Experiment, device: torch.device) -> str:
    """How blocks are computed; what is chosen by its time would not always be the same."""
    wanted, training = experiment.settings.network.blocks, experiment.settings.training
    is_timed = wanted == "auto" and device.type == "cuda"
    return "plain" if is_timed and training.deterministic else wanted


def training_step(experiment: Experiment, member: Member) -> TrainingStep:
    """How the steps of a cell's networks are computed."""
    training, device = experiment.settings.training, member.progress.device
    return TrainingStep(
        loss=build_loss(training.loss_function, member.target),
        device=device,
        precision=precision_of(training.precision, device),
        blocks=blocks_of(experiment, device),
        n_parts=training.accumulation_steps,
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
        "n_epochs": experiment.n_epochs,
        "computed": {
            "device": plan.device.type,
            "precision": precision_name(precision_of(settings.training.precision, plan.device)),
            "blocks": way_of_blocks(plan.blocks, plan.device),
        },
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
