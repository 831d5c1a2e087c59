"""Associations of deltas with nIDPs: Manhattan plot by category and quantile-quantile plot."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from scipy.special import betaincinv, ndtri

from figures.association_table import AssociationView, Family
from figures.persons import RASTER_ABOVE
from figures.style import (
    ACCENT,
    INK,
    LINE_STYLES,
    MM,
    ONE_COLUMN_INCHES,
    PALETTE,
    SOFT_INK,
    TWO_COLUMNS_INCHES,
    new_figure,
    say_in_axes,
    soft_grid,
    styled,
)
from figures.tables import COMBINATION, contrast_word, sex_word

CHI2_MEDIAN = 0.4549364231195724  # median of chi-squared with one degree of freedom
N_LABELLED = 3
MANHATTAN_CAPTION = (
    "Associations of the brain-age delta of {contrast} with {n_nidps} nIDPs, by category. Triangles: the 95 % "
    "interval of r excludes zero, pointing up for r > 0 and down for r < 0; grey circles: it holds zero. Dashed: "
    "Bonferroni threshold at {alpha:g}; dotted: the p up to which Benjamini-Hochberg rejects at "
    "{alpha:g} (absent where it rejects none). Family corrected together: {families}. Colours alternate between "
    "categories.{fold}"
)
QUANTILE_QUANTILE_CAPTION = (
    "Observed against expected −log₁₀ p of all associations, one line a contrast (sexes together), with the "
    "95 % band of independent uniform p. λ: median χ² over its expectation. λ above 1 is expected where "
    "phenotypes are correlated and many are truly associated; the check of calibration is the same plot after "
    "permutation."
)


def manhattan(view: AssociationView, contrast: str) -> Figure:
    """−log10 p of one contrast's delta over nIDPs by category, one panel a sex, axes shared."""
    sexes = [sex for name, sex in view.deltas if name == contrast]
    top, fold = _fold_point(view, contrast)
    with styled():
        figure = new_figure(TWO_COLUMNS_INCHES, (56 * max(len(sexes), 1) + 22) * MM)
        panels = figure.subplots(max(len(sexes), 1), 1, squeeze=False, sharex=True, sharey=True)[
            :, 0
        ]
        for axes, sex in zip(panels, sexes):
            _manhattan_panel(axes, view, contrast, sex)
        if fold is not None:
            axes = panels[0]
            axes.set_yscale("function", functions=(_folded(fold), _unfolded(fold)))
            steps = [*np.linspace(0, fold, 5), *np.linspace(fold, top, 4)[1:]]
            axes.yaxis.set_major_locator(FixedLocator([float(round(step)) for step in steps]))
            for axes in panels:
                axes.axhline(fold, color=INK, linewidth=0.4, linestyle=(0, (1, 3)))
        panels[0].set_ylim(0, top * 1.06)
        _name_categories(panels[-1], view)
    return figure


def manhattan_caption(view: AssociationView, contrast: str) -> str:
    """The caption of `manhattan`, which names the family."""
    _, fold = _fold_point(view, contrast)
    found = [view.thresholds(contrast, sex) for name, sex in view.deltas if name == contrast]
    names = dict.fromkeys(
        f"{family.name} ({family.n_tests:,} tests)" for family in found if family is not None
    )
    return MANHATTAN_CAPTION.format(
        contrast=f"the {contrast_word(contrast)}" if contrast == COMBINATION else contrast,
        n_nidps=f"{view.n_nidps:,}",
        alpha=view.alpha,
        families="; ".join(names) or "several, so that no line is drawn",
        fold=""
        if fold is None
        else f" Above {fold:g} the axis is folded: a step is five times as tall below it as above it.",
    )


FOLD_RATIO = 5.0


def _folded(fold: float):
    return lambda y: np.where(y <= fold, y, fold + (np.asarray(y) - fold) / FOLD_RATIO)


def _unfolded(fold: float):
    return lambda y: np.where(y <= fold, y, fold + (np.asarray(y) - fold) * FOLD_RATIO)


def _fold_point(view: AssociationView, contrast: str) -> tuple[float, float | None]:
    """Top of the axis, and where to fold it: one giant hit must not hide the rest."""
    places = [place for place, delta in enumerate(view.deltas) if delta[0] == contrast]
    rows = view.table[view.table["delta_place"].isin(places)]
    values = rows["nlog10p"].dropna().to_numpy()
    lines = [family.bonferroni_nlog10p or 0.0 for family in view.families]
    highest = float(max([*values, 1.0]))
    floor = float(np.ceil(2.5 * max([*lines, 1.0])))
    if highest > 3 * floor:
        return highest, floor
    return max(highest, 1.05 * max([*lines, 1.0])), None


def _manhattan_panel(axes: Axes, view: AssociationView, contrast: str, sex: str) -> None:
    rows = view.of_delta(contrast, sex)
    rows = rows[rows["nlog10p"].notna()]
    soft_grid(axes, "y")
    axes.set_ylabel("−log₁₀ p")
    axes.set_title(f"{contrast_word(contrast)}, {sex_word(sex)}")
    if len(rows) == 0:
        say_in_axes(axes, "no nIDP could be tested")
        return
    category = view.nidps["category"].to_numpy()[rows["nidp_place"]]
    shade = pd.factorize(view.nidps["category"])[0][rows["nidp_place"]] % 2
    clear = ((rows["ci_lo"] > 0) | (rows["ci_hi"] < 0)).to_numpy()
    up = (rows["r"] > 0).to_numpy()
    raster = len(rows) > RASTER_ABOVE
    x, y = rows["nidp_place"].to_numpy(), rows["nlog10p"].to_numpy()
    axes.scatter(x[~clear], y[~clear], s=3, color="#b4bcc2", linewidths=0, rasterized=raster)
    for tone, color in ((0, PALETTE[0]), (1, PALETTE[1])):
        for pointing, marker in ((True, "^"), (False, "v")):
            these = clear & (shade == tone) & (up == pointing)
            axes.scatter(
                x[these],
                y[these],
                s=10,
                marker=marker,
                color=color,
                linewidths=0,
                rasterized=raster,
            )
    _thresholds(axes, view.thresholds(contrast, sex))
    _label_highest(axes, view, rows.assign(category=category))


def _thresholds(axes: Axes, family: Family | None) -> None:
    """Dashed: Bonferroni; dotted: Benjamini-Hochberg."""
    if family is None:
        return
    for value, line, word in (
        (family.bonferroni_nlog10p, "--", "Bonferroni"),
        (family.bh_nlog10p, ":", "BH"),
    ):
        if value is not None:
            axes.axhline(value, color=SOFT_INK, linewidth=0.8, linestyle=line)
            axes.annotate(
                word,
                (1.0, value),
                xycoords=("axes fraction", "data"),
                xytext=(-1, 1.5),
                textcoords="offset points",
                ha="right",
                fontsize=5.5,
                color=SOFT_INK,
            )


def _label_highest(axes: Axes, view: AssociationView, rows: pd.DataFrame) -> None:
    """Names of the highest points that pass Bonferroni, kept apart sideways."""
    passing = rows[view.passes_bonferroni().loc[rows.index]]
    highest = passing.sort_values(["nlog10p", "nidp_place"], ascending=[False, True])
    placed: list[int] = []
    for _, row in highest.iterrows():
        place = int(row["nidp_place"])
        if any(abs(place - other) < 0.12 * view.n_nidps for other in placed):
            continue
        name = view.nidps["name"].iloc[place]
        right = place > 0.7 * view.n_nidps
        axes.annotate(
            name if len(name) <= 32 else name[:31] + "…",
            (place, row["nlog10p"]),
            xytext=(-4 if right else 4, 0),
            textcoords="offset points",
            ha="right" if right else "left",
            va="center",
            fontsize=5.5,
            annotation_clip=True,
        )
        placed.append(place)
        if len(placed) == N_LABELLED:
            break


def _name_categories(axes: Axes, view: AssociationView) -> None:
    """Category names under the middle of their nIDPs; only those wide enough when there are many."""
    places = pd.Series(range(view.n_nidps)).groupby(view.nidps["category"].to_numpy(), sort=False)
    middle, names = [], []
    for name, where in places:
        if len(where) >= view.n_nidps / 60:
            middle.append(float(where.mean()))
            names.append(name if len(name) <= 28 else name[:27] + "…")
    few = len(names) <= 5
    axes.set_xticks(
        middle,
        names,
        rotation=0 if few else 40,
        ha="center" if few else "right",
        rotation_mode="anchor",
    )
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.01 * view.n_nidps - 1, 1.01 * view.n_nidps)


def quantile_quantile(view: AssociationView) -> Figure:
    """Observed against expected −log10 p by contrast, with the band of independent uniform p and λ."""
    contrasts = list(dict.fromkeys(contrast for contrast, _ in view.deltas))
    with styled():
        figure = new_figure(ONE_COLUMN_INCHES, 84 * MM)
        axes = figure.subplots()
        soft_grid(axes)
        axes.set(xlabel="expected −log₁₀ p", ylabel="observed −log₁₀ p")
        highest = 0.0
        for step, contrast in enumerate(contrasts):
            places = [place for place, delta in enumerate(view.deltas) if delta[0] == contrast]
            values = view.table.loc[view.table["delta_place"].isin(places), "nlog10p"].dropna()
            observed = np.sort(values.to_numpy())[::-1]
            if len(observed) == 0:
                continue
            n = len(observed)
            expected = -np.log10((np.arange(1, n + 1) - 0.5) / n)
            if n > highest:
                _uniform_band(axes, n)
                highest = n
            many = len(contrasts) > len(PALETTE)
            axes.plot(
                *_thinned(expected, observed),
                color=SOFT_INK if many else PALETTE[step],
                linestyle="-" if many else LINE_STYLES[step % len(LINE_STYLES)],
                alpha=0.5 if many else 1,
                label=None if many else f"{contrast_word(contrast)}, λ = {inflation(observed):.2f}",
            )
        if highest == 0:
            say_in_axes(axes, "no nIDP could be tested")
        elif len(contrasts) <= len(PALETTE):
            axes.legend(loc="upper left")
    return figure


def inflation(nlog10p: np.ndarray) -> float:
    """Genomic-control lambda: the median chi-squared of the p values over 0.4549; NaN without values."""
    known = np.asarray(nlog10p, float)
    known = known[np.isfinite(known)]
    if len(known) == 0:
        return float("nan")
    # The median p is far from underflow in any real set of tests; the floor only keeps the formula defined.
    p = min(max(10.0 ** -float(np.median(known)), 1e-300), 1.0)
    return float(ndtri(p / 2) ** 2 / CHI2_MEDIAN)


def _uniform_band(axes: Axes, n: int) -> None:
    """95 % band of the ordered p of n independent tests: the i-th is Beta(i, n + 1 - i)."""
    rank = np.unique(np.round(np.geomspace(1, n, 120)).astype(int))
    low, high = (betaincinv(rank, n + 1 - rank, level) for level in (0.975, 0.025))
    expected = -np.log10((rank - 0.5) / n)
    axes.fill_between(
        expected, -np.log10(low), -np.log10(high), color=ACCENT, alpha=0.12, linewidth=0
    )
    axes.plot(expected, expected, color=SOFT_INK, linewidth=0.8, linestyle="--")


def _thinned(expected: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most some 600 points of a curve, all of its upper end kept."""
    if len(expected) <= 600:
        return expected, observed
    keep = np.unique(
        np.concatenate([np.arange(200), np.geomspace(200, len(expected), 400) - 1]).astype(int)
    )
    return expected[keep], observed[keep]
