"""The README's two pictures, drawn by this code: a network's layers, and the way from volumes to associations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon

from figures.style import INK, MM, PALETTE, SOFT_INK, TWO_COLUMNS_INCHES, new_figure, styled

NETWORK_ARCHITECTURE_CAPTION = (
    "Layers of {title}, from the input volume to the predicted age. Boxes: feature maps; the face and depth "
    "shrink with the number of voxels along an axis (on a square-root scale), the length along the arrow grows "
    "with the number of channels. Bars: vectors. Below: output shape (channels x voxels)."
)
ENSEMBLE_SCHEME_CAPTION = (
    "From volumes to associations. Each contrast and sex is a cell: {n_networks} identical networks that "
    "differ by seed alone. Their mean is the cell's prediction; the combination weighs the contrasts, with "
    "weights fitted on validation subjects. Delta is predicted age minus age, corrected for its dependence on "
    "age with coefficients fitted on validation subjects, and is then tested against every nIDP."
)
_TINTS = ("#d6e6f2", "#b5d2e8", "#8fbbdc")


def network_architecture(layers: Sequence[dict[str, Any]], title: str = "the network") -> Figure:
    """Draw a network from a plain list of layers.

    Parameters
    ----------
    layers : list of dict
        In order: `name` (text), `output_shape` (channels, X, Y, Z or a vector's length, without the batch),
        optionally `detail` (text, e.g. "3 x 3 x 3") and `n_parameters`.
    title : str
        Name of the network.
    """
    if not layers:
        raise ValueError("network_architecture: the list of layers is empty")
    sizes = [_box(layer) for layer in layers]
    with styled():
        figure = new_figure(TWO_COLUMNS_INCHES, 78 * MM)
        axes = figure.subplots()
        place, centres = 0.0, []
        for step, (layer, (length, height, depth)) in enumerate(zip(layers, sizes)):
            _cuboid(axes, place, length, height, depth, is_first=step == 0)
            centres.append((place, place + length + depth * 0.5))
            _layer_text(axes, layer, place + (length + depth * 0.5) / 2)
            place += length + depth * 0.5 + max(1.5, _text_width(layer, layers, step) - length)
        for (_, end), (start, _) in pairwise(centres):
            axes.add_patch(_arrow((end + 0.15, 0.0), (start - 0.15, 0.0)))
        total = sum(int(layer.get("n_parameters") or 0) for layer in layers)
        words = f"{title}  ({total:,} parameters)" if total else title
        axes.set_title(words, loc="left")
        axes.set_xlim(-1.2, centres[-1][1] + 1.8)
        highest = max(height / 2 + 0.45 * depth for _, height, depth in sizes)
        axes.set_ylim(-9.2, highest + 0.6)
        axes.axis("off")
    return figure


def network_architecture_caption(title: str = "the network") -> str:
    """The caption of `network_architecture`."""
    return NETWORK_ARCHITECTURE_CAPTION.format(title=title)


def _shape(layer: dict[str, Any]) -> tuple[int, ...]:
    shape = layer["output_shape"]
    return tuple(int(size) for size in np.atleast_1d(shape))


def _box(layer: dict[str, Any]) -> tuple[float, float, float]:
    """Length (channels), height and depth (voxels) of a layer's box in drawing units."""
    shape = _shape(layer)
    if len(shape) < 2:
        return 0.35, float(np.clip(0.9 * np.log2(shape[0] + 1), 0.7, 9.0)), 0.0
    side = float(np.mean(shape[1:]))
    return 0.25 + 0.16 * np.sqrt(shape[0]), 0.75 * np.sqrt(side), 0.42 * np.sqrt(side)


def _text_width(layer: dict[str, Any], layers: Sequence[dict[str, Any]], step: int) -> float:
    """Room that the label under a box needs, with its neighbour's."""
    neighbour = layers[min(step + 1, len(layers) - 1)]
    return 0.5 * (_longest(layer) + _longest(neighbour)) * 0.235 + 0.4


def _longest(layer: dict[str, Any]) -> int:
    return max(len(line) for line in _lines(layer))


def _lines(layer: dict[str, Any]) -> list[str]:
    shape = _shape(layer)
    voxels = " × ".join(str(size) for size in shape[1:])
    lines = [str(layer["name"]), str(layer.get("detail") or ""), str(shape[0]), voxels]
    return [line for line in lines if line]


def _layer_text(axes: Axes, layer: dict[str, Any], x: float) -> None:
    lines = _lines(layer)
    axes.text(x, -5.2, lines[0], ha="center", va="top", fontsize=6, fontweight="bold", color=INK)
    axes.text(x, -6.1, "\n".join(lines[1:]), ha="center", va="top", fontsize=5.5, color=SOFT_INK)


def _cuboid(
    axes: Axes, left: float, length: float, height: float, depth: float, is_first: bool
) -> None:
    """A box seen from the front left, centred on height zero."""
    low, high = -height / 2, height / 2
    shift = np.array([depth * 0.5, depth * 0.45])
    front = np.array([(left, low), (left + length, low), (left + length, high), (left, high)])
    top = np.array([front[3], front[2], front[2] + shift, front[3] + shift])
    side = np.array([front[1], front[2], front[2] + shift, front[1] + shift])
    tints = ("#eceff1", "#dde2e6", "#c9d0d5") if is_first else _TINTS
    for corners, tint in ((front, tints[0]), (top, tints[1]), (side, tints[2])):
        axes.add_patch(
            Polygon(
                corners,
                closed=True,
                facecolor=tint,
                edgecolor=INK,
                linewidth=0.5,
                joinstyle="round",
            )
        )


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> FancyArrowPatch:
    return FancyArrowPatch(
        start,
        end,
        arrowstyle="-|>",
        mutation_scale=6,
        linewidth=0.7,
        color=SOFT_INK,
        shrinkA=0,
        shrinkB=0,
    )


def ensemble_scheme(
    contrasts: Sequence[str] = ("T1", "T2", "…", "diffusion FA"),
    sexes: Sequence[str] = ("women", "men"),
    n_networks: int = 3,
) -> Figure:
    """The study in one picture: volumes, networks x contrasts x sexes, mean, combination, delta, associations."""
    with styled():
        figure = new_figure(TWO_COLUMNS_INCHES, 84 * MM)
        axes = figure.subplots()
        heights = np.linspace(7.4, 0.6, len(contrasts))
        middle = float(heights.mean())
        for contrast, height in zip(contrasts, heights):
            if contrast == "…":
                for x in (1.2, 5.0, 8.6):
                    axes.text(x, height, "⋮", ha="center", va="center", fontsize=11, color=SOFT_INK)
                continue
            _row(axes, contrast, float(height), n_networks)
            axes.add_patch(
                _arrow((9.55, float(height)), (10.55, middle + 0.25 * (height - middle)))
            )
        _tall_box(
            axes, (10.6, middle), (2.3, 3.0), "combination", "weights from\nvalidation", PALETTE[1]
        )
        _tall_box(
            axes,
            (13.7, middle),
            (2.2, 3.0),
            "delta",
            "predicted − age,\nbias-corrected",
            PALETTE[2],
        )
        _tall_box(
            axes,
            (16.7, middle),
            (2.4, 3.0),
            "associations",
            "r with each nIDP,\nfamily-wise",
            PALETTE[3],
        )
        for start, end in ((12.95, 13.65), (15.95, 16.65)):
            axes.add_patch(_arrow((start, middle), (end, middle)))
        for x, words in ((1.2, "volumes"), (5.0, f"{n_networks} networks (seeds)"), (8.6, "mean")):
            axes.text(x, 8.75, words, ha="center", fontweight="bold", color=INK)
        axes.text(
            0.1,
            -0.85,
            f"separately for {' and '.join(sexes)}; combination and correction are fitted on validation "
            "subjects and applied to test subjects",
            fontsize=6.5,
            color=SOFT_INK,
        )
        axes.set_xlim(-0.1, 19.2)
        axes.set_ylim(-1.2, 9.3)
        axes.axis("off")
    return figure


def ensemble_scheme_caption(n_networks: int = 3) -> str:
    """The caption of `ensemble_scheme`."""
    return ENSEMBLE_SCHEME_CAPTION.format(n_networks=n_networks)


def _row(axes: Axes, contrast: str, height: float, n_networks: int) -> None:
    """One contrast: its volumes, its networks, their mean."""
    _rounded(axes, (0.1, height - 0.55), (2.2, 1.1), "#eceff1", SOFT_INK)
    axes.text(1.2, height, contrast, ha="center", va="center", fontsize=7)
    left, step = 3.3, 3.4 / max(n_networks, 1)
    for network in range(n_networks):
        x = left + network * step
        _rounded(axes, (x + 0.06, height - 0.42), (step - 0.12, 0.84), _TINTS[0], PALETTE[0])
        axes.text(x + step / 2, height, f"CNN {network + 1}", ha="center", va="center", fontsize=6)
    axes.add_patch(_arrow((2.35, height), (3.3, height)))
    axes.add_patch(_arrow((6.75, height), (7.65, height)))
    _rounded(axes, (7.7, height - 0.42), (1.8, 0.84), _TINTS[2], PALETTE[0])
    axes.text(8.6, height, "predicted age", ha="center", va="center", fontsize=6)


def _rounded(
    axes: Axes, corner: tuple[float, float], size: tuple[float, float], face: str, edge: str
) -> None:
    axes.add_patch(
        FancyBboxPatch(
            corner,
            *size,
            boxstyle="round,pad=0,rounding_size=0.12",
            facecolor=face,
            edgecolor=edge,
            linewidth=0.7,
        )
    )


def _tall_box(
    axes: Axes,
    left_middle: tuple[float, float],
    size: tuple[float, float],
    title: str,
    words: str,
    edge: str,
) -> None:
    left, middle = left_middle
    _rounded(axes, (left, middle - size[1] / 2), size, "white", edge)
    axes.text(left + size[0] / 2, middle + 0.55, title, ha="center", va="center", fontweight="bold")
    axes.text(
        left + size[0] / 2,
        middle - 0.5,
        words,
        ha="center",
        va="center",
        fontsize=6,
        color=SOFT_INK,
    )
