"""The tensors of a file that `torch.save` wrote, whatever else is pickled in it; nothing of it is run.

Two forms: a zip archive (torch 1.6 and later), whose `data.pkl` names storages that lie beside it, and
before that a row of pickles followed by the storages. Formats: torch/serialization.py, `_save` and
`_legacy_save` (BSD-3-Clause); the code is our own. Names of tensors are those of the module's state dict.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from BrainAgeNetworks.module_trees import NamedTensors, entries_of, named_tensors, unwrapped
from BrainAgeNetworks.unpickling import (
    Made,
    Named,
    Pairs,
    Persistent,
    PickleError,
    Unpickled,
    unpickle,
)
from utils.common.errors import UserError
from utils.common.text import shown

# What checkpoints of this program end with (`checkpoints.save_checkpoint`), before a sha256.
OUR_CHECKSUM = b"\nbrain-age checkpoint sha256:"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_STORAGE_MODULES = ("torch", "torch.cuda", "torch.storage")
_DTYPES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}  # fmt: skip
ZIP_START = b"PK\x03\x04"
# What zipfile raises for malformed archives.
OF_ZIPFILE = (
    zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, ValueError, KeyError, OSError,
    struct.error, zlib.error,
)  # fmt: skip


class TorchFileError(UserError):
    """A file of weights from which no tensors can be read; the message names it and says why."""


@dataclass(frozen=True)
class TorchFile:
    """Tensors by name, every global that the pickle in the file names, and what was no tensor."""

    tensors: dict[str, torch.Tensor]
    globals_met: list[str]
    left_out: list[str]


def has_our_checksum(data: bytes) -> bool:
    """Whether a file ends as checkpoints of this program do."""
    return OUR_CHECKSUM in data[-2 * len(OUR_CHECKSUM) - 64 :]


def read_torch_file(path: Path, data: bytes) -> TorchFile:
    """The tensors of the module or state dict in a file; `path` is for messages.

    Raises
    ------
    TorchFileError
        Of another kind, truncated, contradicts itself, or without tensors that belong together; or a
        checkpoint of this program, of which the tensors are the lesser part.
    """
    if has_our_checksum(data):
        raise TorchFileError(_ours(path))
    try:
        archive = _zip_archive(data) if data.startswith(ZIP_START) else _legacy_archive(data)
        if "format_version" in entries_of(archive.pickled.value):
            raise TorchFileError(_ours(path))
        named = archive.named_tensors()
        tensors = {name: archive.tensor(name, node) for name, node in named.nodes.items()}
    except PickleError as error:
        raise TorchFileError(
            f"{path}: no weights can be read from it: {shown(error, 350)}."
        ) from error
    except (*OF_ZIPFILE, MemoryError) as error:
        said = str(error) or type(error).__name__
        raise TorchFileError(f"{path}: is damaged or truncated ({shown(said, 200)}).") from error
    return TorchFile(tensors, sorted(archive.pickled.globals_met), named.left_out)


def _ours(path: Path) -> str:
    return (
        f"{path}: is a checkpoint of this program; set [TRAINING] use_pre_trained to it as it is. Converted, "
        "its preprocessing and its mean age would be lost."
    )


def _zip_archive(data: bytes) -> _Archive:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in infos if name.endswith("/data.pkl")]
        root = pickles[0].removesuffix("/data.pkl") if pickles else ""
        if len(pickles) != 1 or f"{root}/constants.pkl" in infos:
            raise PickleError(
                "it is a zip archive, but not of torch.save (TorchScript is not read)"
            )
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos.values()):
            raise PickleError("its parts are compressed, which torch.save never does")
        if sum(info.file_size for info in archive.infolist()) > len(data):
            raise PickleError("its parts announce more bytes than it has")
        if f"{root}/byteorder" in infos and archive.read(f"{root}/byteorder") != b"little":
            raise PickleError("its numbers are big-endian, which are not read here")
        pickled = unpickle(io.BytesIO(archive.read(pickles[0])))
        storages = {}
        for key, dtype in _storages_of(pickled).items():
            if f"{root}/data/{key}" not in infos:
                raise PickleError(f"its storage {key[:100]!r} is missing")
            storages[key] = _flat(archive.read(f"{root}/data/{key}"), dtype)
    return _Archive(pickled, storages, len(data))


def _legacy_archive(data: bytes) -> _Archive:
    stream = io.BytesIO(data)
    if not data.startswith(pickle.PROTO) or unpickle(stream).value != _LEGACY_MAGIC:
        raise PickleError("it was not written by torch.save")
    if unpickle(stream).value != _LEGACY_PROTOCOL:
        raise PickleError("it was written by a version of torch.save that is not known")
    system = unpickle(stream).value
    if not isinstance(system, Pairs) or system.by_name().get("little_endian") is not True:
        raise PickleError("its numbers are big-endian, which are not read here")
    pickled = unpickle(stream)
    dtypes = _storages_of(pickled)
    keys = unpickle(stream).value
    if not isinstance(keys, list):
        raise PickleError("its list of storages is missing")
    storages = {}
    for key in keys:
        if not isinstance(key, str) or key not in dtypes:
            raise PickleError("it lists a storage that nothing uses")
        n_bytes = int.from_bytes(stream.read(8), "little", signed=True) * dtypes[key].itemsize
        if not 0 <= n_bytes <= len(data) - stream.tell():
            raise PickleError(f"it is cut off: a storage announces {n_bytes} bytes")
        storages[key] = _flat(stream.read(n_bytes), dtypes[key])
    return _Archive(pickled, storages, len(data))


def _flat(content: bytes, dtype: torch.dtype) -> torch.Tensor:
    """(N,) the values of a storage."""
    n_values = len(content) // dtype.itemsize
    if not n_values:
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer(bytearray(content), dtype=dtype, count=n_values)


def _storages_of(pickled: Unpickled) -> dict[str, torch.dtype]:
    """Key of each storage that the pickle names -> its kind of number."""
    found: dict[str, torch.dtype] = {}
    for persistent in pickled.persistent:
        identity = persistent.identity
        what = identity[0] if isinstance(identity, tuple) and identity else None
        if what == "module":  # the class of a module, with its source
            continue
        if what != "storage" or len(identity) not in (5, 6) or not isinstance(identity[2], str):
            raise PickleError("it keeps something outside of its pickle that is not known")
        dtype = _dtype_of(identity[1])
        if found.setdefault(identity[2], dtype) != dtype:
            raise PickleError("a storage is used as two kinds of numbers")
    return found


def _dtype_of(kind: Any) -> torch.dtype:
    if isinstance(kind, Named) and kind.module in _STORAGE_MODULES and kind.name in _DTYPES:
        return _DTYPES[kind.name]
    name = shown(kind) if isinstance(kind, Named) else "which it does not name"
    raise PickleError(f"it holds numbers of a kind that is not known ({name})")


@dataclass
class _Archive:
    """A pickle with its storages; finds tensors in it."""

    pickled: Unpickled
    storages: dict[str, torch.Tensor]
    n_bytes_left: int  # tensors of no more bytes than the file has are made

    def named_tensors(self) -> NamedTensors:
        """Of the one module or state dict in the file."""
        found = named_tensors(self.pickled.value)
        if not found.nodes:
            raise PickleError(f"it holds no tensors; it names {_globals_met(self.pickled)}")
        return found

    def tensor(self, name: str, node: Made) -> torch.Tensor:
        """What a node makes; `name` is for messages."""
        name = shown(name)
        node = unwrapped(node)
        known = isinstance(node.arguments, tuple) and len(node.arguments) >= 4
        persistent, offset, size, stride = node.arguments[:4] if known else (None, 0, (), ())
        whole = _are_counts((offset,)) and _are_counts(size) and _are_counts(stride)
        if not (isinstance(persistent, Persistent) and whole and len(size) == len(stride)):
            raise PickleError(f"its tensor {name} is described in a way that is not known")
        flat, offset = self._storage(name, persistent, offset)
        n_values = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride))
        n_bytes = n_values * flat.dtype.itemsize
        if not n_values or last >= len(flat) or n_bytes > self.n_bytes_left:
            raise PickleError(f"its tensor {name} announces other values than are stored")
        self.n_bytes_left -= n_bytes
        part = flat.as_strided(size, stride, offset)
        return part.clone(memory_format=torch.contiguous_format)

    def _storage(self, name: str, persistent: Persistent, offset: int) -> tuple[torch.Tensor, int]:
        """The values of a storage, and where in them a tensor begins."""
        identity = persistent.identity
        if identity[0] != "storage" or identity[2] not in self.storages:
            raise PickleError(f"the values of its tensor {name} are missing")
        view = identity[5] if len(identity) == 6 else None  # a part of a storage: key, start, size
        if view is None:
            return self.storages[identity[2]], offset
        if not (isinstance(view, tuple) and len(view) == 3 and _are_counts(view[1:])):
            raise PickleError(f"its tensor {name} is described in a way that is not known")
        return self.storages[identity[2]], offset + view[1]


def _are_counts(values: Any) -> bool:
    return isinstance(values, (tuple, list)) and all(
        isinstance(value, int) and 0 <= value < 2**48 for value in values
    )


def _globals_met(pickled: Unpickled) -> str:
    return shown(", ".join(sorted(pickled.globals_met)) or "nothing", 300)
