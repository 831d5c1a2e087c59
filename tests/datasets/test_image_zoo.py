"""R11: malformed files of every kind; each is named with its own reason, and none hangs or gives a traceback."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import io
import json
import lzma
import os
import pickle
import re
import signal
import socket
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from datasets.inspection import facts_of
from datasets.volumes import VolumeError, read_crop
from tests.datasets.image_bytes import (
    BOX,
    CONTRAST,
    SHAPE,
    analyze_parts,
    mgh,
    nifti,
    nifti_parts,
    patched,
    some_values,
    write_pair,
)

VALUES = some_values("zoo")
GOOD = nifti(VALUES)
PACKED = gzip.compress(GOOD)
FLOATS = some_values("zoo", dtype="f4")
CUT = r"^is damaged or truncated \("
Made = bytes | Callable[[Path], Path]


def floats_with(value: float, place=(4, 5, 6)) -> np.ndarray:
    values = some_values("zoo", dtype="f8")
    values[place] = value
    return values


def archive(kind: str) -> bytes:
    held = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(held, "w") as file:
            file.writestr("a.nii", GOOD)
    else:
        with tarfile.open(fileobj=held, mode="w") as file:
            member = tarfile.TarInfo("a.nii")
            member.size = len(GOOD)
            file.addfile(member, io.BytesIO(GOOD))
    return held.getvalue()


def npy() -> bytes:
    held = io.BytesIO()
    np.save(held, VALUES)
    return held.getvalue()


def safetensors() -> bytes:
    about = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return struct.pack("<Q", len(about)) + about + b"\x00" * 8


def sform(rows: np.ndarray, **fields) -> bytes:
    return nifti(VALUES, **dict(zip(("srow_x", "srow_y", "srow_z"), rows)), **fields)


def swapped_half() -> bytes:
    header = bytearray(GOOD[:348])
    for place in range(40, 56, 2):  # dim alone
        header[place : place + 2] = header[place : place + 2][::-1]
    return bytes(header) + GOOD[348:]


def bomb(n_bytes: int) -> bytes:
    """A good image, then so many zeros that were never asked for."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(GOOD)]
    parts += [packer.compress(bytes(1 << 20)) for _ in range(n_bytes >> 20)]
    return b"".join([*parts, packer.flush()])


# What a file holds, and what is said of it; a name with an ending is the file's, others are .nii.
PLAIN: dict[str, tuple[bytes, str]] = {
    "0 bytes.nii.gz": (b"", r"^is empty \(0 bytes\)$"),
    "0 bytes": (b"", r"^is empty \(0 bytes\)$"),
    "0 bytes.mgz": (b"", r"^is empty \(0 bytes\)$"),
    "1 byte": (b"\x5c", CUT + "it has 1 byte"),
    "1 byte.nii.gz": (b"\x1f", CUT + "it has 1 byte"),
    "gzip magic alone.nii.gz": (PACKED[:2], CUT + "it ends in the middle"),
    "cut in the gzip header.nii.gz": (PACKED[:9], CUT + "it ends in the middle"),
    "cut in the NIfTI header": (GOOD[:200], CUT + "it ends in its header, after 200 bytes"),
    "cut in the NIfTI header.nii.gz": (
        gzip.compress(GOOD[:300]), CUT + "it ends in its header, after 300 bytes"),
    "cut in the data": (GOOD[:2000], CUT + "its header announces 2512 bytes, the file has 2000"),
    "one byte missing": (GOOD[:-1], CUT + "its header announces 2512 bytes, the file has 2511"),
    "cut in the data.nii.gz": (
        PACKED[: len(PACKED) // 2], CUT + "it ends in the middle of its compressed data"),
    "cut before it was compressed.nii.gz": (
        gzip.compress(GOOD[:2000]), CUT + "it has 2000 of the 2512 bytes of its image"),
    "cut in the trailer.nii.gz": (PACKED[:-3], CUT + "it ends in the middle of its compressed data"),
    "cut before the trailer.nii.gz": (PACKED[:-8], CUT + "it ends in the middle"),
    "flipped checksum.nii.gz": (
        patched(PACKED, len(PACKED) - 8, bytes([PACKED[-8] ^ 1])),
        CUT + "its checksum does not fit its content"),
    "wrong length.nii.gz": (
        PACKED[:-4] + b"\x01\x02\x03\x04", CUT + "its checksum does not fit its content"),
    "announces 4 GB.nii.gz": (
        PACKED[:-4] + b"\xff" * 4, CUT + "its checksum does not fit its content"),
    "damaged deflate.nii.gz": (
        patched(PACKED, 1500, b"\xff" * 40), CUT + "its compressed data are damaged|" + CUT + "its checks"),
    "unknown method.nii.gz": (patched(PACKED, 2, b"\x07"), CUT + "its gzip header is damaged"),
    "reserved flags.nii.gz": (patched(PACKED, 3, b"\xe0"), CUT + "its gzip header is damaged"),
    "damaged second member.nii.gz": (
        gzip.compress(GOOD[:1000]) + patched(gzip.compress(GOOD[1000:]), 300, b"\xff" * 30),
        CUT + "its (compressed data are damaged|checksum)"),
    "missing second member.nii.gz": (
        gzip.compress(GOOD[:1000]), CUT + "it has 1000 of the 2512 bytes of its image"),
    "trailing garbage.nii.gz": (PACKED + b"garbage", CUT + "other bytes follow its compressed data"),
    "garbage after padding.nii.gz": (PACKED + bytes(40_000) + b"g", CUT + "other bytes follow"),
    "compressed twice.nii.gz": (gzip.compress(PACKED), "^is compressed twice; decompress it once"),
    "10^12 voxels": (
        nifti(VALUES, dim=[3, 10000, 10000, 10000, 1, 1, 1, 1]),
        CUT + "its header announces 2000000000352 bytes, the file has 2512"),
    "10^12 voxels.nii.gz": (
        gzip.compress(nifti(VALUES, dim=[3, 10000, 10000, 10000, 1, 1, 1, 1])),
        CUT + "its header announces 2000000000352 bytes, the file can hold at most"),
    "10^12 voxels.mgz": (
        gzip.compress(mgh(VALUES, dims=[10000, 10000, 10000, 1])), CUT + "its header announces 2000000000284"),
    "2^124 voxels.mgz": (
        gzip.compress(mgh(VALUES, dims=[2**31 - 1] * 4)), CUT + r"its header announces \d{37,} bytes"),
    "a bomb of 30 MB.nii.gz": (bomb(30 << 20), CUT + "it has more than the 2512 bytes of its image"),
    "no first dimension": (
        nifti(VALUES, dim=[3, 0, 12, 9, 1, 1, 1, 1]), r"^its header gives the shape \(0, 12, 9\)"),
    "negative dimension": (
        nifti(VALUES, dim=[3, 10, -12, 9, 1, 1, 1, 1]), r"^its header gives the shape \(10, -12, 9\)"),
    "dim 32767^7": (nifti(VALUES, dim=[7] + [32767] * 7), "^has 7 dimensions, expected 3"),
    "FreeSurfer's vector": (
        nifti(VALUES, dim=[3, -1, 1, 1, 1, 1, 1, 1], glmin=7), r"^its header gives the shape \(-1, 1, 1\)"),
    "dim[0] 0": (nifti(VALUES, dim=[0, 10, 12, 9, 1, 1, 1, 1]), "^its header gives 0 dimensions, not 1 to 7"),
    "dim[0] 8": (nifti(VALUES, dim=[8, 10, 12, 9, 1, 1, 1, 1]), "^its header gives 8 dimensions, not 1 to 7"),
    "swapped dim": (swapped_half(), "^its header gives 768 dimensions, not 1 to 7"),
    "swapped size": (patched(GOOD, 0, GOOD[3::-1]), "^its header gives 768 dimensions, not 1 to 7"),
    "sizeof_hdr 0": (patched(GOOD, 0, bytes(4)), "^its header gives its own size as 0, not 348"),
    "sizeof_hdr 540 of NIfTI-1": (
        nifti(VALUES, sizeof_hdr=540), "^its header gives its own size as 540, not 348"),
    "vox_offset negative": (nifti(VALUES, vox_offset=-8), "^its header gives byte -8 as the place"),
    "vox_offset 0": (nifti(VALUES, vox_offset=0), "^its header gives byte 0 as the place of the first"),
    "vox_offset 100": (nifti(VALUES, vox_offset=100), "^its header gives byte 100 as the place"),
    "vox_offset 352.5": (nifti(VALUES, vox_offset=352.5), "^its header gives byte 352.5 as the place"),
    "vox_offset NaN": (nifti(VALUES, vox_offset=np.nan), "^its header gives byte nan as the place"),
    "vox_offset inf": (nifti(VALUES, vox_offset=np.inf), "^its header gives byte inf as the place"),
    "vox_offset beyond the end": (
        nifti(VALUES, vox_offset=1e6), CUT + "its header announces 1002160 bytes, the file has 2512"),
    "vox_offset 2^62 of NIfTI-2": (
        nifti(VALUES, 2, vox_offset=2**62), CUT + "its header announces 46116860184273900"),
    "vox_offset -1 of NIfTI-2": (nifti(VALUES, 2, vox_offset=-1), "^its header gives byte -1 as the place"),
    "bitpix of another type": (nifti(VALUES, bitpix=8), "^its header contradicts itself: int16 voxels of 8 bits"),
    "unknown data type": (nifti(VALUES, datatype=77), "^its header gives the data type 77, which is unknown"),
    "negative data type": (nifti(VALUES, datatype=-4), "^its header gives the data type -4, which is"),
    "colours": (nifti(VALUES, datatype=128), r"^its voxels hold no plain numbers \(RGB\)"),
    "colours and opacity": (nifti(VALUES, datatype=2304), r"^its voxels hold no plain numbers \(RGBA\)"),
    "complex": (nifti(VALUES, datatype=32), r"^its voxels hold no plain numbers \(complex64\)"),
    "binary": (nifti(VALUES, datatype=1), r"^its voxels hold no plain numbers \(binary\)"),
    "no data type": (nifti(VALUES, datatype=0), r"^its voxels hold no plain numbers \(none\)"),
    "float128": (nifti(VALUES, datatype=1536), r"^its voxels hold no plain numbers \(float128\)|contradicts"),
    "unknown data type.mgh": (mgh(VALUES, type=7), "^its header gives the data type 7, which is unknown"),
    "pixdim 0": (nifti(VALUES, pixdim=[1, 8, 0, 8, 0, 0, 0, 0]), "^its header gives voxels of 8 x 0 x 8 mm"),
    "pixdim NaN": (
        nifti(VALUES, pixdim=[1, np.nan, 8, 8, 0, 0, 0, 0]), "^its header gives voxels of nan x 8 x 8 mm"),
    "pixdim inf": (
        nifti(VALUES, pixdim=[1, 8, 8, np.inf, 0, 0, 0, 0]), "^its header gives voxels of 8 x 8 x inf mm"),
    "pixdim 1e30": (
        nifti(VALUES, pixdim=[1, 8, 8, 1e30, 0, 0, 0, 0]), r"^its header gives voxels of 8 x 8 x 1e\+30 mm"),
    "pixdim of another grid": (
        nifti(VALUES, pixdim=[1, 4, 8, 8, 0, 0, 0, 0]), "^voxels of 4 x 8 x 8 mm, expected 8 mm; conform"),
    "delta 0.mgh": (mgh(VALUES, delta=[8, 8, 0]), "^its header gives voxels of 8 x 8 x 0 mm"),
    "sform NaN": (sform(CONTRAST.affine * np.nan), "^its affine is not finite"),
    "sform inf": (sform(np.diag([np.inf, 8, 8, 1])), "^its affine is not finite"),
    "sform 0": (sform(np.zeros((4, 4))), "^its affine has no inverse"),
    "sform singular": (sform(np.ones((4, 4))), "^its affine has no inverse"),
    "sform 1e30": (sform(np.diag([1e30, 8, 8, 1])), r"^its affine gives voxels of 1e\+30 x 8 x 8 mm"),
    "sform 1e300 of NIfTI-2": (
        nifti(VALUES, 2, srow_x=[1e300, 0, 0, 0]), "^its affine (gives voxels of inf|has no inverse)"),
    "sform_code 77": (nifti(VALUES, sform_code=77), "^its header gives sform_code 77, not one of 0 to 5"),
    "qform_code -1": (nifti(VALUES, qform_code=-1), "^its header gives qform_code -1, not one of 0 to 5"),
    "quaternion too long": (
        nifti(VALUES, sform_code=0, quatern_b=3.0), "^its qform is no rotation"),
    "quaternion NaN": (nifti(VALUES, sform_code=0, quatern_c=np.nan), "^its (affine is not finite|qform)"),
    "quaternion 1e38": (nifti(VALUES, sform_code=0, quatern_c=1e38), "^its qform is no rotation"),
    "Mdc 0.mgh": (mgh(VALUES, Mdc=np.zeros((3, 3))), "^its affine has no inverse"),
    "Mdc NaN.mgh": (mgh(VALUES, Mdc=np.full((3, 3), np.nan)), "^its affine is not finite"),
    "goodRASFlag 0.mgh": (mgh(VALUES, good_ras=0), "^its header does not say how its axes lie .goodRASFlag is 0"),
    "slope inf": (nifti(VALUES, scl_slope=np.inf), "^its slope and intercept are inf and 0"),
    "intercept inf": (nifti(VALUES, scl_inter=-np.inf), "^its slope and intercept are 1 and -inf"),
    "intercept NaN": (nifti(VALUES, scl_slope=2, scl_inter=np.nan), "^its slope and intercept are 2 and nan"),
    "slope 1e308 of NIfTI-2": (
        nifti(VALUES, 2, scl_slope=1e308), r"^\d+ voxel\(s\) are too large for float32"),
    "slope 3e38": (nifti(VALUES, scl_slope=3e38), r"^\d+ voxel\(s\) are too large for float32"),
    "intercept of the slope 1e-300": (
        nifti(VALUES, 2, scl_slope=1e-300), "^is zero everywhere in the crop"),
    "wrong magic": (patched(GOOD, 344, b"n-1\x00"), r"^is not a NIfTI image: its magic word is b'n-1\\x00'"),
    "no magic": (patched(GOOD, 344, bytes(4)), r"^is not a NIfTI image: its magic word is b'\\x00"),
    "magic of a pair": (patched(GOOD, 344, b"ni1\x00"), "^is the header of a NIfTI pair, its voxels are in"),
    "version.mgh": (patched(mgh(VALUES), 0, b"\x00\x00\x00\x02"), r"^is no \.mgh or \.mgz volume: its version is 2"),
    "cut in the header.mgh": (mgh(VALUES)[:200], CUT + "it ends in its header, after 200 bytes"),
    "cut in the data.mgh": (mgh(VALUES)[:2000], CUT + "its header announces 2444 bytes, the file has 2000"),
    "cut.mgz": (gzip.compress(mgh(VALUES))[:1000], CUT + "it ends in the middle of its compressed data"),
    "cut before it was compressed.mgz": (
        gzip.compress(mgh(VALUES)[:2000]), CUT + "it has 2000 of the 2444 bytes of its image"),
    "negative dims.mgh": (mgh(VALUES, dims=[10, -12, 9, 1]), r"^its header gives the shape \(10, -12, 9\)"),
    "Git LFS pointer.nii.gz": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        r"^is a Git LFS pointer, not the image itself; fetch it \(git lfs pull\)"),
    "git-annex pointer.nii.gz": (
        b"/annex/objects/MD5E-s123--abc.nii.gz\n", r"^is a git-annex pointer, .*\(git annex get\)"),
    "web page.nii.gz": (b"\n<!DOCTYPE html><html><body>404</body></html>", "^is a web page, not an image"),
    "web page, lower case.nii.gz": (b"<html lang='en'>", "^is a web page, not an image; the download"),
    "compressed web page.nii.gz": (gzip.compress(b"<!doctype html>"), "^is a web page, not an image"),
    "server's answer.nii.gz": (
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "^is an XML file, not an image"),
    "JSON.nii": (b'{"RepetitionTime": 2.0}', "^is a JSON file, not an image; e.g. the sidecar"),
    "text.nii": ("Größe 180 cm\n".encode(), "^is a text file: it is not a NIfTI image"),
    "text.txt": (b"hello", "^is a text file: .* cannot be read as an image"),
    "numbers.nii.gz": (bytes(range(128, 256)) * 8, "^is not a NIfTI image, or damaged from its first"),
    "numbers.dat": (bytes(range(128, 256)) * 8, "^cannot be read as an image: it is of no kind known here"),
    "zeros": (bytes(5000), "^is not a NIfTI image, or damaged from its first bytes on"),
    "zip.nii": (archive("zip"), "^is a zip archive, not an image; unpack it"),
    "tar.nii": (archive("tar"), "^is a tar archive, not an image; unpack it"),
    "tar.nii.gz": (gzip.compress(archive("tar")), "^is a tar archive, not an image; unpack it"),
    "bzip2.nii.gz": (bz2.compress(GOOD), "^is compressed with bzip2; compress it with gzip"),
    "xz.nii.gz": (lzma.compress(GOOD), "^is compressed with xz; compress it with gzip"),
    "zstd.nii.gz": (b"\x28\xb5\x2f\xfd\x24" + GOOD[:90], "^is compressed with zstd; compress it with gzip"),
    "HDF5.nii": (b"\x89HDF\r\n\x1a\n" + bytes(90), "^is an HDF5 file .MINC 2 files are too., not a NIfTI"),
    "MINC.mnc": (b"CDF\x01" + bytes(90), r"^is a netCDF file \(MINC 1 files are too\)"),
    "NRRD.nrrd": (b"NRRD0004\ntype: short\n", "^is an NRRD file, not a NIfTI image; convert it"),
    "MetaImage.mha": (b"ObjectType = Image\nNDims = 3\n", "^is a MetaImage file, not a NIfTI image"),
    "DICOM.dcm": (bytes(128) + b"DICM" + bytes(90), "^is a DICOM file; convert it to NIfTI"),
    "DICOM.nii.gz": (gzip.compress(bytes(128) + b"DICM" + bytes(90)), "^is a DICOM file; convert it"),
    "PNG.png": (b"\x89PNG\r\n\x1a\n" + bytes(90), "^is a PNG picture"),
    "JPEG.nii": (b"\xff\xd8\xff\xe0\x00\x10JFIF", "^is a JPEG picture"),
    "NumPy.npy": (npy(), r"^is a NumPy array \(\.npy\), which has no affine; save it as NIfTI"),
    "safetensors.pth": (safetensors(), r"^is a safetensors file \(weights of a network\), not an image"),
    "pickle.nii": (pickle.dumps({"a": VALUES}), "^is a Python pickle, not an image"),
    "GIFTI.surf.gii": (nib.gifti.GiftiImage().to_bytes(), "^is a GiftiImage, not a volume with an affine"),
    "GIFTI.nii": (nib.gifti.GiftiImage().to_bytes(), "^is a GiftiImage, not a volume with an affine"),
    "CIFTI.dscalar.nii": (
        nifti(VALUES, 2, dim=[6, 1, 1, 1, 1, 3, 30, 1], intent_code=3006),
        r"^is a CIFTI file \(grayordinates\), not a volume"),
    "surface.mgh": (b"\xff\xff\xfecreated by" + bytes(300), "^is a FreeSurfer surface, not a volume"),
    "all NaN": (nifti(FLOATS * np.nan), r"^640 voxel\(s\) are NaN or infinite$"),
    "one infinite": (nifti(floats_with(np.inf)), r"^1 voxel\(s\) are NaN or infinite$"),
    "too large for float32": (nifti(floats_with(1e300)), r"^1 voxel\(s\) are too large for float32"),
    "constant": (nifti(VALUES * 0 + 7), r"^is constant \(7\) everywhere in the crop"),
    "all zero": (nifti(VALUES * 0), "^is zero everywhere in the crop"),
    "all negative zero": (nifti(FLOATS * -0.0 * 0), "^is zero everywhere in the crop"),
    "two dimensions": (nifti(VALUES[..., 0]), "^has 2 dimensions, expected 3"),
    "five dimensions": (
        nifti(some_values("5", shape=(*SHAPE, 2, 2))), "^has 5 dimensions, expected 3"),
    "four dimensions": (
        nifti(some_values("4", shape=(*SHAPE, 2))), "^holds 2 volumes and the contrast table gives no vol"),
    "another shape": (nifti(VALUES[1:]), "^shape 9 x 12 x 9, expected 10 x 12 x 9; conform = strict"),
}  # fmt: skip


def only_in_the_crop(folder: Path) -> Path:
    values = VALUES.copy()
    values[BOX] = 0
    (folder / "a.nii").write_bytes(nifti(values))
    return folder / "a.nii"


def named(name: str, content: bytes = b"") -> Callable[[Path], Path]:
    """Maker of one file."""

    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def link_to(target: str) -> Callable[[Path], Path]:
    """Maker of a symbolic link."""

    def make(folder: Path) -> Path:
        (folder / "a.nii.gz").symlink_to(target)
        return folder / "a.nii.gz"

    return make


def folder_of(folder: Path) -> Path:
    (folder / "a.nii.gz").mkdir()
    return folder / "a.nii.gz"


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "a.nii.gz")
    return folder / "a.nii.gz"


def unix_socket(folder: Path) -> Path:
    before = Path.cwd()
    os.chdir(folder)  # a socket's path may not be long
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind("a.nii.gz")
    finally:
        os.chdir(before)
    return folder / "a.nii.gz"


def unreadable(folder: Path) -> Path:
    path = named("a.nii.gz", PACKED)(folder)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root reads everything")
    return path


def pair(change: Callable[[Path], object], gz: bool = False, **fields) -> Callable[[Path], Path]:
    """Maker of a NIfTI pair that something happens to afterwards; gives the header's path."""

    def make(folder: Path) -> Path:
        path = write_pair(folder, nifti_parts(VALUES, single=False, **fields), gz)
        change(folder)
        return path

    return make


def analyze_for_brains(folder: Path) -> Path:
    return write_pair(folder, analyze_parts(VALUES, dim=[4, 10, 12, 9, -1, 0, 0, 0]))


def with_origin(parts: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """SPM's addition to an Analyze header: which voxel is the world's origin."""
    return patched(parts[0], 253, np.array([5, 6, 4], "<i2").tobytes()), parts[1]


def damage(name: str) -> Callable[[Path], object]:
    """Flip a byte in the middle of a file."""

    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        place = len(content) // 2
        (folder / name).write_bytes(patched(content, place, bytes([content[place] ^ 255])))

    return change


MADE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "not there": (lambda folder: folder / "a.nii.gz", "^no such file$"),
    "below a file": (lambda folder: named("a", b"x")(folder) / "T1.nii.gz", "^no such file$"),
    "folder": (folder_of, "^is a folder, not an image$"),
    "pipe": (fifo, "^is a pipe, not an image$"),
    "socket": (unix_socket, "^is a socket, not an image$"),
    "endless device": (lambda folder: Path("/dev/zero"), "^is a device, not an image$"),
    "link to an endless device": (link_to("/dev/zero"), "^is a device, not an image$"),
    "no permission": (unreadable, r"^must not be read \(permission denied\)$"),
    "broken link": (link_to("nowhere/b.nii.gz"), "^is a symbolic link to nowhere/b.nii.gz, which does not"),
    "git-annex link": (
        link_to("../.git/annex/objects/X1/2Y/MD5E-s1--a.nii.gz/MD5E-s1--a.nii.gz"),
        r"^is a git-annex link whose content is not here; fetch it \(git annex get\)$"),
    "link to itself": (link_to("a.nii.gz"), "^cannot be read .*symbolic link"),
    "name too long": (lambda folder: folder / ("n" * 300), "^cannot be read .*too long"),
    "zero in the crop only": (only_in_the_crop, "^is zero everywhere in the crop$"),
    "upper-case ending": (named("A.NII.GZ", bytes(range(128, 256)) * 8), "^is not a NIfTI image, or damaged"),
    "header without voxels": (
        pair(lambda folder: (folder / "a.img").unlink()), "^is one file of a pair; its voxel file a.img is not"),
    "voxels without header": (
        lambda folder: named("b.img", b"\x01" * 2160)(folder), "^is one file of a pair; its header file b.hdr"),
    "voxels too few": (
        pair(lambda folder: (folder / "a.img").write_bytes(bytes(2000))),
        CUT + "its header announces 2160 bytes, the file has 2000"),
    "voxels empty": (
        pair(lambda folder: (folder / "a.img").write_bytes(b"")), r"^its voxels a\.img are empty \(0 bytes\)"),
    "voxels a pointer": (
        pair(lambda folder: (folder / "a.img").write_bytes(b"version https://git-lfs.github.com")),
        "^is a Git LFS pointer"),
    "voxels damaged": (
        pair(damage("a.img.gz"), gz=True), CUT + "its (compressed data are|checksum does not)"),
    "voxels elsewhere": (pair(lambda folder: None, vox_offset=-4), "^its header gives byte -4 as the place"),
    "header of a pair cut": (
        pair(lambda folder: (folder / "a.hdr").write_bytes((folder / "a.hdr").read_bytes()[:347])),
        r"^its header a\.hdr is not that of an Analyze or NIfTI pair|" + CUT),
    "header of a pair is text": (
        pair(lambda folder: (folder / "a.hdr").write_text("ENVI\nsamples = 10\n")),
        r"^its header a\.hdr is not that of an Analyze or NIfTI pair|^is a text file"),
    "Analyze of an unknown data type": (
        lambda folder: write_pair(folder, analyze_parts(VALUES, datatype=77)),
        r"^cannot be read as an image \(data code 77 not (supported|recognized)\)"),
    "Analyze with infinite voxels and an origin": (
        lambda folder: write_pair(folder, with_origin(analyze_parts(VALUES, pixdim=[0, 8, np.inf, 8, 0, 0, 0, 0]))),
        "^its affine is not finite"),
    "Analyze with a negative dimension": (analyze_for_brains, "^its header gives the shape"),
}  # fmt: skip


class TooSlow(BaseException):
    """Not an Exception: nothing that is tested may catch it."""


@pytest.fixture(autouse=True)
def _no_hang():
    """Every file is judged within five seconds."""

    def late(*_):
        raise TooSlow

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(5)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def reason(path: Path, contrast=CONTRAST, conform: str = "strict") -> str:
    with pytest.raises(VolumeError) as caught:
        read_crop(path, contrast, conform)
    said = str(caught.value)
    assert said and "\n" not in said and len(said) < 300
    assert str(path.parent) not in said  # the path stands before it already
    return said


def test_there_are_enough():
    assert len(PLAIN) + len(MADE) >= 60


@pytest.mark.parametrize("name", PLAIN)
def test_a_bad_file_is_named(tmp_path, name):
    content, pattern = PLAIN[name]
    path = tmp_path / (name if "." in name.replace("352.5", "") else f"{name}.nii")
    path = path.with_name(path.name.replace("[", "").replace("]", ""))
    path.write_bytes(content)
    said = reason(path)
    assert re.search(pattern, said), said
    for conform in ("reorient", "resample"):  # another reason perhaps, but a reason
        if "conform =" not in said:
            reason(path, conform=conform)


@pytest.mark.parametrize("name", MADE)
def test_what_is_no_file_or_one_of_two_is_named(tmp_path, name):
    make, pattern = MADE[name]
    said = reason(make(tmp_path))
    assert re.search(pattern, said), said


def test_different_faults_have_different_sentences(tmp_path):
    """Few of them share one, and only those that are the same fault in another wrapping."""
    said = {}
    for name, (content, _) in PLAIN.items():
        path = tmp_path / f"{name.replace('/', '-')}.nii" if "." not in name else tmp_path / name
        path.write_bytes(content)
        said[name] = reason(path)
    assert len(set(said.values())) > 0.75 * len(said)
    most = max(list(said.values()).count(sentence) for sentence in said.values())
    assert most <= 6  # cut at six places


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (2, "holds 2 volumes, volume_index 2 is not among them"),
        (99, "volume_index 99 is not among"),
    ],
)
def test_a_volume_that_is_not_among_them(tmp_path, index, words):
    path = named("a.nii", nifti(some_values("4", shape=(*SHAPE, 2))))(tmp_path)
    assert words in reason(path, dataclasses.replace(CONTRAST, volume_index=index))


def test_a_ct_is_read_and_its_air_is_seen(tmp_path):
    """Hounsfield units are numbers like others; that a CT is no MRI is for the check mode to say."""
    values = np.full(SHAPE, -1024, np.int16)
    values[3:8, 4:10, 2:7] = np.arange(-100, 50, dtype=np.int16).reshape(5, 6, 5)
    values[3, 4, 2] = 3000
    crop = read_crop(named("ct.nii.gz", gzip.compress(nifti(values)))(tmp_path), CONTRAST)
    np.testing.assert_array_equal(crop, values[BOX])
    facts = facts_of(crop, CONTRAST)
    assert facts.is_ct_like and facts.minimum == -1024 and facts.maximum == 3000


def test_what_is_bad_outside_the_crop_does_no_harm(tmp_path):
    values = floats_with(np.nan, place=(0, 0, 8))
    values[9, 0, 0] = np.inf
    values[0, 11, 8] = 1e300
    crop = read_crop(named("a.nii", nifti(values))(tmp_path), CONTRAST)
    np.testing.assert_array_equal(crop, values[BOX].astype(np.float32))


def test_a_file_that_cannot_be_decompressed_into_memory_is_not_tried(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.images._memory_bytes", lambda: 2000)
    path = named("a.nii.gz", PACKED)(tmp_path)
    assert reason(path) == "needs more memory than there is (0.0 GB)"
    assert read_crop(named("a.nii", GOOD)(tmp_path), CONTRAST).any()  # this one is mapped
