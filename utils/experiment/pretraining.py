"""Networks that start from weights of another training: what is loaded, and what has to agree first."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from BrainAgeNetworks.matching import KEEP, weights_for
from BrainAgeNetworks.pretrained import PUBLISHED_BOX, Pretrained, read_pretrained
from datasets.contrasts import Contrast, described_contrast
from utils.common.errors import UserError
from utils.common.messages import say, warn
from utils.experiment.experiment import Cell, Experiment
from utils.training.member import Member

# Two scale factors worked out on two training sets of the same scanner differ by less than this share.
AUTO_SCALE_TOLERANCE = 0.05


def start_from(
    experiment: Experiment, cell: Cell, member: Member, record: dict[str, Any]
) -> dict[str, Any]:
    """Load `use_pre_trained` into a fresh member; what was loaded, for its checkpoints ({}: nothing).

    record : the record of this training (`training_record`).

    Raises
    ------
    UserError
        The weights cannot be read, or were trained on volumes, with a network or for outputs that differ
        from what is set.
    """
    training = experiment.settings.training
    if not training.use_pre_trained:
        if training.frozen_layers:
            warn(
                f"{cell.name} network {member.number}: frozen_layers without use_pre_trained: these layers stay "
                "at random."
            )
        return {}
    path = pre_trained_path(experiment, cell, member.number)
    pretrained = read_pretrained(path)
    head = training.pre_trained_head
    problems = volume_problems(pretrained, cell.contrast, record)
    problems += resolution_problems(pretrained, record) if head == KEEP else []
    if problems:
        raise UserError(f"{path}: does not fit {cell.name}: {'; '.join(problems)}.")
    for difference in permitted_differences(pretrained, cell, record):
        warn(f"{path}: {difference}.")
    state, found = weights_for(pretrained, member.network.state_dict(), member.target, head)
    member.network.load_state_dict(state)
    if member.average:
        member.average.network.load_state_dict(state)
    say(f"  network {member.number} starts from {path} ({pretrained.kind}): {found.sentence()}")
    shared = "{network}" not in training.use_pre_trained and head == KEEP
    if shared and member.number > 1 and not member.has_dropout:
        warn(
            f"{cell.name} network {member.number} starts from the same weights as network 1 and sees the same "
            "batches: without dropout they stay equal. Put {network} into use_pre_trained, or set "
            'pre_trained_head = "new", a dropout rate, or ensemble_size = 1.'
        )
    return {
        "file": path.name,
        "sha256": pretrained.sha256,
        "kind": pretrained.kind,
        "experiment": pretrained.record.get("experiment", ""),
        "preprocessing": pretrained.preprocessing,
        "n_matched": len(found.matched),
        "head": head,
    }


def pre_trained_path(experiment: Experiment, cell: Cell, number: int) -> Path:
    """The file of weights that a network starts from."""
    text = experiment.settings.training.use_pre_trained
    try:
        name = text.format(contrast=cell.contrast.name, sex=cell.sex, network=number)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise UserError(
            f"[TRAINING] use_pre_trained = {text!r}: unknown field {error}; known are {{contrast}}, {{sex}} "
            "and {network}."
        ) from error
    return experiment.settings.path(name)


def pre_trained_paths(experiment: Experiment) -> list[Path]:
    """The files of weights of all networks of this run's cells, each once."""
    text, size = experiment.settings.training.use_pre_trained, 1
    if not text:
        raise UserError("[TRAINING] use_pre_trained: name the file of weights first.")
    if "{" not in text:
        return [experiment.settings.path(text)]
    if "{network}" in text:
        size = experiment.settings.training.ensemble_size
    numbers = range(1, size + 1)
    paths = [pre_trained_path(experiment, cell, n) for cell in experiment.cells for n in numbers]
    return list(dict.fromkeys(paths))


def volume_problems(
    pretrained: Pretrained, contrast: Contrast, record: dict[str, Any]
) -> list[str]:
    """In what the volumes that the weights were trained on differ, so that their ages would mean nothing."""
    if pretrained.preprocessing != contrast.preprocessing:
        return [
            f"its weights were trained with preprocessing {pretrained.preprocessing}, and "
            f'{contrast.preprocessing} is set; set [DATA] preprocessing = "{pretrained.preprocessing}"'
        ]
    if not pretrained.record:
        return []  # released: nothing else travels with it
    trained, wanted = described_contrast(pretrained.record["contrast"]), contrast.describe()
    keys = ["voxel_mm", "shape", "crop"]
    if trained["name"] == contrast.name:
        keys.append("divide_by_mean")
        factor = record["contrast"]["scale_factor"]
        fixed = not (pretrained.record["scale_factor_is_auto"] and contrast.scale_factor is None)
        if fixed and not math.isclose(trained["scale_factor"], factor, rel_tol=1e-6):
            return [
                f"scale_factor was {trained['scale_factor']:.6g} in its training and is {factor:.6g}; "
                "set the former in the contrast table"
            ]
    return [
        f"{key} was {trained[key]} in its training and is {wanted[key]}; correct the contrast table"
        for key in keys
        if trained[key] != wanted[key]
    ]


def resolution_problems(pretrained: Pretrained, record: dict[str, Any]) -> list[str]:
    """In what the network saw the same volumes otherwise: their resolution is in none of SFCN's shapes."""
    if not pretrained.record:
        return []  # released: `permitted_differences` says what it saw
    trained, wanted = (_way_of_2mm(r["network_plan"]) for r in (pretrained.record, record))
    if trained == wanted:
        return []
    return [
        f"its network was trained on volumes {trained}, and the one that is set gets them {wanted}; set "
        '[NETWORK] resolution_2mm as it was ("upsample" or "native"), or pre_trained_head = "new"'
    ]


def permitted_differences(pretrained: Pretrained, cell: Cell, record: dict[str, Any]) -> list[str]:
    """In what the training of the weights differed, which further training may make up for."""
    contrast, found = cell.contrast, []
    if not pretrained.record:
        seen = tuple(2 * size for size in contrast.box) if _upsampled(record) else contrast.box
        if seen != PUBLISHED_BOX:
            found.append(
                f"the released network sees {' x '.join(map(str, PUBLISHED_BOX))} voxels, this one "
                f"{' x '.join(map(str, seen))}; its ages mean nothing before it was trained further"
            )
        if contrast.scale_factor is None:
            found.append(
                "the released network was trained with the published scale factor, and scale_factor is auto"
            )
        return found
    before = pretrained.record
    trained = before["contrast"]
    if trained["name"] != contrast.name:
        found.append(f"was trained on {trained['name']}, and goes on with {contrast.name}")
    elif not math.isclose(
        trained["scale_factor"], record["contrast"]["scale_factor"], rel_tol=AUTO_SCALE_TOLERANCE
    ):
        found.append(
            f"the automatic scale factor was {trained['scale_factor']:.6g} in its training and is "
            f"{record['contrast']['scale_factor']:.6g}"
        )
    if before["sex"] != cell.sex:
        found.append(f"was trained on {before['sex']} subjects, and goes on with {cell.sex}")
    split_hash = before.get("split_hash")
    if split_hash != record.get("split_hash"):
        # exports of small cohorts leave the hash out
        how = "with another split" if split_hash else "on subjects that are not known"
        found.append(
            f"was trained {how}: one who is tested now and was trained on then would flatter it"
        )
    return found


def _way_of_2mm(plan: dict[str, Any]) -> str:
    """How a network's plan treats the resolution of its volumes."""
    n_poolings = plan.get("n_poolings")
    pooled = "all poolings" if n_poolings is None else f"{n_poolings} pooling(s)"
    return f"{'upsampled' if plan.get('upsample') else 'as they are'}, with {pooled}"


def _upsampled(record: dict[str, Any]) -> bool:
    return bool(record["network_plan"].get("upsample"))
