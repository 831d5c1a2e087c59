"""Image files -> header and stored voxels; the only file that opens an image.

NIfTI (.nii, .nii.gz; recognised by content, not by name), FreeSurfer's .mgz and .mgh, Analyze and NIfTI
pairs, and uncompressed files of the other forms that nibabel opens. A compressed file is always read
whole, so that its checksum is verified. Nothing is allocated that the file's own size does not vouch for.
What a header says is judged here (`headers.py`): nibabel would repair some of it in silence.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import SpatialImage

from datasets.compression import (
    GZIP_MAGIC,
    LARGEST_RATIO,
    DamagedGzipError,
    decompressed,
    first_bytes,
)
from datasets.headers import (
    ImageHeader,
    ReadFaultError,
    VolumeError,
    mgh_header,
    nifti_header,
    plain_header,
)
from datasets.other_files import is_text, sentence_about

__all__ = ["Image", "ImageHeader", "ReadFaultError", "VolumeError", "open_image", "read_header"]

# nibabel would write to standard error what it repairs in a header; what matters is checked here.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)

_HEADER_BYTES = 1024
_SINGLE_ENDINGS = (".nii", ".nii.gz")
_MGH_ENDINGS = (".mgz", ".mgh")
_VOXEL_ENDINGS = (".img", ".img.gz")
_PAIR_ENDINGS = (".hdr", ".hdr.gz", *_VOXEL_ENDINGS)
_SPECIAL_FILES = (
    (stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"), (stat.S_ISBLK, "device"),
)  # fmt: skip


@dataclass(frozen=True)
class Image:
    """Header and stored voxels, before slope and intercept."""

    header: ImageHeader
    voxels: np.ndarray  # (X, Y, Z) or (X, Y, Z, V), Fortran order: the first axis is contiguous

    def volume(self, index: int) -> np.ndarray:
        """(X, Y, Z) stored voxels of one volume."""
        return self.voxels[..., index] if self.voxels.ndim == 4 else self.voxels


def files_of(path: Path) -> list[Path]:
    """The files that one image consists of: of a pair both, whichever of them is named."""
    stem = re.sub(r"(?i)\.(hdr|img|head|brik)(\.gz)?$", "", path.name)
    if stem == path.name:
        return [path]
    endings = ("hdr", "img", "head", "brik")
    there = path.parent.iterdir() if path.parent.is_dir() else []
    pattern = re.compile(rf"(?i){re.escape(stem)}\.({'|'.join(endings)})(\.gz)?")
    return sorted({path, *(other for other in there if pattern.fullmatch(other.name))})


def read_header(path: str | Path) -> ImageHeader:
    """Header of an image file; of a compressed one only the beginning is decompressed.

    Raises
    ------
    VolumeError
        Missing, no image, malformed, or too short for what its header announces.
    ReadFaultError
        The system could not read it, or had no memory for it; that may pass.
    """
    return _Opened.at(Path(path), header_only=True).header


def open_image(path: str | Path) -> Image:
    """Header and voxels of an image file; a compressed one is read whole and its checksum verified.

    Raises
    ------
    VolumeError
        As `read_header`, or damaged.
    ReadFaultError
        As `read_header`.
    """
    opened = _Opened.at(Path(path), header_only=False)
    return Image(opened.header, opened.voxels())


@dataclass
class _Opened:
    """A file whose header was understood; `voxels` reads the rest."""

    path: Path  # of the voxels
    header: ImageHeader
    data_offset: int
    content: Any  # compressed bytes, None for a plain file, or an image that nibabel reads itself

    @classmethod
    def at(cls, path: Path, header_only: bool) -> _Opened:
        try:
            with np.errstate(all="ignore"):  # what comes out as no number is refused for it
                return cls._read(path, header_only)
        except VolumeError:
            raise
        except (FileNotFoundError, NotADirectoryError) as error:
            raise VolumeError(_why_not_there(path, error)) from error
        except IsADirectoryError as error:
            raise VolumeError("is a folder, not an image") from error
        except PermissionError as error:
            raise VolumeError("must not be read (permission denied)") from error
        except (DamagedGzipError, EOFError) as error:
            raise VolumeError(f"is damaged or truncated ({error})") from error
        except MemoryError as error:
            raise ReadFaultError("needs more memory than there is") from error
        except ImageFileError as error:
            raise VolumeError("cannot be read as an image: it is of no kind known here") from error
        except OSError as error:
            raise _not_readable(error) from error
        except Exception as error:  # nibabel raises many kinds for malformed headers
            raise VolumeError(f"cannot be read as an image ({_first_line(error)})") from error

    @classmethod
    def _read(cls, path: Path, header_only: bool) -> _Opened:
        with _open_regular(path) as handle:
            head, is_gzip = _head(handle)
            name = path.name.lower()
            if not name.endswith(_VOXEL_ENDINGS):  # bare voxels may begin with anything
                _refuse_other_files(head)
            form = _form(head, name)
            if form == "pair":
                return cls._pair(path, header_only)
            if form == "other":
                return cls._by_nibabel(path)
            if form == "MGH":
                header, data_offset = mgh_header(head)
            else:
                header, data_offset = nifti_header(form, head)
            content = _compressed(handle, header, data_offset, is_gzip, header_only)
        return cls(path, header, data_offset, content)

    @classmethod
    def _pair(cls, path: Path, header_only: bool) -> _Opened:
        header_path, voxel_path = _partner(path, ".hdr"), _partner(path, ".img")
        with _open_regular(header_path) as handle:
            head, _ = _head(handle)
        _refuse_other_files(head)
        if head[344:347] == b"ni1" or head[4:7] == b"ni2":
            form = "NIfTI-1 pair" if head[344:347] == b"ni1" else "NIfTI-2 pair"
            header, data_offset = nifti_header(form, head)
        elif len(head) >= 348 and head[:4] in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c"):
            header, data_offset = _analyze_header(header_path)
        else:
            raise VolumeError(
                f"its header {header_path.name} is not that of an Analyze or NIfTI pair"
            )
        with _open_regular(voxel_path) as handle:
            start = handle.read(_HEADER_BYTES)
            is_gzip = start.startswith(GZIP_MAGIC)
            try:
                content = _compressed(handle, header, data_offset, is_gzip, header_only)
            except VolumeError as error:  # too short for voxels: perhaps it is no image at all
                if not start:
                    raise VolumeError(
                        f"its voxels {voxel_path.name} are empty (0 bytes)"
                    ) from error
                raise VolumeError(sentence_about(start) or str(error)) from error
        return cls(voxel_path, header, data_offset, content)

    @classmethod
    def _by_nibabel(cls, path: Path) -> _Opened:
        image = nib.load(path)
        if not isinstance(image, SpatialImage) or image.affine is None:
            raise VolumeError(f"is a {type(image).__name__}, not a volume with an affine")
        form = type(image).__name__.removesuffix("Image")
        files = [Path(str(f.filename)) for f in image.file_map.values() if f.filename]
        for file in files:
            with _open_regular(file) as handle:
                if handle.read(2) in (GZIP_MAGIC, b"BZ"):
                    raise VolumeError(f"is a compressed {form} image; decompress or convert it")
        header = plain_header(form, image.header, image.affine, (1.0, 0.0), positioned=True)
        n_bytes = sum(file.stat().st_size for file in files)
        _refuse_impossible(header, 0, n_bytes, is_gzip=False)
        return cls(path, header, 0, image)

    def voxels(self) -> np.ndarray:
        """All stored voxels in Fortran order."""
        shape, dtype = self.header.shape, self.header.dtype
        n_bytes = self.data_offset + self.header.n_voxel_bytes
        try:
            if isinstance(self.content, SpatialImage):
                # scaled: some forms scale each slice on its own
                return np.asarray(self.content.dataobj, order="F").reshape(shape, order="F")
            if self.content is None:
                # copy-on-write: nobody writes into it, and nothing has to be copied for that
                return np.memmap(
                    self.path, dtype, mode="c", offset=self.data_offset, shape=shape, order="F"
                )
            content = decompressed(self.content, n_bytes)
            count = self.header.n_voxel_bytes // dtype.itemsize
            flat = np.frombuffer(content, dtype, count, self.data_offset)
            return flat.reshape(shape, order="F")
        except DamagedGzipError as error:
            raise VolumeError(f"is damaged or truncated ({error})") from error
        except MemoryError as error:
            raise ReadFaultError("needs more memory than there is") from error
        except Exception as error:  # nibabel raises many kinds for truncated data
            if isinstance(error, OSError) and error.errno:
                raise _not_readable(error) from error
            raise VolumeError(f"is damaged or truncated ({_first_line(error)})") from error
        finally:
            self.content = None  # the compressed bytes are not needed any more


def _open_regular(path: Path) -> BinaryIO:
    """Open a file; never what would wait for a writer or never end."""
    mode = path.stat().st_mode
    for is_kind, name in _SPECIAL_FILES:
        if is_kind(mode):
            raise VolumeError(f"is a {name}, not an image")
    return path.open("rb")


def _head(handle: BinaryIO) -> tuple[bytes, bool]:
    """The first bytes of a file, decompressed, and whether they were compressed."""
    start = handle.read(_HEADER_BYTES)
    if not start:
        raise VolumeError("is empty (0 bytes)")
    is_gzip = start.startswith(GZIP_MAGIC)
    if is_gzip:
        handle.seek(0)
        start = first_bytes(handle, _HEADER_BYTES)
        if not start:
            raise VolumeError("is damaged or truncated (nothing can be decompressed)")
    return start, is_gzip


def _refuse_other_files(head: bytes) -> None:
    if sentence := sentence_about(head):
        raise VolumeError(sentence)


def _form(head: bytes, name: str) -> str:
    """The form of an image by its first bytes; `pair` and `other` by name where those do not say."""
    if head[344:348] == b"n+1\x00":
        return "NIfTI-1"
    if head[4:8] == b"n+2\x00" and len(head) >= 540:
        return "NIfTI-2"
    if name.endswith(_MGH_ENDINGS):
        if len(head) < 284:
            raise VolumeError(
                f"is damaged or truncated (it ends in its header, after {len(head)} bytes)"
            )
        return "MGH"
    if name.endswith(_PAIR_ENDINGS):
        return "pair"
    if is_text(head):
        raise VolumeError("is a text file: it is not a NIfTI image and cannot be read as an image")
    if name.endswith(_SINGLE_ENDINGS):
        raise VolumeError(_why_no_nifti(head))
    return "other"


def _why_no_nifti(head: bytes) -> str:
    if len(head) < 4:
        return f"is damaged or truncated (it has {len(head)} byte{'s'[: len(head) - 1]})"
    size = {n for order in ("little", "big") for n in [int.from_bytes(head[:4], order)]} & {
        348,
        540,
    }  # type: ignore[arg-type]
    if not size:
        return "is not a NIfTI image, or damaged from its first bytes on"
    if len(head) < size.pop():
        return f"is damaged or truncated (it ends in its header, after {len(head)} bytes)"
    magic = head[4:8] if head[4:6] == b"n+" or head[4:6] == b"ni" else head[344:348]
    if magic[:2] == b"ni":
        return "is the header of a NIfTI pair, its voxels are in an .img file; name it .hdr"
    return f"is not a NIfTI image: its magic word is {magic!r}, not b'n+1\\x00'"


def _compressed(
    handle: BinaryIO, header: ImageHeader, data_offset: int, is_gzip: bool, header_only: bool
) -> bytes | None:
    """The compressed bytes of the voxels, None where they are not compressed; refuses too few."""
    n_bytes = os.fstat(handle.fileno()).st_size
    _refuse_impossible(header, data_offset, n_bytes, is_gzip)
    if header_only or not is_gzip:
        return None
    if data_offset + header.n_voxel_bytes > _memory_bytes():
        raise VolumeError(f"needs more memory than there is ({_gb(header.n_voxel_bytes)})")
    handle.seek(0)
    return handle.read()


def _refuse_impossible(
    header: ImageHeader, data_offset: int, n_file_bytes: int, is_gzip: bool
) -> None:
    needed = data_offset + header.n_voxel_bytes
    most_bytes = n_file_bytes * (LARGEST_RATIO if is_gzip else 1)
    if needed > most_bytes:
        can = "can hold at most" if is_gzip else "has"
        raise VolumeError(
            f"is damaged or truncated (its header announces {needed} bytes, the file {can} {most_bytes})"
        )


def _analyze_header(path: Path) -> tuple[ImageHeader, int]:
    """Header of an Analyze pair; nibabel knows SPM's additions to it."""
    image: Any = nib.load(path)
    proxy = image.dataobj
    if not isinstance(image, SpatialImage) or type(proxy) is not ArrayProxy:
        raise VolumeError(f"is a {type(image).__name__}, not an Analyze pair")
    if proxy.offset < 0:
        raise VolumeError(f"its header gives byte {proxy.offset} as the place of the first voxel")
    header = plain_header(
        type(image).__name__.removesuffix("Image"), image.header, image.affine,
        (float(proxy.slope), float(proxy.inter)), positioned=False,
    )  # fmt: skip
    return header, int(proxy.offset)


def _partner(path: Path, ending: str) -> Path:
    """The .hdr or .img file of a pair, compressed or not; either of them names the pair."""
    name = path.name
    gz = name[-3:] if name.lower().endswith(".gz") else ""
    stem = name.removesuffix(gz)
    if stem.lower().endswith(ending):
        return path
    upper = stem[-4:].isupper()
    ending = ending.upper() if upper else ending
    here = path.with_name(stem[:-4] + ending + gz)
    other = path.with_name(stem[:-4] + ending + ("" if gz else ".gz"))
    if not here.exists() and other.exists():
        return other
    if not here.exists():
        kind = "header" if ending.lower() == ".hdr" else "voxel"
        raise VolumeError(f"is one file of a pair; its {kind} file {here.name} is not there")
    return here


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB"


def _why_not_there(path: Path, error: OSError) -> str:
    if path.exists():
        return f"is one file of several; {Path(str(error.filename)).name} is not there"
    if not path.is_symlink():
        return "no such file"
    target = path.readlink()
    if "annex" in target.parts and "objects" in target.parts:
        return "is a git-annex link whose content is not here; fetch it (git annex get)"
    return f"is a symbolic link to {target}, which does not exist"


def _not_readable(error: OSError) -> VolumeError:
    """A fault of the machine if the system gave the error its number; else a library means the content."""
    kind = ReadFaultError if error.errno else VolumeError
    return kind(f"cannot be read ({error.strerror or _first_line(error)})")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
