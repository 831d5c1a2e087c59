"""Files and headers of all volumes, contents of a sample: what would be left out, and what looks wrong."""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.compression import GZIP_MAGIC
from datasets.conforming import ORIENTATION, grid_difference, volume_index
from datasets.contrasts import Contrast
from datasets.images import ImageHeader, VolumeError, open_image, read_header
from utils.common.messages import progress
from utils.experiment.checks.findings import Finding, Part
from utils.experiment.checks.lists import PREDICT
from utils.experiment.experiment import Cell, Experiment

# The quick part looks at so many headers altogether, and at least and at most so many of a cell.
QUICK_HEADERS = 400
QUICK_OF_A_CELL = (3, 20)
# Remedies by what stands in the reason; the first that fits.
REMEDIES = (
    ("no such file", "Check data_directory, path_template and data_file of the contrast table"),
    ("symbolic link", "Restore what the link points to"),
    ("volume_index", "Give the contrast table the right volume_index"),
    ("conform = strict", 'Register it to the grid, or set [DATA] conform = "reorient" or "resample"'),
    ("conform = reorient", 'Register it to the grid, or set [DATA] conform = "resample"'),
    ("damaged", "Copy or convert it anew"),
    ("holds ", "Give the contrast table a volume_index"),
    ("must not be read", "Give read permission"),
    ("divided by", "Set divide_by_mean to False in the contrast table"),
    ("NaN", "Make the image anew, or fill its NaN with 0"),
    ("zero everywhere", "Look at the image; the crop may miss the head"),
)  # fmt: skip


@dataclass(frozen=True)
class Volume:
    """A subject's volume of one contrast and where it lies."""

    contrast: Contrast
    subject_id: str
    sex: str
    split: str
    path: Path


@dataclass(frozen=True)
class Header:
    """What a volume's header says, or why it cannot be used."""

    volume: Volume
    header: ImageHeader | None
    problem: Finding | None


def volumes_of(experiment: Experiment, cell: Cell, subjects: pd.DataFrame) -> list[Volume]:
    """The volumes of a cell, in the order of the lists; subjects without a split as well, before -m split."""
    data, mapping = experiment.settings.data, experiment.settings.mapping
    chosen = (cell.sex == "both") | (subjects["sex"] == cell.sex)
    if (subjects["split"] != "").any():
        chosen &= subjects["split"] != ""
    directories = dict.fromkeys(("test", PREDICT), mapping.data_directory)
    here = subjects[chosen]
    return [
        Volume(
            cell.contrast, subject, sex, split,
            experiment.volume_path(
                cell.contrast, subject, directories.get(split, "") or data.data_directory
            ),
        )
        for subject, sex, split in zip(here["subject_id"], here["sex"], here["split"])
    ]  # fmt: skip


def spread(volumes: list, n: int) -> list:
    """So many of a list, evenly spread over it; 0: all."""
    if not n or n >= len(volumes):
        return list(volumes)
    return [volumes[i] for i in np.unique(np.linspace(0, len(volumes) - 1, n).astype(int))]


def read_headers(volumes: list[Volume], conform: str, name: str) -> list[Header]:
    """Open every file and judge its header; most of the time is spent waiting for the disk."""
    with ThreadPoolExecutor(max_workers=4 * (os.cpu_count() or 1)) as threads:
        read = threads.map(lambda volume: _header(volume, conform), volumes)
        return list(progress(read, len(volumes), f"headers of {name}", "vol"))


def _header(volume: Volume, conform: str) -> Header:
    part: Part = "files"
    try:
        header = read_header(volume.path)
        if _looks_cut(volume.path, header):
            open_image(volume.path)
        part = "headers"
        volume_index(header, volume.contrast)
        difference = grid_difference(header, volume.contrast)
        if difference and _is_refused(header, volume.contrast, conform):
            raise VolumeError(f"{difference}; conform = {conform} refuses it")
    except VolumeError as error:
        return Header(volume, None, problem_of(volume, part, str(error)))
    return Header(volume, header, None)


def problem_of(volume: Volume, part: Part, reason: str) -> Finding:
    """A volume that cannot be used."""
    remedy = next((text for word, text in REMEDIES if word in reason), "Look at the file")
    if reason == "no such file":
        reason = f"{volume.path}: {reason}"
    return Finding("error", part, reason, remedy, volume.contrast.name, volume.subject_id)


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


def _is_refused(header: ImageHeader, contrast: Contrast, conform: str) -> bool:
    """Whether conforming would refuse a header that differs from the grid."""
    if conform == "strict":
        return True
    if np.linalg.matrix_rank(header.affine) < 4:
        return True
    if conform == "resample":
        return False
    return not _fits_when_turned(header, contrast)


def _fits_when_turned(header: ImageHeader, contrast: Contrast) -> bool:
    """Whether the axes, brought into LAS order, have the contrast's shape and voxel size."""
    pairs = ("LR", "AP", "SI")
    axes = [
        next((i for i, letter in enumerate(header.axes) if letter in pair), -1) for pair in pairs
    ]
    if -1 in axes:
        return False
    shape = tuple(header.shape[i] for i in axes)
    return shape == contrast.shape and all(
        abs(header.zooms[i] / contrast.voxel_mm - 1) < 0.01 for i in axes
    )


def header_findings(cell: Cell, headers: list[Header], conform: str, whole: bool) -> list[Finding]:
    """Volumes of a cell that cannot be used, sets with no usable one, and what differs between the others."""
    findings = [read.problem for read in headers if read.problem]
    for split in dict.fromkeys(read.volume.split for read in headers):
        here = [read for read in headers if read.volume.split == split]
        if all(read.problem for read in here):
            first = here[0].problem
            assert first is not None
            number = f"none of the {len(here)}" + ("" if whole else " looked at")
            findings.append(
                Finding(
                    "error" if split != "test" else "warning", first.part,
                    f"{cell.name}: {number} {split} volumes can be used; the first: {first.reason}".replace(
                        "  ", " "
                    ),
                    first.remedy, cell.contrast.name,
                )
            )  # fmt: skip
    usable = [read.header for read in headers if read.header]
    return findings + _conforming(cell, usable, conform) + _mixtures(cell, usable)


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
