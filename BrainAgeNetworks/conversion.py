"""Files of weights that are whole pickled modules -> safetensors, which hold tensors and nothing else.

Beside NAME.safetensors lies NAME.json: where the weights are from, every global that the pickle named, and
checksums, which reading compares.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import torch

from BrainAgeNetworks.tensor_files import ENDING, read_tensors, write_tensors
from BrainAgeNetworks.torch_files import read_torch_file
from utils.common.errors import UserError
from utils.common.files import read_json, write_json

# What weights and the modules around them are made of; other globals are of the program that pickled them.
_EXPECTED_GLOBALS = ("torch.", "collections.OrderedDict", "__builtin__.set", "builtins.set")
# What a pickle names that means to do something; no weights have a use for them.
_HARMFUL_MODULES = ("os", "posix", "nt", "subprocess", "sys", "shutil", "socket")
_HARMFUL_BUILTINS = ("eval", "exec", "compile", "open", "getattr", "__import__")
# A name of `-m export`, and what its files say of themselves in the beginning of their header.
_EXPORTED_NAME = r"network_\d+\.safetensors"
_EXPORTED_MARK, _HEADER_BEGINNING = b'"brain_age"', 4096


class ConversionError(UserError):
    """A file of weights cannot be read; the message names it and says why."""


def read_file(path: Path) -> bytes:
    """The bytes of a file of weights.

    Raises
    ------
    ConversionError
        It is not there, is no file, or cannot be read.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe or a device would never end
            raise ConversionError(f"{path}: is a folder or no regular file, not a file of weights.")
        return path.read_bytes()
    except OSError as error:
        raise ConversionError(
            f"{path}: no weights can be read there ({error.strerror or error})."
        ) from error


def converted_stem(source: Path) -> str:
    """`model.pth.tar` -> `model`."""
    name = source.name
    for ending in (".tar", ".pth", ".pt", ".pkl", ".bin", ".ckpt"):
        name = name.removesuffix(ending)
    return name or source.name


def convert(source: Path, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Write the tensors of `source` into `folder`; the file, and the record that is written beside it.

    Raises
    ------
    UserError
        The source holds no tensors that can be read, or cannot be written.
    """
    data = read_file(source)
    found = read_torch_file(source, data)
    target = folder / f"{converted_stem(source)}{ENDING}"
    record = {
        "source": source.name,
        "source_sha256": hashlib.sha256(data).hexdigest(),
        "sha256": write_tensors(found.tensors, target),
        "n_tensors": len(found.tensors),
        "n_values": sum(tensor.numel() for tensor in found.tensors.values()),
        "globals_met": found.globals_met,
        "left_out": found.left_out,
    }
    write_json(record, record_path(target))
    return target, record


def unusual_globals(globals_met: list[str]) -> list[str]:
    """Those of the globals that a pickled network does not need, but for the harmful ones."""
    harmful = harmful_globals(globals_met)
    return [n for n in globals_met if not (n.startswith(_EXPECTED_GLOBALS) or n in harmful)]


def harmful_globals(globals_met: list[str]) -> list[str]:
    """Those of the globals that run commands or code, or reach for files or the net."""
    builtins = {f"{m}.{name}" for m in ("builtins", "__builtin__") for name in _HARMFUL_BUILTINS}
    return [n for n in globals_met if n.split(".")[0] in _HARMFUL_MODULES or n in builtins]


def record_path(path: Path) -> Path:
    """The record beside a file of tensors."""
    return path.with_suffix(".json")


def read_converted(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """Tensors by name, and the sha256 of the file, which was compared with its record.

    Raises
    ------
    ConversionError
        No file, no record beside it, or damaged.
    """
    if not record_path(path).is_file():
        if _is_of_an_export(path):
            raise ConversionError(
                f"{path}: looks like an exported network of this program, and the model_card.json of the export, "
                "without which its weights are worth nothing, does not lie beside it. Copy the whole folder "
                f"(or {record_path(path).name} as well, if it was converted)."
            )
        raise ConversionError(
            f"{path}: {record_path(path).name} with its checksum does not lie beside it; without it a "
            "damaged file would not be noticed. Copy both, or convert the source again with -m convert."
        )
    record = read_json(record_path(path))
    digest = record.get("sha256") if isinstance(record, dict) else None
    if not isinstance(digest, str):
        raise ConversionError(f"{record_path(path)}: holds no checksum of {path.name}.")
    return read_tensors(path, digest), digest


def _is_of_an_export(path: Path) -> bool:
    """Whether a file of tensors has the name or the mark of an exported network."""
    named = re.fullmatch(_EXPORTED_NAME, path.name) is not None
    return named or _EXPORTED_MARK in read_file(path)[:_HEADER_BEGINNING]
