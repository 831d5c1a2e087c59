"""Saving and loading networks; the only file that reads weights.

A checkpoint is what `torch.save` writes (tensors and plain values, nothing that needs unpickling of
objects) followed by one line with its sha256. Neither torch nor the zip format inside notices a flipped
bit; the line does. Plain `torch.load(path, weights_only=True)` opens the file as well.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from utils.common.errors import UserError
from utils.common.files import write_bytes

FORMAT_VERSION = 1
_TRAILER = re.compile(rb"\nbrain-age checkpoint sha256:([0-9a-f]{64})\n\Z")
_TRAILER_LENGTH = len("\nbrain-age checkpoint sha256:") + 64 + 1
# What torch.save writes: a zip archive, or (old) a bare pickle of protocol 2 or later.
_STARTS_OF_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class CheckpointError(UserError):
    """A checkpoint is missing, damaged or of a kind that is not loaded; the message names the file."""


def save_checkpoint(content: dict[str, Any], path: str | Path) -> None:
    """Write tensors and plain values with a checksum, beside and renamed."""
    buffer = io.BytesIO()
    torch.save({"format_version": FORMAT_VERSION, **content}, buffer)
    data = buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    write_bytes(data + f"\nbrain-age checkpoint sha256:{digest}\n".encode(), path)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this program onto the CPU, its checksum verified.

    Raises
    ------
    CheckpointError
        No such file; damaged (checksum); holds pickled objects; written by a newer version.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path}: no checkpoint can be read there ({error.strerror})."
        ) from error
    trailer = _TRAILER.search(data[-_TRAILER_LENGTH:])
    if trailer is None:
        raise CheckpointError(_why_without_checksum(path, data))
    data = data[:-_TRAILER_LENGTH]
    if hashlib.sha256(data).hexdigest().encode() != trailer.group(1):
        raise CheckpointError(
            f"{path}: is damaged: its checksum does not match. Use another checkpoint or train again."
        )
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_pickled(path)) from error
    if content.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: has format {content.get('format_version')}, this program reads {FORMAT_VERSION}."
        )
    return content


def weights_hash(*networks: torch.nn.Module) -> str:
    """sha256 over the names and bytes of all weights and statistics: equal only for equal networks."""
    digest = hashlib.sha256()
    for network in networks:
        for name, value in network.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _why_without_checksum(path: Path, data: bytes) -> str:
    """Tell a damaged checkpoint of ours from somebody else's file; nothing in it is executed."""
    if data[:1] == pickle.PROTO:
        return _pickled(path)
    if data[8:10] == b'{"':  # the length of a JSON header, then the header
        return f"{path}: is a safetensors file, whatever its name; checkpoints of this program are not."
    if data.startswith(b"version https://git-lfs"):
        return f"{path}: is a Git LFS pointer, not the checkpoint itself; fetch it (git lfs pull)."
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        ours = b"brain-age checkpoint" in data[-2 * _TRAILER_LENGTH :]
        if not ours and data.startswith(_STARTS_OF_PICKLES):
            return _pickled(path)
    except Exception:  # whatever torch says of bytes that are no checkpoint
        content = None
    else:
        if not isinstance(content, dict) or "format_version" not in content:
            return f"{path}: holds weights of another program, which are not read as a checkpoint."
    return f"{path}: is damaged or no checkpoint: it does not end with its checksum."


def _pickled(path: Path) -> str:
    return (
        f"{path}: holds pickled Python objects, which could run any code when loaded, and is refused. "
        "Checkpoints hold tensors and plain values; save the network's state_dict() instead."
    )
