"""What the processes of one training must have in common before they begin, and how they share a network."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from BrainAgeNetworks.synchronised_norm import synchronise_norms
from datasets.loaders import CellVolumes, evaluation_epoch
from utils.common.errors import UserError
from utils.experiment.experiment import Experiment
from utils.training.member import Member
from utils.training.processes import Processes

# Parts of a training's record, and what a message calls them.
_RECORDED = {
    "settings": "the settings",
    "n_epochs": "the number of epochs",
    "split_hash": "the split",
    "training_subjects_hash": "the list of training subjects",
    "training_ages": "the training ages",
    "contrast": "the contrast",
    "validation_null_mae_years": "the ages of validation",
    "versions": "the version of the program or its packages",
}


def refuse_differences(processes: Processes, record: dict[str, Any], members: list[Member]) -> None:
    """Settings, subjects and checkpoints must be the same in all processes."""
    values = {what: record[key] for key, what in _RECORDED.items()}
    for member in members:
        values[f"the checkpoint of network {member.number}"] = (
            f"epoch {member.epoch}, step {member.progress.next_step}, {member.stopped or 'going on'}"
        )
    processes.same_everywhere(values)


def refuse_unshareable(
    experiment: Experiment, processes: Processes, train: CellVolumes, validation: CellVolumes
) -> None:
    """What one process can do and several cannot.

    Raises
    ------
    UserError
        A volume is not prepared, a batch is too small, or activations are to be recomputed.
    """
    if processes.n == 1:
        return
    training, least = experiment.settings.training, smallest_group(experiment, processes)
    if training.training_batch_size < least:
        each = (
            ""
            if least == processes.n
            else ', and batch_norm_over_processes = "each" needs two each'
        )
        raise UserError(
            f"training_batch_size = {training.training_batch_size} is shared by {processes.n} processes{each}: "
            f"set it to {least} or more, or start fewer."
        )
    if training.recompute_activations and training.batch_norm_over_processes == "synchronised":
        raise UserError(
            "recompute_activations = True takes the statistics of its own process's subjects: with several "
            'processes set [TRAINING] batch_norm_over_processes = "each" beside it.'
        )
    for volumes in (train, validation):
        evaluation_epoch(volumes, 1, share=processes.share)  # says what is not prepared


def refuse_different_volumes(
    processes: Processes, train: CellVolumes, validation: CellVolumes
) -> None:
    """Subjects and their order, ages and failed volumes must be the same, or batches would differ."""
    processes.same_everywhere(
        {
            f"the list of {name} volumes that can be used": _digest(volumes)
            for name, volumes in (("training", train), ("validation", validation))
        }
    )


def smallest_group(experiment: Experiment, processes: Processes) -> int:
    """Subjects that the smallest batch needs, so that every process has enough for batch-norm."""
    alone = experiment.settings.training.batch_norm_over_processes == "each"
    return max(2, processes.n * (2 if alone else 1))


def share_networks(experiment: Experiment, processes: Processes, members: list[Member]) -> None:
    """Batch-norm over the subjects of all processes, if the settings say so."""
    wanted = experiment.settings.training.batch_norm_over_processes == "synchronised"
    for member in members if wanted and processes.n > 1 else ():
        synchronise_norms(member.network)


def _digest(volumes: CellVolumes) -> str:
    """Tells subjects, ages, or volumes that cannot be used apart, and their order; names nobody."""
    content = repr((volumes.subject_ids, volumes.ages_years.tolist(), sorted(volumes.failures)))
    n_failed = len(volumes.failures)
    return (
        f"{len(volumes) - n_failed} of {len(volumes)} ({sha256(content.encode()).hexdigest()[:12]})"
    )
