"""Checkpoints of a training: written as it goes, gone on from, and what they may be gone on with."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from BrainAgeNetworks.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from datasets.contrasts import described_contrast
from utils.common.errors import UserError
from utils.common.files import keep_as
from utils.common.messages import say, warn
from utils.common.paths import NetworkPaths, move_aside
from utils.common.tables import write_table
from utils.experiment.experiment import Cell, Experiment
from utils.settings.schema import TRAINING_SECTIONS
from utils.training.member import Member

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
        "checkpoint_minutes", "deterministic", "precision", "recompute_activations",
    },
    "network": {"blocks"},
}  # fmt: skip

# Keys that matter before the first epoch alone.
BEGINNING_KEYS = ("use_pre_trained", "pre_trained_head")

# Parts of a checkpoint's record that must be the same, and what a message calls them.
COMPARED = {"contrast": "the contrast's", "network_plan": "the network's", "target": "the target's"}


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
        content = self._content(member)
        if is_best:
            save_checkpoint(content, paths.best)
        if member.diverged and paths.best.is_file():
            paths.best.replace(paths.before_divergence)  # not to be tested, and not to be lost
        if self.keep_every and member.epoch % self.keep_every == 0:
            save_checkpoint(content, paths.epoch(member.epoch))
        write_table(pd.DataFrame(member.history), paths.history, decimals=None)
        save_last(content, paths)
        if self._tensorboard:
            self._write_events(member)

    def keep_position(self, member: Member) -> None:
        """Keep where a member stands within an epoch."""
        save_last(self._content(member), self.paths.network(member.number))

    def _content(self, member: Member) -> dict[str, Any]:
        content = {**self.record, **member.state_dict()}
        content["validation_mae_years"] = float(member.best.get("validation_mae_years", math.nan))
        return content

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


def save_last(content: dict[str, Any], paths: NetworkPaths) -> None:
    """Write the last checkpoint; the one before it stays, should this one be damaged some day."""
    if paths.last.is_file():
        keep_as(paths.last, paths.previous)
    save_checkpoint(content, paths.last)


def is_begun(paths: NetworkPaths) -> bool:
    """Whether there is a checkpoint to go on from."""
    return paths.last.is_file() or paths.previous.is_file()


def go_on(member: Member, paths: NetworkPaths, choice: str, record: dict[str, Any]) -> None:
    """Continue a member from the checkpoint that `-c` names; a damaged last one is replaced by the one before.

    Raises
    ------
    UserError
        No such checkpoint; or the training differs from the checkpoint's: subjects, contrast, network or
        settings, every difference listed.
    """
    path = _checkpoint_to_continue(paths, choice)
    try:
        content = load_checkpoint(path)
    except CheckpointError as error:
        if path != paths.last or not paths.previous.is_file():
            raise
        warn(f"{error} THE CHECKPOINT BEFORE IT IS USED INSTEAD: {paths.previous}")
        path, content = paths.previous, load_checkpoint(paths.previous)
        with suppress(FileNotFoundError):  # another process of this training has done it
            # else it would take the place of the one that is whole
            paths.last.replace(paths.damaged)
    _keep_beginning(content, record)
    refused, taken = _differences(content, record)
    if refused:
        raise UserError(
            f"{path}: cannot be continued with what is set now: {'; '.join(refused)}. Restore "
            "that, or start afresh with -c 0 --yes (the old run is moved aside)."
        )
    for difference in taken:
        say(f"  {difference}; the settings win")
    member.load_state_dict(content)


def begin_branch(member: Member, paths: NetworkPaths, choice: str, aside: Path) -> None:
    """Before a member goes on from an earlier checkpoint: set the run that went further aside.

    What the branch shares with it is there again: the checkpoint itself, epochs kept before it, and its
    best; where that is not kept any more, the checkpoint itself counts as the best so far.
    """
    chosen = _checkpoint_to_continue(paths, choice)
    if _epoch_of(paths.last) == member.epoch:
        return
    before = NetworkPaths(move_aside(paths.folder, aside))
    shared = before.folder / chosen.name
    keep_as(shared, paths.last)
    for epoch in before.kept_epochs():
        if epoch <= member.epoch:
            keep_as(before.epoch(epoch), paths.epoch(epoch))
    best_epoch = member.early_stopping.best_epoch
    candidates = (before.best, before.epoch(best_epoch), before.before_divergence, shared)
    best = next((path for path in candidates if _epoch_of(path) == best_epoch), shared)
    if _epoch_of(best) != best_epoch:
        row = next(row for row in member.history if row["epoch"] == member.epoch)
        member.early_stopping.update_to(row["validation_loss"], member.epoch)
    keep_as(best, paths.best)
    say(f"  the run that went further than epoch {member.epoch} is set aside: {before.folder}")


def _epoch_of(path: Path) -> int | None:
    """The epoch of a checkpoint; None where there is none that is whole."""
    try:
        return int(load_checkpoint(path)["epoch"])
    except CheckpointError:
        return None


def _keep_beginning(old: dict[str, Any], new: dict[str, Any]) -> None:
    """How a training began cannot change any more; `new`, the record, keeps what the checkpoint says."""
    before = _defaults("training") | old["settings"]["training"]
    now = new["settings"]["training"]
    for key in BEGINNING_KEYS:
        if now[key] != before[key]:
            say(
                f"  [TRAINING] {key} was {before[key]!r} and is {now[key]!r}; the checkpoint wins, as its "
                "training has begun"
            )
            now[key] = before[key]


def _differences(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What stands against going on, and what may have changed since the checkpoint."""
    refused: list[str] = []
    taken: list[str] = []
    old = {**old, "contrast": described_contrast(old["contrast"])}
    for name, what in COMPARED.items():
        before, now = old.get(name) or {}, new[name]
        refused += [
            f"{what} {key} was {before.get(key)!r} and is {now[key]!r}"
            for key in now
            if before.get(key) != now[key]
        ]
    if old.get("sex") != new["sex"]:
        refused.append(f"it was trained on {old.get('sex')}, not {new['sex']} subjects")
    if old.get("training_subjects_hash") != new["training_subjects_hash"]:
        refused.append("the training subjects are not the same")
    for section, free in FREE_KEYS.items():
        before = _defaults(section) | old["settings"][section]
        for key, value in new["settings"][section].items():
            if before.get(key) != value:
                text = f"[{section.upper()}] {key} was {before.get(key)!r} and is {value!r}"
                (taken if key in free else refused).append(text)
    for key, value in new["computed"].items():
        before_it = old.get("computed", new["computed"])[key]
        if before_it != value:
            taken.append(f"the {key} that computes was {before_it} and is {value}")
    if old.get("n_epochs", new["n_epochs"]) != new["n_epochs"]:
        taken.append(f"the last epoch was {old['n_epochs']} and is {new['n_epochs']}")
    return refused, taken


def _defaults(section: str) -> dict[str, Any]:
    """What a key meant for a checkpoint that was written before there was such a key."""
    fields = TRAINING_SECTIONS[section.upper()].model_fields
    defaults = {key: field.default for key, field in fields.items() if not field.is_required()}
    return {key: list(v) if isinstance(v, tuple) else v for key, v in defaults.items()}


def _checkpoint_to_continue(paths: NetworkPaths, choice: str) -> Path:
    """The file that `-c last`, `-c best` or `-c K` means; the error lists what there is."""
    path = {"last": paths.last, "best": paths.best}.get(choice) or paths.epoch(int(choice))
    if path.is_file():
        return path
    if choice == "last" and paths.previous.is_file():
        return paths.previous
    there = [name for name, p in (("last", paths.last), ("best", paths.best)) if p.is_file()]
    there += [str(epoch) for epoch in paths.kept_epochs()]
    raise UserError(
        f"-c {choice}: {path} does not exist; there is {', '.join(there) or 'no checkpoint'}."
    )
