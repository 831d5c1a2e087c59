"""How the networks of an experiment were trained, in the words of the methods paragraph."""

from __future__ import annotations

from typing import Any

from utils.experiment.experiment import Experiment
from utils.experiment.results import PERSON_SPLITS, read_metrics
from utils.settings.training import DataSettings, TrainingSettings

LOSSES = {
    "mse": "mean squared error",
    "mae": "mean absolute error",
    "kl": "Kullback-Leibler divergence of soft labels",
}
OPTIMISERS = {"adam": "Adam", "adamW": "AdamW"}


def training_facts(experiment: Experiment) -> dict[str, Any]:
    """Facts of training (keys as in `figures.methods`)."""
    training, recorded = experiment.settings.training, _recorded(experiment)
    return {
        "loss": LOSSES[training.loss_function],
        "optimiser": OPTIMISERS[training.optimiser]
        + (
            f" with a weight decay of {decay:g}"
            if (decay := training.optimizer_weight_decay)
            else ""
        ),
        "learning_rate": training.learning_rate,
        "scheduler": _schedule(training),
        "batch_size": training.training_batch_size,
        "n_epochs": recorded.get("n_epochs") or experiment.n_epochs,
        "patience_epochs": training.early_stopping_patience,
        "augmentation": _augmentation(experiment.settings.data),
        "besides": _besides(training, recorded.get("precision")),
    }


def preprocessing_phrase(data: DataSettings) -> str:
    """How a volume became input."""
    conformed = "" if data.conform == "strict" else f", after a conforming step ({data.conform})"
    if data.preprocessing == "peng":
        return f"volumes were divided by their mean and cropped about their centre{conformed} (Peng 2021)"
    return (
        "volumes were cropped, divided by the mean of the crop where the contrast asks for it, and by the "
        f"contrast's scale factor{conformed}"
    )


def _schedule(training: TrainingSettings) -> str:
    warm_up = (
        f" after a linear rise over {training.warm_up_epochs:g} epochs"
        if training.warm_up_epochs
        else ""
    )
    if training.schedule == "cyclic":
        return "cyclic"
    if training.schedule == "cosine":
        return f"a cosine{warm_up}"
    lowering = f"lowering by {training.learning_rate_scheduler_gamma:g}"
    if training.schedule == "plateau":
        patience = training.learning_rate_scheduler_patience
        return f"{lowering} after {patience} epochs without a lower validation loss{warm_up}"
    return f"{lowering} every {training.learning_rate_scheduler_step_size} epochs{warm_up}"


def _augmentation(data: DataSettings) -> list[str]:
    phrases = []
    if data.shift_transformation and data.shift_voxels:
        phrases.append(f"shifts of up to {data.shift_voxels} voxels")
    if data.mirror_transformation:
        phrases.append("left-right mirroring")
    if data.rotation_degrees:
        phrases.append(f"rotations of up to {data.rotation_degrees:g} degrees")
    for share, what in (
        (data.zoom_fraction, "zooming"),
        (data.gain_fraction, "intensities scaled"),
        (data.gamma_fraction, "intensities raised to powers of 1 plus or minus"),
    ):
        if share:
            phrases.append(
                f"{what} by up to {share:.0%}" if "power" not in what else f"{what} {share:g}"
            )
    return phrases


def _recorded(experiment: Experiment) -> dict[str, Any]:
    """What the tested networks say of their training, which the settings of now may not."""
    for cell in experiment.grid:
        for split in PERSON_SPLITS:
            if (metrics := read_metrics(experiment, cell, split)) and metrics.get("training"):
                return metrics["training"]
    return {}


def _besides(training: TrainingSettings, precision: str | None) -> list[str]:
    """What a reader should know beyond loss, optimiser, schedule and augmentation."""
    sentences = []
    if precision == "bfloat16":
        sentences.append(
            "Convolutions of training were computed in bfloat16, everything else in float32."
        )
    for name, factor in training.layer_learning_rates:
        sentences.append(f"The learning rate of {name} was multiplied by {factor:g}.")
    if training.collapsed_networks == "retrain":
        sentences.append(
            "A network that diverged, or was no better on validation than the mean age, was trained once more "
            "with another seed."
        )
    if training.sampling == "age_balanced":
        sentences.append(
            "Training subjects were drawn so that rare ages came as often as common ones."
        )
    if training.ema_decay:
        sentences.append(
            f"Weights were averaged over steps (exponential moving average, decay {training.ema_decay:g})."
        )
    if training.gradient_clip_norm:
        sentences.append(f"Gradients were clipped to a norm of {training.gradient_clip_norm:g}.")
    if training.accumulation_steps > 1:
        sentences.append(
            f"Each step went through its batch in {training.accumulation_steps} parts, over each of which "
            "batch normalisation took its statistics."
        )
    if training.use_pre_trained:
        head = "with a new output layer" if training.pre_trained_head == "new" else "as they were"
        frozen = (
            f"; {', '.join(training.frozen_layers)} did not learn" if training.frozen_layers else ""
        )
        sentences.append(f"Training started from given weights, {head}{frozen}.")
    return sentences
