"""Image files as bytes, good ones and those with single fields set to anything; for the tests of reading."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from datasets.contrasts import Contrast
from utils.common.randomness import generator

SHAPE = (10, 12, 9)
VOXEL_MM = 8.0
CONTRAST = Contrast(
    name="tiny", data_file="", scale_factor=2.0, voxel_mm=VOXEL_MM, shape=SHAPE,
    crop=((1, 9), (2, 12), (0, 8)), volume_index=None, divide_by_mean=False, category="",
)  # fmt: skip
BOX = tuple(slice(*edges) for edges in CONTRAST.crop)

_NIFTI = {
    (1, True): nib.Nifti1Header,
    (1, False): nib.nifti1.Nifti1PairHeader,
    (2, True): nib.Nifti2Header,
    (2, False): nib.nifti2.Nifti2PairHeader,
}


def some_values(*words: int | str, shape: tuple[int, ...] = SHAPE, dtype: Any = "i2") -> np.ndarray:
    """Numbers that fit into `dtype`; below 0 too where it has a sign."""
    dtype = np.dtype(dtype)
    draw = generator("image bytes", *words)
    if dtype.kind == "f":
        return draw.normal(100, 50, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return draw.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def nifti_parts(
    values: np.ndarray, version: int = 1, order: str = "<", single: bool = True, **fields: Any
) -> tuple[bytes, bytes]:
    """Header and voxels of a NIfTI image; `fields` replace those of the header, whatever they are."""
    header = _NIFTI[version, single](endianness=order)
    if values.dtype.names is None:
        header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape)
    header.set_zooms(((VOXEL_MM,) * 3 + (1.0,) * 4)[: values.ndim])
    header.set_sform(CONTRAST.affine, code=4)
    header.set_qform(CONTRAST.affine, code=4)
    header["vox_offset"] = header.single_vox_offset if single else 0
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock, values.astype(values.dtype.newbyteorder(order)).tobytes("F")


def nifti(values: np.ndarray, version: int = 1, order: str = "<", **fields: Any) -> bytes:
    """A single-file NIfTI image without extensions."""
    header, voxels = nifti_parts(values, version, order, **fields)
    return header + b"\x00" * 4 + voxels


def patched(content: bytes, place: int, replacement: bytes) -> bytes:
    """Bytes with some of them replaced."""
    return content[:place] + replacement + content[place + len(replacement) :]


def mgh(values: np.ndarray, good_ras: int = 1, **fields: Any) -> bytes:
    """An uncompressed FreeSurfer volume."""
    header = nib.freesurfer.mghformat.MGHHeader()
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape)
    header["delta"] = VOXEL_MM
    header["Mdc"] = np.diag([-1.0, 1.0, 1.0])
    header["Pxyz_c"] = (CONTRAST.affine @ [*(np.array(values.shape[:3]) / 2), 1])[:3]
    header["goodRASFlag"] = good_ras
    for name, value in fields.items():
        header[name] = value
    beginning = header.binaryblock[:284].ljust(284, b"\x00")
    return beginning + values.astype(values.dtype.newbyteorder(">")).tobytes("F") + b"\x00" * 20


def analyze_parts(values: np.ndarray, order: str = "<", **fields: Any) -> tuple[bytes, bytes]:
    """Header and voxels of an Analyze 7.5 pair."""
    header = nib.AnalyzeHeader(endianness=order)
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape)
    header.set_zooms((VOXEL_MM,) * 3)
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock, values.astype(values.dtype.newbyteorder(order)).tobytes("F")


def write_pair(folder: Path, parts: tuple[bytes, bytes], gz: bool = False, name: str = "a") -> Path:
    """Write NAME.hdr and NAME.img; returns the path of the header."""
    ending = ".gz" if gz else ""
    for part, kind in zip(parts, (".hdr", ".img")):
        content = gzip.compress(part) if gz else part
        (folder / f"{name}{kind}{ending}").write_bytes(content)
    return folder / f"{name}.hdr{ending}"


def gzip_with_fields(content: bytes, extra: bytes = b"", name: bytes = b"", note: bytes = b""):
    """One gzip member whose header has an extra field, a file name, a comment and a checksum."""
    flags = 2 | (4 if extra else 0) | (8 if name else 0) | (16 if note else 0)
    header = b"\x1f\x8b\x08" + bytes([flags]) + b"\x00" * 4 + b"\x00\xff"
    header += struct.pack("<H", len(extra)) + extra if extra else b""
    header += name + b"\x00" if name else b""
    header += note + b"\x00" if note else b""
    header += struct.pack("<H", zlib.crc32(header) & 0xFFFF)
    raw = zlib.compressobj(6, zlib.DEFLATED, -15)
    ending = struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)
    return header + raw.compress(content) + raw.flush() + ending
