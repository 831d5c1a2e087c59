"""What a file is when it is no image: how it begins, and the sentence about it."""

from __future__ import annotations

_DOWNLOAD = "is a web page, not an image; the download went wrong"
_BEGINNINGS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the image itself; fetch it (git lfs pull)"),
    (b"/annex/objects/", "is a git-annex pointer, not the image itself; fetch it (git annex get)"),
    (b"<!doctype", _DOWNLOAD),
    (b"<html", _DOWNLOAD),
    (b"<?xml", "is an XML file, not an image; e.g. a server's answer instead of a download"),
    (b"%pdf", "is a PDF document, not an image"),
)  # fmt: skip
_MAGIC = (
    (0, b"PK\x03\x04", "is a zip archive, not an image; unpack it"),
    (0, b"7z\xbc\xaf", "is a 7z archive, not an image; unpack it"),
    (0, b"Rar!", "is a rar archive, not an image; unpack it"),
    (257, b"ustar", "is a tar archive, not an image; unpack it"),
    (0, b"\x28\xb5\x2f\xfd", "is compressed with zstd; compress it with gzip"),
    (0, b"BZh", "is compressed with bzip2; compress it with gzip"),
    (0, b"\xfd7zXZ", "is compressed with xz; compress it with gzip"),
    (0, b"\x04\x22\x4d\x18", "is compressed with lz4; compress it with gzip"),
    (0, b"\x1f\x8b", "is compressed twice; decompress it once"),
    (0, b"\x89HDF", "is an HDF5 file (MINC 2 files are too), not a NIfTI image; convert it"),
    (0, b"CDF\x01", "is a netCDF file (MINC 1 files are too), not a NIfTI image; convert it (mnc2nii)"),
    (0, b"CDF\x02", "is a netCDF file (MINC 1 files are too), not a NIfTI image; convert it (mnc2nii)"),
    (0, b"NRRD", "is an NRRD file, not a NIfTI image; convert it"),
    (0, b"ObjectType = Image", "is a MetaImage file, not a NIfTI image; convert it"),
    (128, b"DICM", "is a DICOM file; convert it to NIfTI (dcm2niix)"),
    (0, b"\x89PNG", "is a PNG picture, it cannot be read as an image of voxels"),
    (0, b"\xff\xd8\xff", "is a JPEG picture, it cannot be read as an image of voxels"),
    (0, b"GIF8", "is a GIF picture, it cannot be read as an image of voxels"),
    (0, b"II*\x00", "is a TIFF picture, it cannot be read as an image of voxels"),
    (0, b"MM\x00*", "is a TIFF picture, it cannot be read as an image of voxels"),
    (0, b"\x93NUMPY", "is a NumPy array (.npy), which has no affine; save it as NIfTI"),
    (8, b'{"', "is a safetensors file (weights of a network), not an image"),
    (0, b"\xff\xff\xfe", "is a FreeSurfer surface, not a volume"),
    (0, b"MATLAB 5.0", "is a MATLAB file, not an image"),
    (0, b"SQLite format", "is an SQLite database, not an image"),
    (0, b"PAR1", "is a Parquet table, not an image"),
)  # fmt: skip
_PICKLES = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))


def sentence_about(start: bytes) -> str:
    """What a file that begins with these bytes is, if it is known to be no image; else ""."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:2048]
    if b"<GIFTI" in text:
        return "is a GiftiImage, not a volume with an affine"
    for offset, magic, sentence in _MAGIC:
        if start[offset:].startswith(magic):
            return sentence
    if start.startswith(_PICKLES) and b"." in start[2:]:
        return "is a Python pickle, not an image"
    if text.startswith(b"{") and is_text(start[:1024]):
        return "is a JSON file, not an image; e.g. the sidecar of one"
    lowered = text.lower()
    return next((words for beginning, words in _BEGINNINGS if lowered.startswith(beginning)), "")


def is_text(start: bytes) -> bool:
    """Whether these bytes are written text; a character cut at the end does not matter."""
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 4:
            return False
        text = start[: error.start].decode("utf-8")
    return len(text) > 3 and all(letter.isprintable() or letter in "\t\n\r\f" for letter in text)
