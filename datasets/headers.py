"""What the header of an image says about its voxels, judged field by field before anything is read.

nibabel repairs some malformed fields in silence (voxel sizes of 0, unknown codes, contradicting sizes of
numbers); a header that needs such a repair is damaged, and is refused here with its reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.freesurfer.mghformat import MGHHeader

_KINDS = {
    "NIfTI-1": nib.Nifti1Header,
    "NIfTI-2": nib.Nifti2Header,
    "NIfTI-1 pair": nib.nifti1.Nifti1PairHeader,
    "NIfTI-2 pair": nib.nifti2.Nifti2PairHeader,
}
_LARGEST_CODE = 5  # of sform and qform
_CIFTI_INTENTS = range(3000, 3100)
# Edges of a voxel beyond these are no sizes, mm.
_VOXEL_MM = (1e-4, 1e4)
_MGH_TYPES = (0, 1, 3, 4, 10)


class VolumeError(ValueError):
    """A volume cannot be used; the message is the reason, without the subject."""


class ReadFaultError(VolumeError):
    """A fault of the machine, not of the volume: read again later, it may be there."""


@dataclass(frozen=True)
class ImageHeader:
    """What a file says about its voxels."""

    form: str
    shape: tuple[int, ...]  # (X, Y, Z) or (X, Y, Z, V)
    dtype: np.dtype  # as stored, byte order included
    affine: np.ndarray  # (4, 4) voxel to world, mm
    zooms: tuple[float, float, float]  # mm
    slope: float
    intercept: float
    positioned: bool  # whether the header says where the voxels lie in the world

    @property
    def axes(self) -> str:
        """Where the three axes point to, e.g. LAS; `?` for an axis that the affine does not give."""
        return "".join(axis or "?" for axis in nib.aff2axcodes(self.affine))

    @property
    def n_volumes(self) -> int:
        """Volumes of a 4D file, else 1."""
        return self.shape[3] if len(self.shape) == 4 else 1

    @property
    def n_voxel_bytes(self) -> int:
        """Bytes of all voxels as stored."""
        n_voxels = 1
        for size in self.shape:  # Python's integers: a malformed header may ask for more than 2^63
            n_voxels *= size
        return n_voxels * self.dtype.itemsize


def nifti_header(form: str, head: bytes) -> tuple[ImageHeader, int]:
    """Header of a NIfTI image from its first bytes, and the offset of the first voxel, bytes.

    Raises
    ------
    VolumeError
        Malformed.
    """
    kind = _KINDS[form]
    size = kind.template_dtype.itemsize
    if len(head) < size:
        raise VolumeError(
            f"is damaged or truncated (it ends in its header, after {len(head)} bytes)"
        )
    orders = {int.from_bytes(head[:4], "little"): "<", int.from_bytes(head[:4], "big"): ">"}
    if size not in orders:
        raise VolumeError(f"its header gives its own size as {next(iter(orders))}, not {size}")
    raw = kind(head[:size], orders[size], check=False)
    shape = _nifti_shape(raw)
    dtype = _nifti_dtype(raw)
    zooms = np.array(raw["pixdim"][1:4], dtype=np.float64)
    _refuse_zooms(np.abs(zooms))
    for field in ("sform_code", "qform_code"):
        if not 0 <= int(raw[field]) <= _LARGEST_CODE:
            raise VolumeError(f"its header gives {field} {int(raw[field])}, not one of 0 to 5")
    scaling = _nifti_scaling(raw)
    data_offset = _nifti_offset(raw)
    with np.errstate(all="ignore"):  # numbers that are none are refused for it
        checked = kind(raw.binaryblock, orders[size], check=True)
        try:
            affine = checked.get_best_affine()
        except ValueError as error:
            raise VolumeError(f"its qform is no rotation ({error})") from error
        positioned = int(raw["sform_code"]) > 0 or int(raw["qform_code"]) > 0
        mm = tuple(float(zoom) for zoom in np.abs(zooms))
        return _judged(form, shape, dtype, affine, mm, scaling, positioned), data_offset


def mgh_header(head: bytes) -> tuple[ImageHeader, int]:
    """Header of a FreeSurfer volume, and the offset of the first voxel, bytes; errors as `nifti_header`."""
    raw = np.frombuffer(head, MGHHeader._hdrdtype, 1)[0]
    if int(raw["version"]) != 1:
        raise VolumeError(f"is no .mgh or .mgz volume: its version is {int(raw['version'])}, not 1")
    if int(raw["type"]) not in _MGH_TYPES:
        raise VolumeError(f"its header gives the data type {int(raw['type'])}, which is unknown")
    if int(raw["goodRASFlag"]) < 1:  # nibabel would take it for LSP, FreeSurfer for LIA
        raise VolumeError("its header does not say how its axes lie (goodRASFlag is 0)")
    with np.errstate(all="ignore"):
        header = MGHHeader(head[: MGHHeader._hdrdtype.itemsize], check=False)
        shape = tuple(int(size) for size in raw["dims"])
        mm = tuple(float(zoom) for zoom in header.get_zooms()[:3])
        _refuse_zooms(np.array(mm))
        dtype = header.get_data_dtype()
        affine = header.get_affine()
        return _judged("MGH", shape, dtype, affine, mm, (1.0, 0.0), True), 284


def plain_header(
    form: str, header: Any, affine: np.ndarray, scaling: tuple[float, float], positioned: bool
) -> ImageHeader:
    """Header of a form that nibabel read; errors as `nifti_header`."""
    shape = tuple(int(size) for size in header.get_data_shape())
    dtype = np.dtype(header.get_data_dtype())
    mm = tuple(float(zoom) for zoom in header.get_zooms()[:3])
    return _judged(form, shape, dtype, affine, mm, scaling, positioned)


def _judged(
    form: str,
    shape: tuple[int, ...],
    dtype: np.dtype,
    affine: np.ndarray,
    zooms: tuple[float, ...],
    scaling: tuple[float, float],
    positioned: bool,
) -> ImageHeader:
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if any(size < 1 for size in shape):
        raise VolumeError(f"its header gives the shape {shape}")
    if not 3 <= len(shape) <= 4:
        raise VolumeError(f"has {len(shape)} dimensions, expected 3")
    if dtype.kind not in "biuf":
        raise VolumeError(f"its voxels hold no plain numbers ({dtype})")
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise VolumeError("its affine is not finite")
    edges = np.sqrt(np.sum(affine[:3, :3].astype(np.float64) ** 2, axis=0))
    if not (edges > 0).all() or np.linalg.matrix_rank(affine[:3, :3] / edges) < 3:
        raise VolumeError("its affine has no inverse: it does not say where the axes point to")
    if not ((edges > _VOXEL_MM[0]) & (edges < _VOXEL_MM[1])).all():
        sizes = " x ".join(f"{edge:g}" for edge in edges)
        raise VolumeError(f"its affine gives voxels of {sizes} mm")
    if not (np.isfinite(scaling).all() and scaling[0] != 0):
        raise VolumeError(f"its slope and intercept are {scaling[0]:g} and {scaling[1]:g}")
    return ImageHeader(form, shape, dtype, affine, zooms, *scaling, positioned)  # type: ignore[arg-type]


def _nifti_shape(raw: Any) -> tuple[int, ...]:
    n_dimensions = int(raw["dim"][0])
    if not 1 <= n_dimensions <= 7:
        raise VolumeError(f"its header gives {n_dimensions} dimensions, not 1 to 7")
    if int(raw["intent_code"]) in _CIFTI_INTENTS:
        raise VolumeError("is a CIFTI file (grayordinates), not a volume")
    return tuple(int(size) for size in raw["dim"][1 : n_dimensions + 1])


def _nifti_dtype(raw: Any) -> np.dtype:
    code, codes = int(raw["datatype"]), raw._data_type_codes
    if code not in codes.dtype:
        raise VolumeError(f"its header gives the data type {code}, which is unknown")
    dtype, label = np.dtype(codes.dtype[code]), codes.label[code]
    if dtype.kind not in "biuf":
        raise VolumeError(f"its voxels hold no plain numbers ({label})")
    n_bits = int(raw["bitpix"])
    if n_bits not in (0, 8 * dtype.itemsize):
        raise VolumeError(f"its header contradicts itself: {label} voxels of {n_bits} bits")
    return dtype.newbyteorder(raw.endianness)


def _refuse_zooms(zooms: np.ndarray) -> None:
    if not ((zooms > _VOXEL_MM[0]) & (zooms < _VOXEL_MM[1])).all():  # NaN is not
        sizes = " x ".join(f"{zoom:g}" for zoom in zooms)
        raise VolumeError(f"its header gives voxels of {sizes} mm")


def _nifti_scaling(raw: Any) -> tuple[float, float]:
    """Slope and intercept; a slope of 0 means that there is none, and nibabel writes NaN for that."""
    slope, intercept = float(raw["scl_slope"]), float(raw["scl_inter"])
    return (1.0, 0.0) if slope == 0 or np.isnan(slope) else (slope, intercept)


def _nifti_offset(raw: Any) -> int:
    offset = float(raw["vox_offset"])
    smallest = raw.single_vox_offset if raw.is_single else 0
    if not offset >= smallest or not offset.is_integer():
        raise VolumeError(f"its header gives byte {offset:g} as the place of the first voxel")
    return int(raw["vox_offset"])
