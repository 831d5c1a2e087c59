"""Files and headers of all volumes, contents of a sample: what would be left out, and what looks wrong."""

from __future__ import annotations

import os
import re
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from nibabel.affines import voxel_sizes
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from datasets.compression import GZIP_MAGIC
from datasets.conforming import NOT_POSITIONED, ORIENTATION, grid_difference, volume_index
from datasets.contrasts import Contrast
from datasets.images import ImageHeader, VolumeError, open_image, read_header
from utils.common.messages import progress
from utils.experiment.checks.findings import Finding, Part
from utils.experiment.checks.lists import PREDICT
from utils.experiment.checks.opening import Volume, by_file, in_order, n_reading_headers
from utils.experiment.experiment import Cell, Experiment

# The quick part looks at so many headers altogether, and at least and at most so many of a cell.
QUICK_HEADERS = 400
QUICK_OF_A_CELL = (3, 20)
# Where subjects who are only predicted, and those without a split before -m split, are read.
READ_AS = {PREDICT: "test", "": "train"}
LOOK = "Look at the file"
_OTHER_FILE = "Convert it to NIfTI, or correct path_template and data_file"
_POSITION = "Write into its header where it lies (sform), or register it to the grid"
# Remedies by what stands in the reason of a reader; the first that fits. Reasons that name a file come first.
REMEDIES = (
    (r"^no such file", "Check data_directory, path_template and data_file of the contrast table"),
    (r"^is a symbolic link", "Restore what the link points to"),
    (r"^is one file of |^its header .* is not that of", "Both files of a pair must lie in one folder: copy them anew"),
    (r"^its voxels .* are empty", "Copy or convert it anew"),
    (r"fetch it \(git", "Fetch its content with git, or exclude the subject"),
    (r"gives no volume_index", "Give the contrast table a volume_index"),
    (r"is not among them", "Correct volume_index in the contrast table"),
    (r"does not say where it lies", _POSITION),
    (r"orientation \S+, expected .*; conform = strict",
     'Register it to the grid, or set [DATA] conform = "reorient" or "resample"'),
    (r"; conform = (strict|reorient)", 'Register it to the grid, or set [DATA] conform = "resample"'),
    (r"; no \w+ is possible|so \w+ is not possible", "Register it to the grid"),
    (r"damaged|truncated|is empty", "Copy or convert it anew"),
    (r"permission denied", "Give read permission"),
    (r"more memory than there is", "Read it on a machine with more memory; an image of a head needs far less"),
    (r"^cannot be read \(", "Try again; if it stays, look at the disk or copy the file anew"),
    (r"^is a (folder|pipe|socket|device),", "Correct path_template and data_file of the contrast table"),
    (r"^is (a )?compressed|unpack it|is the header of a NIfTI pair", "Do as it says, or convert it to .nii.gz"),
    (r"the download|a download", "Download it again"),
    (r"not an image|not a volume|to NIfTI|NIfTI image|as an image|no affine|\.mgz volume|not an Analyze", _OTHER_FILE),
    (r"goodRASFlag|^its (affine|qform|slope)|^its header (gives|contradicts)",
     "Its header is malformed: convert it anew"),
    (r"no plain numbers|dimensions, expected 3", "Save it as one number a voxel in three dimensions"),
    (r"^would be divided by|for the scale factor", "Correct scale_factor in the contrast table, or the image's slope"),
    (
        r"preprocessing peng cannot|divided by the mean of the whole",
        'Mend the image, or set [DATA] preprocessing = "agemapper"',
    ),
    (r"cannot be divided by", "Set divide_by_mean to False in the contrast table"),
    (r"too large for float32", "Make the image anew with smaller numbers; its slope may be wrong"),
    (r"NaN or infinite", "Make the image anew, or fill its NaN with 0"),
    (r"everywhere in the crop", "Look at the image; it may be empty, or the crop may miss the head"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Header:
    """What a volume's header says, or why it cannot be used."""

    volume: Volume
    header: ImageHeader | None
    problem: Finding | None


def volumes_of(experiment: Experiment, cell: Cell, subjects: pd.DataFrame) -> list[Volume]:
    """The volumes of a cell, in the order of the lists; subjects without a split as well, before -m split."""
    chosen = (cell.sex == "both") | (subjects["sex"] == cell.sex)
    if (subjects["split"] != "").any():
        chosen &= subjects["split"] != ""
    here = subjects[chosen]
    directories = {
        split: experiment.data_directories(READ_AS.get(split, split))
        for split in set(here["split"])
    }
    found: dict[tuple[str, Path], Volume] = {}
    for subject, sex, split in zip(here["subject_id"], here["sex"], here["split"]):
        for directory in directories[split]:
            path = experiment.volume_path(cell.contrast, subject, directory)
            volume = Volume(cell.contrast, subject, sex, split, path, directory)
            found.setdefault((subject, path), volume)
    return list(found.values())


def spread(volumes: list, n: int) -> list:
    """So many of a list, evenly spread over it; 0: all."""
    if not n or n >= len(volumes):
        return list(volumes)
    return [volumes[i] for i in np.unique(np.linspace(0, len(volumes) - 1, n).astype(int))]


def read_headers(volumes: list[Volume], conform: str, name: str) -> list[Header]:
    """Open every file once and judge its header for each volume in it; in the order of the volumes."""
    files = by_file(volumes)
    read = in_order(lambda here: _headers_of_file(here, conform), files, n_reading_headers())
    of_file = {
        headers[0].volume.path: iter(headers)
        for headers in progress(read, len(files), f"headers of {name}", "file")
    }
    return [next(of_file[volume.path]) for volume in volumes]


def _headers_of_file(volumes: list[Volume], conform: str) -> list[Header]:
    path = volumes[0].path
    try:
        header = read_header(path)
        if _looks_cut(path, header):
            open_image(path)
    except VolumeError as error:
        return [Header(volume, None, problem_of(volume, "files", str(error))) for volume in volumes]
    return [_judged(volume, header, conform) for volume in volumes]


def _judged(volume: Volume, header: ImageHeader, conform: str) -> Header:
    try:
        volume_index(header, volume.contrast)
        reason = why_refused(header, volume.contrast, conform)
    except VolumeError as error:
        reason = str(error)
    if reason:
        return Header(volume, None, problem_of(volume, "headers", reason))
    return Header(volume, header, None)


def problem_of(volume: Volume, part: Part, reason: str) -> Finding:
    """A volume that cannot be used."""
    remedy = remedy_of(reason)
    if reason == "no such file" or (volume.directory and volume.split == "validation"):
        reason = f"{volume.path}: {reason}"
    return Finding("error", part, reason, remedy, volume.contrast.name, volume.subject_id)


def remedy_of(reason: str) -> str:
    """What to do about a volume that a reader refused for this reason."""
    return next((text for words, text in REMEDIES if re.search(words, reason)), LOOK)


def _looks_cut(path: Path, header: ImageHeader) -> bool:
    """Whether the last bytes of a .gz speak of fewer bytes than its header; if so it is read whole to know.

    gzip ends with the number of bytes it was made of; a file that was cut ends with anything else.
    """
    with path.open("rb") as handle:
        if handle.read(2) != GZIP_MAGIC:
            return False
        handle.seek(-4, os.SEEK_END)
        (n_bytes,) = struct.unpack("<I", handle.read(4))
    # the number is modulo 2^32, and more may follow the voxels
    return not 0 <= (n_bytes - header.n_voxel_bytes) % 2**32 < 2**20


def why_refused(header: ImageHeader, contrast: Contrast, conform: str) -> str:
    """Why conforming would refuse a volume with this header, in its words; "" where it would not."""
    difference = grid_difference(header, contrast)
    if not difference:
        return ""
    if conform == "strict":
        return f"{difference}; conform = strict refuses it"
    if np.linalg.matrix_rank(header.affine) < 4:
        return f"{difference}; its affine has no inverse, so {conform} is not possible"
    if conform == "resample":
        return (
            "" if header.positioned else f"{difference}; it cannot be resampled: {NOT_POSITIONED}"
        )
    after = grid_difference(_turned(header), contrast)
    return f"{after} after reorienting; conform = {conform} refuses it" if after else ""


def _turned(header: ImageHeader) -> ImageHeader:
    """The header of a volume after its axes were brought into LAS order."""
    order = io_orientation(header.affine)
    transform = ornt_transform(order, axcodes2ornt(ORIENTATION))
    shape = header.shape[:3]
    affine = header.affine @ inv_ornt_aff(transform, shape)
    turned = tuple(shape[i] for i in np.argsort(transform[:, 0]))
    zooms = tuple(float(size) for size in voxel_sizes(affine))
    return replace(header, shape=turned, affine=affine, zooms=zooms)  # type: ignore[arg-type]


def header_findings(cell: Cell, headers: list[Header], conform: str, whole: bool) -> list[Finding]:
    """Volumes of a cell that cannot be used, sets with no usable one, and what differs between the others."""
    findings = [read.problem for read in headers if read.problem]
    for place in dict.fromkeys(map(_place, headers)):
        here = [read for read in headers if _place(read) == place]
        split, is_for_test_alone = place
        if all(read.problem for read in here):
            first = here[0].problem
            assert first is not None
            number = f"none of the {len(here)}" + ("" if whole else " looked at")
            findings.append(
                Finding(
                    "warning" if is_for_test_alone else "error", first.part,
                    f"{cell.name}: {number} {split} volumes can be used; the first: {first.reason}".replace(
                        "  ", " "
                    ),
                    first.remedy, cell.contrast.name,
                )
            )  # fmt: skip
    usable = [read.header for read in headers if read.header]
    return findings + _conforming(cell, usable, conform) + _mixtures(cell, usable)


def _place(read: Header) -> tuple[str, bool]:
    """A split, and for validation which of its two folders."""
    return read.volume.split, read.volume.is_for_test_alone


def _conforming(cell: Cell, headers: list[ImageHeader], conform: str) -> list[Finding]:
    """What reorient and resample will do, and headers that do not say where the head lies."""
    findings = []
    differ = [header for header in headers if grid_difference(header, cell.contrast)]
    if differ:
        kinds = Counter(header.axes for header in differ)
        stored = ", ".join(f"{n} {axes}" for axes, n in kinds.most_common(4))
        done = "reoriented" if conform == "reorient" else "reoriented and resampled"
        reason = (
            f"{cell.name}: {len(differ)} of {len(headers)} volumes will be {done} (stored {stored})"
        )
        remedy = "Resampling follows the affine alone; it does not register a head to MNI space"
        findings.append(
            Finding("note", "headers", reason, remedy * (conform == "resample"), cell.contrast.name)
        )
    n_lost = sum(not header.positioned for header in headers)
    if n_lost:
        findings.append(
            Finding(
                "warning", "headers",
                f"{cell.name}: {n_lost} of {len(headers)} headers do not say where the head lies (sform and "
                f"qform codes are 0); {ORIENTATION} is assumed",
                "Look at check.html whether these heads lie as the others", cell.contrast.name,
            )
        )  # fmt: skip
    return findings


def _mixtures(cell: Cell, headers: list[ImageHeader]) -> list[Finding]:
    """Volumes of one contrast that were stored in different ways may come from different programs."""
    findings = []
    looks = (
        ("the kind of stored number", Counter(header.dtype.name for header in headers)),
        ("axes", Counter(header.axes for header in headers)),
        ("volumes a file", Counter(str(header.n_volumes) for header in headers)),
        (
            "a slope or intercept",
            Counter(
                "none" if (header.slope, header.intercept) == (1.0, 0.0) else "one"
                for header in headers
            ),
        ),
    )
    for what, found in looks:
        if len(found) > 1:
            said = ", ".join(f"{value} {n}" for value, n in found.most_common(5))
            findings.append(
                Finding(
                    "note", "headers", f"{cell.name}: headers differ in {what}: {said}",
                    "They may come from different programs; see whether their pictures differ",
                    cell.contrast.name,
                )
            )  # fmt: skip
    return findings


def quick_number(cells: Iterable[Cell]) -> int:
    """How many headers of a cell the quick part opens."""
    fewest, most = QUICK_OF_A_CELL
    return min(most, max(fewest, QUICK_HEADERS // max(len(list(cells)), 1)))
