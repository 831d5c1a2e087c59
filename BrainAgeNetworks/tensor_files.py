"""Files of tensors and nothing else (safetensors), whose checksum is kept elsewhere and compared when read.

The format notices truncation, but not a flipped bit among the numbers; the sha256 does. Format:
https://github.com/huggingface/safetensors (Apache-2.0).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from BrainAgeNetworks.checkpoints import CheckpointError
from utils.common.files import write_bytes

ENDING = ".safetensors"


def write_tensors(
    tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None
) -> str:
    """Write tensors by name beside `path` and rename; the sha256 of the file.

    The same tensors give the same bytes as long as `metadata` has one entry at most: of several the format
    keeps no order.
    """
    save, _ = _safetensors()
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save(plain, metadata)
    write_bytes(content, path)
    return hashlib.sha256(content).hexdigest()


def read_tensors(path: Path, sha256: str) -> dict[str, torch.Tensor]:
    """Tensors by name, on the CPU.

    Raises
    ------
    CheckpointError
        It is not there, its checksum is not `sha256`, or it is no file of tensors.
    """
    _, load = _safetensors()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path}: no weights can be read there ({error.strerror})."
        ) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CheckpointError(
            f"{path}: is damaged, or not the file that was written: its checksum differs. Copy it again."
        )
    try:
        return load(data)
    except Exception as error:  # its own error classes differ between releases
        raise CheckpointError(f"{path}: is no safetensors file ({error}).") from error


def _safetensors():
    """Its `save` and `load`; imported late, since most runs need neither."""
    try:
        from safetensors.torch import load, save
    except ImportError as error:
        raise CheckpointError(
            "safetensors is not installed, without which exported networks are neither written nor read; "
            "run setup.sh, or pip install safetensors."
        ) from error
    return save, load
