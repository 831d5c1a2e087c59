"""Weights of other origin: this program's checkpoints and exports, and AgeMapper's and SFCN's released state dicts.

Nothing in a file is run. Which network it is follows from the names in it, the widths from the shapes. With
the weights comes what they are worth nothing without: the preprocessing of the volumes, and what the outputs
mean in years.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import math
import pickle
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from BrainAgeNetworks.blocks import Box, checked_poolings, pooled_box
from BrainAgeNetworks.checkpoints import load_checkpoint
from BrainAgeNetworks.conversion import read_converted, read_file
from BrainAgeNetworks.exported import is_exported, read_exported_network
from BrainAgeNetworks.registry import NetworkPlan
from BrainAgeNetworks.targets import BinsTarget, Target, YearsTarget, target_from_dict
from BrainAgeNetworks.torch_files import OF_ZIPFILE, ZIP_START, has_our_checksum
from utils.common.errors import UserError
from utils.common.text import listed, shown

CHECKPOINT, EXPORTED, SFCN, AGEMAPPER = "checkpoint", "exported", "sfcn", "agemapper"
# What the released networks see: the crop of a 1 mm volume.
PUBLISHED_BOX: Box = (160, 192, 160)
# Bins of SFCN's release: Peng et al. 2021, as `targets.BinsTarget`. The mean age does not enter.
RELEASED_SFCN_TARGET = BinsTarget(62.0)
# AgeMapper's release regresses years as they are.
RELEASED_AGEMAPPER_TARGET = YearsTarget(0.0)
# Under these keys training programs keep the weights in a checkpoint that holds more.
_WEIGHT_KEYS = ("state_dict", "model_state_dict")
_LFS_POINTER = b"version https://git-lfs"


class PretrainedError(UserError):
    """Weights that cannot be started from; the message names the file and says why."""


@dataclass(frozen=True)
class Architecture:
    """What the names and shapes of a state dict say of its network."""

    network: str
    widths: tuple[int, ...]
    n_outputs: int
    n_features: int | None  # inputs of the first Linear; None where any input box fits
    output_layer: str  # e.g. FullyConnected.FullyConnected_1

    def plan(
        self, box: Box = PUBLISHED_BOX, upsample: bool = False, n_poolings: int | None = None
    ) -> NetworkPlan:
        """The plan of a network with these weights for an input box.

        Raises
        ------
        PretrainedError
            The first Linear is for another box.
        """
        n_pooled = checked_poolings(n_poolings, len(self.widths) - (self.network == SFCN))
        seen: Any = tuple(2 * size for size in box) if upsample else box
        n_features = math.prod(pooled_box(seen, n_pooled)) * self.widths[-1]
        if self.n_features not in (None, n_features):
            raise PretrainedError(
                f"an input of {' x '.join(map(str, box))} voxels gives {n_features} numbers after "
                f"{n_pooled} poolings, and the weights are for {self.n_features}: for another box."
            )
        return NetworkPlan(
            self.network, box, self.n_outputs, self.widths, upsample=upsample, n_poolings=n_poolings
        )


@dataclass(frozen=True)
class Pretrained:
    """Weights, named as this program's networks name them, with what is known of them."""

    path: Path
    kind: str  # CHECKPOINT, EXPORTED, SFCN or AGEMAPPER
    sha256: str  # of the file
    weights: dict[str, torch.Tensor]
    architecture: Architecture
    target: Target | None  # None: what the outputs mean is not known
    preprocessing: str
    record: dict[str, Any] = field(default_factory=dict)  # of its training; {} for released weights


def read_pretrained(path: str | Path) -> Pretrained:
    """Read a file of weights, whichever of the known kinds it is.

    Raises
    ------
    UserError
        It is not there, damaged, a pickled module (`-m convert` reads those), or of no network known here.
    """
    path = Path(path)
    data = read_file(path)
    if data[8:9] == b"{":  # the length of a JSON header, then the header: safetensors
        return _from_tensors(path, data)
    digest = hashlib.sha256(data).hexdigest()
    if has_our_checksum(data):
        return _from_checkpoint(path, load_checkpoint(path), digest)
    content = _plain_content(path, data)
    if isinstance(content, dict) and "format_version" in content:
        return _from_checkpoint(
            path, load_checkpoint(path), digest
        )  # refuses it: its checksum is gone
    return _released(path, _state_dict(path, content), digest)


def architecture_of(weights: dict[str, torch.Tensor]) -> Architecture | None:
    """The network that a state dict is of, by its names; None for none that is known here."""
    if "Feature_Extractor.Convolution_0.0.weight" in weights:
        widths = _widths(weights, "Feature_Extractor.Convolution_{}.0.weight")
        first = weights.get("FullyConnected.FullyConnected_3.weight")
        output_layer = "FullyConnected.FullyConnected_1"
        n_features = first.shape[1] if first is not None and first.dim() == 2 else None
        return _architecture(weights, AGEMAPPER, widths, n_features, output_layer)
    if "feature_extractor.conv_0.0.weight" in weights:
        widths = _widths(weights, "feature_extractor.conv_{}.0.weight")
        output_layer = f"classifier.conv_{len(widths)}"
        return _architecture(weights, SFCN, widths, None, output_layer)
    return None


def _from_tensors(path: Path, data: bytes) -> Pretrained:
    if is_exported(path):
        weights, record = read_exported_network(path)
        return _ours(path, EXPORTED, weights, record, hashlib.sha256(data).hexdigest())
    return _released(path, *read_converted(path))


def _from_checkpoint(path: Path, record: dict[str, Any], digest: str) -> Pretrained:
    weights, average = record.pop("weights"), record.pop("average", None)
    record.pop("optimiser", None)
    weights = average["weights"] if average else weights  # the average is what was validated
    return _ours(path, CHECKPOINT, weights, record, digest)


def _ours(
    path: Path, kind: str, weights: dict[str, torch.Tensor], record: dict[str, Any], digest: str
) -> Pretrained:
    architecture = architecture_of(weights)
    if architecture is None:
        raise PretrainedError(f"{path}: is of a network that is not known here.")
    preprocessing = record["contrast"].get("preprocessing", "agemapper")  # older ones knew no other
    target = target_from_dict(record["target"])
    return Pretrained(path, kind, digest, weights, architecture, target, preprocessing, record)


def _released(path: Path, tensors: dict[str, torch.Tensor], digest: str) -> Pretrained:
    weights = _without_wrapper(tensors)
    architecture = architecture_of(weights)
    if architecture is None:
        raise PretrainedError(
            f"{path}: holds weights of no network that is known here; its names begin with "
            f"{listed(list(weights)[:3])}. Known are AgeMapper's and SFCN's."
        )
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise PretrainedError(f"{path}: {name} holds values that are NaN or infinite.")
    weights = {n: t.float() if t.is_floating_point() else t for n, t in weights.items()}
    n_outputs = architecture.n_outputs
    if architecture.network == SFCN:
        known = n_outputs == RELEASED_SFCN_TARGET.n_outputs
        target: Target | None = RELEASED_SFCN_TARGET if known else None
        preprocessing = "peng"
    else:
        target = RELEASED_AGEMAPPER_TARGET if n_outputs == 1 else None
        preprocessing = "agemapper"
    return Pretrained(
        path, architecture.network, digest, weights, architecture, target, preprocessing
    )


def _plain_content(path: Path, data: bytes) -> Any:
    """Tensors and plain values of a file that torch.save wrote (zip, or the older form); nothing is run."""
    if data.startswith(_LFS_POINTER):
        raise PretrainedError(
            f"{path}: is a Git LFS pointer, not the weights themselves; fetch them (git lfs pull)."
        )
    if data.startswith(ZIP_START):
        _refuse_flipped_bits(path, data)
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not data.startswith((ZIP_START, b"\x80")):
            raise PretrainedError(f"{path}: is no file of weights.") from error
        raise PretrainedError(
            f"{path}: holds pickled Python objects, e.g. a whole module, which could run any code when "
            "loaded, and is refused. Convert it first: -m convert with the same settings reads its tensors "
            "without running anything."
        ) from error
    except Exception as error:  # whatever torch says of bytes that are no weights
        raise PretrainedError(f"{path}: is damaged, or no file of weights.") from error


def _refuse_flipped_bits(path: Path, data: bytes) -> None:
    """Compare the checksums in a zip archive, which torch.load does not."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise PretrainedError(
                    f"{path}: its parts are compressed, which torch.save never does; get it anew."
                )
            damaged = archive.testzip()
    except OF_ZIPFILE as error:
        raise PretrainedError(f"{path}: is damaged, or no file of weights.") from error
    if damaged is not None:
        raise PretrainedError(
            f"{path}: is damaged: the checksum of {shown(damaged)} in it does not match. Get it anew, or save it "
            "again where it was written, if that was done without checksums (torch's set_crc32_options)."
        )


def _state_dict(path: Path, content: Any) -> dict[str, torch.Tensor]:
    """The state dict in a file: all of it, or what lies under the usual key of a checkpoint."""
    if isinstance(content, dict):
        inner = [content[key] for key in _WEIGHT_KEYS if isinstance(content.get(key), dict)]
        content = inner[0] if inner else content
    plain = isinstance(content, dict) and all(
        isinstance(name, str)
        and isinstance(value, torch.Tensor)
        and value.layout is torch.strided
        and not (value.is_quantized or value.is_complex())
        for name, value in content.items()
    )
    if not plain or not content:
        raise PretrainedError(f"{path}: holds no state dict (names and their tensors).")
    return dict(content)


def _without_wrapper(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names without the `module.` that DataParallel puts in front."""
    while weights and all(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    return weights


def _widths(weights: dict[str, torch.Tensor], pattern: str) -> tuple[int, ...]:
    """Channels of the convolutions, from the first to the last that is there."""
    names = itertools.takewhile(weights.__contains__, map(pattern.format, itertools.count()))
    return tuple(weights[name].shape[0] if weights[name].dim() else 0 for name in names)


def _architecture(
    weights: dict[str, torch.Tensor],
    network: str,
    widths: tuple[int, ...],
    n_features: int | None,
    output_layer: str,
) -> Architecture:
    bias = weights.get(f"{output_layer}.bias")
    return Architecture(
        network, widths, bias.numel() if bias is not None else 0, n_features, output_layer
    )
