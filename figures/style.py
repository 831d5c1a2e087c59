"""The look of every picture, and how pictures are written so that the same table gives the same bytes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from utils.common.files import replacing, write_text

MM = 1 / 25.4  # inch
ONE_COLUMN_INCHES = 89 * MM  # single column of the field's journals
TWO_COLUMNS_INCHES = 183 * MM

# Okabe M, Ito K 2008, "Color Universal Design", without yellow and black; told apart with any colour vision.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK = "#1f2933"
SOFT_INK = "#5b6770"
HAIRLINE = "#d5dade"
ACCENT = PALETTE[0]
CONTRAST_ACCENT = PALETTE[1]
LINE_STYLES = ("-", "--", ":", "-.")
DENSITY = LinearSegmentedColormap.from_list(
    "density", ["#dbe9f4", "#9ecae1", "#4292c6", "#08519c", "#08264f"]
)

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"],  # the first comes with matplotlib
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 7,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT_INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "text.color": INK,
    "text.parse_math": False,  # a contrast or nIDP may hold a dollar sign
    "xtick.color": SOFT_INK,
    "ytick.color": SOFT_INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "lines.linewidth": 1.1,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "none",  # text stays text: searchable, and read by screen readers
    "svg.hashsalt": "brain-age",
    "svg.image_inline": True,
    "path.simplify": True,
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw and write inside the project's style; a letter that the font lacks is drawn as a box in silence."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """An empty figure whose parts are arranged without overlap."""
    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def soft_grid(axes: Axes, axis: str = "both") -> None:
    """Thin lines behind the data."""
    axes.grid(visible=True, axis=axis, color=HAIRLINE, linewidth=0.5)  # type: ignore[arg-type]
    axes.tick_params(which="both", direction="out")


def say_in_axes(axes: Axes, text: str) -> None:
    """A sentence in the place of data that cannot be shown."""
    axes.text(
        0.5,
        0.5,
        text,
        transform=axes.transAxes,
        ha="center",
        va="center",
        color=SOFT_INK,
        wrap=True,
    )


def svg_bytes(figure: Figure) -> bytes:
    """The figure as SVG, without date or program name."""
    buffer = BytesIO()
    with styled():
        figure.savefig(buffer, format="svg", dpi=200, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def png_bytes(figure: Figure, dots_per_inch: int = 300) -> bytes:
    """The figure as PNG, without program name."""
    buffer = BytesIO()
    with styled():
        figure.savefig(buffer, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return buffer.getvalue()


def save_figure(figure: Figure, folder: str | Path, name: str, caption: str) -> list[Path]:
    """Write NAME.png, NAME.svg and the caption's entry in captions.txt; return the two pictures' paths.

    `captions.txt` holds one paragraph a figure, sorted by name; saving a figure again replaces its paragraph.
    """
    if not caption.strip():
        raise ValueError(f"figure {name!r} has no caption; no figure is written unexplained")
    folder = Path(folder)
    written = []
    for ending, content in ((".png", png_bytes(figure)), (".svg", svg_bytes(figure))):
        path = folder / f"{name}{ending}"
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        written.append(path)
    captions = read_captions(folder)
    captions[name] = " ".join(caption.split())
    paragraphs = [f"{key}: {captions[key]}" for key in sorted(captions)]
    write_text("\n\n".join(paragraphs) + "\n", folder / "captions.txt")
    return written


def read_captions(folder: str | Path) -> dict[str, str]:
    """The captions of a folder of figures, by figure name."""
    path = Path(folder) / "captions.txt"
    if not path.is_file():
        return {}
    paragraphs = path.read_text(encoding="utf-8").split("\n\n")
    return dict(p.strip().split(": ", 1) for p in paragraphs if ": " in p)
