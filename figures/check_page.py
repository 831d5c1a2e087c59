"""The page of `-m check`: middle slices of the volumes, the most unusual first, to be rated by a person.

One file that asks nothing of the network. It shows individuals, with their ids, and says so at its top; it
is never part of what may leave a closed platform. Ratings stay in the browser until they are downloaded.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from figures.pages import page_text
from figures.tables import file_word
from utils.common.files import write_text

STYLES = ("report.css", "check.css")
SCRIPTS = ("base.js", "check.js")
STAMP = "shows individuals with their ids: keep it inside"
SHOWN_WIDTH = 400  # pixels of the page for the three slices of a volume
GAP_PIXELS = 3
GREY_STEP = 4  # 64 shades are enough for the eye, and compress to three quarters


@dataclass(frozen=True)
class Picture:
    """One volume: whose, three slices (2D uint8, as they are looked at), and what is unusual about it."""

    contrast: str
    subject_id: str
    about: str
    slices: tuple[np.ndarray, ...]
    score: float  # robust z; NaN where there was no cohort to compare with
    reasons: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class CheckPage:
    """What the page shows."""

    experiment: str
    simulated: bool
    counts: dict[str, dict[str, int]]  # level -> part -> findings
    findings: tuple[tuple[str, ...], ...]  # level, part, contrast, subject, reason, remedy
    pictures: tuple[Picture, ...]
    n_looked_at: int
    n_headers: int
    outlier_z: float


def write_check_page(page: CheckPage, path: str | Path) -> Path:
    """Write the page, complete in one file."""
    path = Path(path)
    write_text(check_page_text(page), path)
    return path


def check_page_text(page: CheckPage) -> str:
    """The page as text; the same for the same findings."""
    content: dict[str, Any] = {
        "page": page,
        "file_word": file_word(page.experiment),
        "stamp": STAMP,
        "contrasts": list(dict.fromkeys(picture.contrast for picture in page.pictures)),
        "cards": [_card(level, parts) for level, parts in page.counts.items()],
        "rows": [_row(picture) for picture in page.pictures],
        "key": _fingerprint(page),
    }
    return page_text("check.html.j2", STYLES, SCRIPTS, content)


def _fingerprint(page: CheckPage) -> str:
    """Tells one page's ratings from another's in the browser's memory; says nothing about who is on it."""
    text = repr([(p.contrast, p.subject_id) for p in page.pictures]) + page.experiment
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def _card(level: str, parts: dict[str, int]) -> dict[str, str]:
    total = sum(parts.values())
    where = ", ".join(f"{number:,} {part}" for part, number in parts.items()) or "none"
    return {"title": f"{level}s".capitalize(), "value": f"{total:,}", "words": where}


def _row(picture: Picture) -> dict[str, Any]:
    mosaic = side_by_side(picture.slices)
    height, width = mosaic.shape
    who = f"{picture.contrast}, subject {picture.subject_id}"
    score = "" if math.isnan(picture.score) else f"{picture.score:.1f}"
    return {
        "contrast": picture.contrast,
        "subject_id": picture.subject_id,
        "about": picture.about,
        "who": who,
        "source": "data:image/png;base64," + base64.b64encode(png_of(mosaic)).decode("ascii"),
        "alternative": f"Axial, coronal and sagittal middle slice: {who}",
        "width": SHOWN_WIDTH,
        "height": round(SHOWN_WIDTH * height / width),
        "score": score,
        "reasons": picture.reasons,
        "facts": picture.facts,
    }


def side_by_side(slices: tuple[np.ndarray, ...]) -> np.ndarray:
    """Slices in one 8 bit picture, centred, with black between them; in GREY_STEP steps."""
    height = max(each.shape[0] for each in slices)
    width = sum(each.shape[1] for each in slices) + GAP_PIXELS * (len(slices) - 1)
    mosaic = np.zeros((height, width), np.uint8)
    left = 0
    for each in slices:
        top = (height - each.shape[0]) // 2
        mosaic[top : top + each.shape[0], left : left + each.shape[1]] = each
        left += each.shape[1] + GAP_PIXELS
    return mosaic // GREY_STEP * GREY_STEP


def png_of(picture: np.ndarray) -> bytes:
    """A greyscale PNG of a 2D uint8 array; nothing in it but the picture."""
    height, width = picture.shape
    # each line begins with its filter; 2: the difference from the line above, which compresses better
    lines = np.zeros((height, width + 1), np.uint8)
    lines[:, 0] = 2
    lines[0, 1:] = picture[0]
    lines[1:, 1:] = picture[1:] - picture[:-1]  # modulo 256, as the format has it
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


__all__ = ["STAMP", "CheckPage", "Picture", "check_page_text", "png_of", "write_check_page"]
