"""The report's pictures: plain arrays in, bytes of a PNG out. No text of any ad gets in here.

Colours are those of Okabe and Ito (2008), which colour-blind people tell apart; what differs in
colour differs in marker, line or hatching, too. Matplotlib's object interface alone is used: there is
no current figure, and no settings file of the user's changes a picture. The same arguments give the
same bytes with the same version of Matplotlib.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from PIL import Image

from pipelines.numerics.calibration import MARGIN_STEP, N_BINS

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
BLACK, GREY, SKY, YELLOW = "#000000", "#6b7480", "#56B4E9", "#E69F00"
# Large letters for the width: on a telephone all of it is 8 cm wide.
WIDTH_INCHES, DPI = 6.4, 160
# Fewer ads than this are no cloud to draw an outline around.
_MIN_OUTLINED = 3
# An outline of so many standard deviations holds about two thirds of a round cloud.
_OUTLINE_SIGMAS = 1.5
_BINS = 80
# Bars this much lower than the highest could not be seen beside it.
_INVISIBLE = 1 / 50
_NAME_CHARS = 28

_STYLE = {
    "figure.dpi": DPI,
    "font.size": 11.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.axisbelow": True,
    "grid.color": "#d5d9df",
    "legend.edgecolor": "white",
    "legend.framealpha": 0.9,
    "legend.fontsize": 10.5,
    # Label names come from the task file: a dollar sign in one is a dollar sign.
    "text.parse_math": False,
}


@dataclass(frozen=True, slots=True)
class Names:
    """What the pictures call the two labels; see :func:`drawable`."""

    positive: str
    negative: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval.

    Attributes:
        name: what stands under it on the axis.
        value: the estimate; None where it is undefined, and then nothing is drawn.
        low, high: ends of the interval; None when there is none.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Curve:
    """A condition's values at growing numbers of labels.

    Attributes:
        name: of the condition.
        labels: numbers of labels, (n,).
        values: mean values, (n,); None where undefined.
        spreads: standard deviations over seeds, (n,); None where there is none.
    """

    name: str
    labels: tuple[float, ...]
    values: tuple[float | None, ...]
    spreads: tuple[float | None, ...]


def drawable(name: str, otherwise: str) -> str:
    """Return a label's name as pictures show it, or a plain word if their font cannot draw it.

    The font (DejaVu Sans, which comes with Matplotlib) has Latin, Greek, Cyrillic and more, but no
    Chinese, Japanese or Korean; and Matplotlib does not turn text that runs from right to left.
    """
    folded = " ".join(name.split())
    turned = any(unicodedata.bidirectional(char) in ("R", "AL", "RLE", "RLO") for char in folded)
    hidden = any(unicodedata.category(char)[0] == "C" for char in folded)
    if not folded or turned or hidden or not {ord(char) for char in folded} <= _glyphs():
        return otherwise
    return folded if len(folded) <= _NAME_CHARS else folded[: _NAME_CHARS - 1] + "…"


@functools.cache
def _glyphs() -> frozenset[int]:
    font = FT2Font(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")))
    return frozenset(font.get_charmap())


# --- the ads on a plane -----------------------------------------------------------------------


def ad_map(points: np.ndarray, positive: np.ndarray, names: Names) -> bytes:
    """Draw ads by predicted label.

    Args:
        points: float (n, 2).
        positive: bool (n,), the predicted label.
        names: of the labels.
    """

    def draw(axes: Axes) -> None:
        _cloud(axes, points, positive)
        _legend_above(axes, _ad_handles(names))

    return _plane(draw)


def cluster_map(
    points: np.ndarray,
    positive: np.ndarray,
    cluster: np.ndarray,
    overlaps: Sequence[tuple[int, int]],
    names: Names,
) -> bytes:
    """Draw the clusters of each overlapping pair as two outlines, joined by a line.

    Args:
        points: float (n, 2).
        positive: bool (n,), the predicted label.
        cluster: int (n,), cluster within the row's own label.
        overlaps: (positive cluster, negative cluster) of each pair, best first; the number at
            a pair's line is its place. A pair of which one cluster has no row is left out.
        names: of the labels.
    """

    def draw(axes: Axes) -> None:
        _cloud(axes, points, positive, faint=True)
        sides = ((True, ORANGE, "-"), (False, BLUE, "--"))
        drawn: set[tuple[bool, int]] = set()
        for place, pair in enumerate(overlaps, start=1):
            members = [
                points[(positive == side) & (cluster == number)]
                for (side, _, _), number in zip(sides, pair, strict=True)
            ]
            if not all(len(rows) for rows in members):
                continue
            ends = np.array([rows.mean(axis=0) for rows in members])
            for (side, colour, line), number, rows in zip(sides, pair, members, strict=True):
                if (side, number) not in drawn:
                    drawn.add((side, number))
                    _outline(axes, rows, colour, line)
            axes.plot(*ends.T, color=BLACK, linewidth=1.2, zorder=5)
            axes.plot(*ends[:1].T, "^", color=ORANGE, markersize=7, mec="white", zorder=6)
            axes.plot(*ends[1:].T, "o", color=BLUE, markersize=6, mec="white", zorder=6)
            _number(axes, ends.mean(axis=0), place, len(overlaps))
        handles = [
            Line2D(
                [], [], color=ORANGE, marker="^", mec="white", label=f"{names.positive} cluster"
            ),
            Line2D(
                [],
                [],
                color=BLUE,
                marker="o",
                mec="white",
                ls="--",
                label=f"{names.negative} cluster",
            ),
            Line2D([], [], color=BLACK, linewidth=1.2, label="overlap, by rank"),
        ]
        _legend_above(axes, handles)

    return _plane(draw)


def pair_map(points: np.ndarray, pairs: np.ndarray, exploration: np.ndarray, names: Names) -> bytes:
    """Draw chosen pairs as lines between their two ads.

    Args:
        points: float (n, 2).
        pairs: int (m, 2), row of each pair's positive and negative ad.
        exploration: bool (m,), which pairs were drawn at random.
        names: of the labels.
    """

    def draw(axes: Axes) -> None:
        _cloud(axes, points, np.zeros(len(points), dtype=bool), colours=("#b9bfc8", "#b9bfc8"))
        for rows, line in ((pairs[~exploration], "-"), (pairs[exploration], ":")):
            ends = points[rows]
            axes.plot(ends[:, :, 0].T, ends[:, :, 1].T, color=BLACK, ls=line, lw=0.9, alpha=0.75)
        for column, colour, marker, size in ((1, BLUE, "o", 5.0), (0, ORANGE, "^", 6.0)):
            axes.plot(
                *points[pairs[:, column]].T,
                marker,
                color=colour,
                markersize=size,
                mec="white",
                mew=0.5,
                zorder=4,
            )
        handles = [
            *_ad_handles(names),
            Line2D([], [], color=BLACK, lw=1, label="pair"),
            Line2D([], [], color=BLACK, lw=1, ls=":", label="drawn at random"),
        ]
        if not exploration.any():
            handles.pop()
        _legend_above(axes, handles)

    return _plane(draw)


def _plane(draw: Callable[[Axes], None]) -> bytes:
    def whole(axes: Axes) -> None:
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.03)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        # The directions have no unit and no meaning of their own.
        axes.xaxis.set_major_locator(NullLocator())
        axes.yaxis.set_major_locator(NullLocator())
        draw(axes)

    return _picture(whole, height=5.4, colours=128)


def _cloud(
    axes: Axes,
    points: np.ndarray,
    positive: np.ndarray,
    faint: bool = False,
    colours: tuple[str, str] = (BLUE, ORANGE),
) -> None:
    # Many ads are drawn smaller, or they are one blot.
    size = float(np.clip(260 / math.sqrt(max(len(points), 1)), 2.0, 5.0))
    weight = 0.25 if faint else 0.55
    for rows, marker, colour, scale, alpha in (
        (~positive, "o", colours[0], 1.0, weight),
        (positive, "^", colours[1], 1.5, min(1.0, weight + 0.3)),
    ):
        axes.plot(
            *points[rows].T,
            marker,
            color=colour,
            markersize=size * scale,
            mew=0,
            alpha=alpha,
        )


def _ad_handles(names: Names) -> list[Line2D]:
    settings: dict[str, Any] = {"linestyle": "none", "mec": "white", "mew": 0.5}
    return [
        Line2D([], [], color=BLUE, marker="o", label=f"called {names.negative}", **settings),
        Line2D([], [], color=ORANGE, marker="^", label=f"called {names.positive}", **settings),
    ]


def _outline(axes: Axes, rows: np.ndarray, colour: str, line: str) -> None:
    """Draw the ellipse of a cloud's spread; a few ads get none, their markers say where they are."""
    if len(rows) < _MIN_OUTLINED:
        return
    values, directions = np.linalg.eigh(np.cov(rows.T.astype(np.float64)))
    width, height = 2 * _OUTLINE_SIGMAS * np.sqrt(np.clip(values, 0.0, None))
    angle = math.degrees(math.atan2(directions[1, 0], directions[0, 0]))
    center = (float(rows[:, 0].mean()), float(rows[:, 1].mean()))
    axes.add_patch(
        Ellipse(
            center, width, height, angle=angle, fill=False, ec=colour, ls=line, lw=1.6, zorder=4
        )
    )


def _number(axes: Axes, at: np.ndarray, place: int, places: int) -> None:
    # Each in a direction of its own, or those of clusters that lie together hide one another.
    angle = 2 * math.pi * place / max(places, 1) + 0.5
    axes.annotate(
        str(place),
        (float(at[0]), float(at[1])),
        xytext=(26 * math.cos(angle), 26 * math.sin(angle)),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=9,
        fontweight="bold",
        zorder=7,
        bbox={"boxstyle": "round,pad=0.2", "fc": "white", "ec": BLACK, "lw": 0.8},
        arrowprops={"arrowstyle": "-", "color": BLACK, "lw": 0.8},
    )


# --- numbers ----------------------------------------------------------------------------------


def score_histogram(histogram: np.ndarray, threshold: float, names: Names) -> bytes:
    """Draw how many ads have which score, with the threshold between the labels.

    Args:
        histogram: int64 (N_BINS,), exact counts on the margin grid, at least one ad; see
            :func:`calibration.margin_histogram`.
        threshold: an ad is positive when its margin is at least this, log-odds.
        names: of the labels.
    """
    edges, counts = rebinned(histogram, threshold)
    called = edges[:-1] >= threshold
    highest = [int(counts[side].max()) if side.any() else 0 for side in (called, ~called)]
    logarithmic = 0 < min(highest) < _INVISIBLE * max(highest)

    def draw(axes: Axes) -> None:
        for rows, colour, hatch, name in (
            (~called, BLUE, "", names.negative),
            (called, ORANGE, "////", names.positive),
        ):
            axes.bar(
                edges[:-1][rows],
                counts[rows],
                np.diff(edges)[rows],
                align="edge",
                color=colour,
                ec="white",
                lw=0.4,
                hatch=hatch,
                label=f"called {name}",
            )
        share = 1.0 / (1.0 + math.exp(-threshold))
        axes.axvline(threshold, color=BLACK, lw=1.6, ls="--", label=f"threshold, p = {share:.3g}")
        axes.set_xlabel("score: log-odds of the positive answer")
        axes.set_ylabel("ads (log scale)" if logarithmic else "ads")
        if logarithmic:
            axes.set_yscale("log")
            axes.set_ylim(bottom=0.5)
        axes.grid(axis="y")
        _thousands(axes)
        above = axes.secondary_xaxis("top")
        ticks = _probabilities(float(edges[0]), float(edges[-1]))
        above.set_xticks([math.log(p / (1 - p)) for p in ticks], [f"{p:g}" for p in ticks])
        above.set_xlabel("as a probability")
        axes.legend(loc="best")

    return _picture(draw, height=4.4)


def _probabilities(low: float, high: float) -> list[float]:
    """Return the probabilities to mark between two margins: the coarsest row with four, or all."""
    rows = (
        (1e-6, 1e-4, 0.01, 0.5, 0.99, 0.9999),
        (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999),
        (0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.99),
        tuple(step / 20 for step in range(1, 20)),
        tuple(step / 100 for step in range(1, 100)),
    )
    found: list[float] = []
    for row in rows:
        found = [p for p in row if low <= math.log(p / (1 - p)) <= high]
        if len(found) >= _MIN_TICKS:
            break
    return found


_MIN_TICKS = 4


def rebinned(histogram: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Gather the margin grid into wider bins, one edge of which is the threshold.

    Args:
        histogram: int64 (N_BINS,), at least one count.
        threshold: a margin on the grid.

    Returns:
        edges float64 (b + 1,) and counts int64 (b,); b is at most 82. A bin holds its lower edge,
        not its upper one.

    Raises:
        ValueError: another shape, or no counts.
    """
    counts = np.asarray(histogram)
    if counts.shape != (N_BINS,) or not counts.any():
        raise ValueError(
            f"histogram must hold {N_BINS} counts, one a point of the grid, and at least one ad; "
            f"got shape {counts.shape} with a sum of {counts.sum()}"
        )
    used = np.flatnonzero(counts)
    cut = round(threshold / MARGIN_STEP) + N_BINS // 2
    first, last = min(int(used[0]), cut), max(int(used[-1]), cut)
    width = max(1, -(-(last - first + 1) // _BINS))
    # Bins are counted from the threshold, so that no bar holds both labels.
    low = cut - width * -(-(cut - first) // width)
    high = cut + width * -(-(last + 1 - cut) // width)
    starts = np.arange(low, high + 1, width)
    padded = np.concatenate([[0], np.cumsum(counts)])
    total = padded[np.clip(starts, 0, N_BINS)]
    return (starts - N_BINS // 2) * MARGIN_STEP, np.diff(total)


def coverage_curve(shares: Sequence[float], exploration: int, budget: int) -> bytes:
    """Draw how much of the corpus the first pairs cover.

    Args:
        shares: share of the corpus weight covered by all pairs up to each, in review order, (m,).
        exploration: how many of them, the last ones, were drawn at random.
        budget: pairs that the task allows.
    """

    def draw(axes: Axes) -> None:
        covering = len(shares) - exploration
        axes.step(
            range(covering + 1),
            [0.0, *shares[:covering]],
            where="post",
            color=BLUE,
            lw=2,
            label="pairs of overlapping clusters",
        )
        if exploration:
            axes.plot(
                [covering, len(shares)],
                [shares[-1]] * 2,
                color=ORANGE,
                ls=":",
                lw=2.5,
                label="exploration: covers nothing",
            )
        if shares:
            axes.plot([covering], [shares[-1]], "o", color=BLUE, mec="white", markersize=7)
        axes.axvline(budget, color=BLACK, ls="--", lw=1.2, label=f"budget: {budget:,} pairs")
        axes.set_xlim(0, max(budget, len(shares), 1) * 1.04)
        axes.set_ylim(0, _headroom(max(shares, default=0.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: _percent(share)))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel("pairs reviewed, in review order")
        axes.set_ylabel("corpus weight covered")
        axes.grid(axis="y")
        _legend_above(axes)

    return _picture(draw, height=4.2)


def agreement_by_round(models: Sequence[Estimate], experts: Estimate) -> bytes:
    """Draw each model's agreement with the experts under theirs among themselves.

    Args:
        models: one a model, in the order of rounds; an undefined one leaves a gap.
        experts: the experts among themselves, on the same ads.
    """

    def draw(axes: Axes) -> None:
        _experts_line(axes, experts)
        known = [
            (place, model.value, model.low, model.high)
            for place, model in enumerate(models)
            if model.value is not None
        ]
        places, values = [item[0] for item in known], [item[1] for item in known]
        axes.plot(places, values, color=ORANGE, lw=1.2, alpha=0.6)
        for place, value, low, high in known:
            if low is not None and high is not None:
                axes.plot([place] * 2, [low, high], color=ORANGE, lw=2)
                axes.plot([place] * 2, [low, high], "_", color=ORANGE, markersize=10)
            axes.annotate(
                f"{value:.2f}",
                (place, value),
                xytext=(9, 0),
                textcoords="offset points",
                va="center",
                fontsize=9.5,
            )
        label = "model and experts, 95% interval"
        axes.plot(places, values, "^", color=ORANGE, mec="white", markersize=9, label=label)
        for place, model in enumerate(models):
            if model.value is None:
                axes.annotate("undefined", (place, 0), ha="center", va="bottom", fontsize=9)
        axes.set_xticks(range(len(models)), [model.name for model in models])
        axes.set_xlim(-0.5, len(models) - 0.5)
        _kappa_axis(axes, [*models, experts])
        axes.legend(loc="best")

    return _picture(draw, height=4.4)


def learning_curves(curves: Sequence[Curve], experts: Estimate) -> bytes:
    """Draw each condition's kappa against its number of labels, with the spread over seeds.

    Args:
        curves: one a condition; one with a single number of labels is a point.
        experts: the experts among themselves on the same ads.
    """
    looks = condition_looks([curve.name for curve in curves])
    labels = [number for curve in curves for number in curve.labels if number > 0]
    logarithmic = bool(labels) and max(labels) > 20 * min(labels)

    def draw(axes: Axes) -> None:
        # Blue is a condition's here.
        _experts_line(axes, experts, GREY)
        for curve in curves:
            known = [i for i, value in enumerate(curve.values) if value is not None]
            if not known:
                continue
            look = looks[curve.name]
            at = np.array([curve.labels[i] for i in known])
            values = np.array([curve.values[i] for i in known], dtype=np.float64)
            spreads = np.array([curve.spreads[i] or 0.0 for i in known])
            if len(known) > 1:
                axes.fill_between(
                    at, values - spreads, values + spreads, color=look.colour, alpha=0.15, lw=0
                )
            elif spreads.any():
                axes.errorbar(at, values, spreads, color=look.colour, capsize=4, lw=1.5)
            axes.plot(
                at,
                values,
                color=look.colour,
                marker=look.marker,
                ls=look.line,
                lw=1.8,
                markersize=7,
                mec="white",
                label=_shortened(curve.name),
            )
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
            ticks = _round_numbers(min(labels), max(labels))
            axes.set_xlim(0.75 * min(labels), 1.3 * max(labels))
            axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))
        axes.set_xlabel("training labels" + (" (log scale)" if logarithmic else ""))
        ends = [
            value + side * (spread or 0.0)
            for curve in curves
            for value, spread in zip(curve.values, curve.spreads, strict=True)
            if value is not None
            for side in (-1, 1)
        ]
        _kappa_axis(axes, [experts], ends)
        _legend_above(axes)

    return _picture(draw, height=4.6)


def side_by_side(
    conditions: Sequence[str], sets: Sequence[tuple[str, Sequence[Estimate]]]
) -> bytes:
    """Draw the conditions' kappas side by side: a row a condition, a marker a test set.

    Args:
        conditions: names of the rows, from top to bottom, (c,).
        sets: name of each set and its estimate for each condition, (c,), with mean - and + standard
            deviation as low and high.
    """
    rows = len(conditions)

    def draw(axes: Axes) -> None:
        looks = (("o", BLUE), ("^", ORANGE), ("s", GREEN), ("D", PURPLE))
        shift = 0.2
        for place, (name, estimates) in enumerate(sets):
            marker, colour = looks[place % len(looks)]
            down = (place - (len(sets) - 1) / 2) * shift
            first = True
            for row, estimate in enumerate(estimates):
                if estimate.value is None:
                    continue
                if estimate.low is not None and estimate.high is not None:
                    axes.plot([estimate.low, estimate.high], [row + down] * 2, color=colour, lw=1.8)
                axes.plot(
                    [estimate.value],
                    [row + down],
                    marker,
                    color=colour,
                    mec="white",
                    markersize=8,
                    ls="none",
                    label=name if first else None,
                )
                first = False
        axes.set_yticks(range(rows), [_shortened(name) for name in conditions])
        axes.set_ylim(rows - 0.5, -0.5)
        ends = [end for _, found in sets for estimate in found for end in _ends(estimate)]
        axes.set_xlim(min([0.0, *ends]) - 0.02, 1.02)
        axes.set_xlabel("Cohen's kappa with the experts")
        axes.grid(axis="x")
        axes.axvline(0, color=GREY, lw=1)
        _legend_above(axes)

    return _picture(draw, height=1.3 + 0.5 * max(rows, 2))


@dataclass(frozen=True, slots=True)
class Look:
    """How a condition is drawn, the same in all pictures of a report."""

    colour: str
    marker: str
    line: str


_KNOWN_LOOKS = {
    "boundary": Look(ORANGE, "^", "-"),
    "uncertainty": Look(BLUE, "o", "--"),
    "random": Look(BLACK, "s", ":"),
}
_OTHER_LOOKS = (
    Look(GREEN, "D", "-."),
    Look(PURPLE, "v", "-."),
    Look(YELLOW, "P", "-."),
    Look(SKY, "X", "-."),
)


def condition_looks(names: Sequence[str]) -> dict[str, Look]:
    """Return how each condition is drawn; beyond seven, looks repeat."""
    others = [name for name in dict.fromkeys(names) if name not in _KNOWN_LOOKS]
    return _KNOWN_LOOKS | {
        name: _OTHER_LOOKS[place % len(_OTHER_LOOKS)] for place, name in enumerate(others)
    }


# --- what they share --------------------------------------------------------------------------


def _legend_above(axes: Axes, handles: Sequence[Any] | None = None) -> None:
    found = list(handles) if handles is not None else axes.get_legend_handles_labels()[0]
    # As many columns as fit beside each other, by the longest name.
    longest = max((len(str(handle.get_label())) for handle in found), default=0)
    columns = int(WIDTH_INCHES / (0.6 + 0.085 * longest))
    axes.legend(
        handles=found,
        loc="lower center",
        ncols=max(1, min(columns, len(found))),
        bbox_to_anchor=(0.5, 1.0),
        columnspacing=1.2,
    )


def _experts_line(axes: Axes, experts: Estimate, colour: str = BLUE) -> None:
    if experts.value is None:
        return
    if experts.low is not None and experts.high is not None:
        axes.axhspan(experts.low, experts.high, color=colour, alpha=0.12, lw=0)
    label = f"{experts.name}: {experts.value:.2f}"
    axes.axhline(experts.value, color=colour, lw=1.8, ls=(0, (7, 3)), label=label)


def _kappa_axis(axes: Axes, estimates: Sequence[Estimate], ends: Sequence[float] = ()) -> None:
    low = min([0.0, *ends, *(end for estimate in estimates for end in _ends(estimate))])
    # Room below zero where something lies there; kappa 1 is always in sight.
    axes.set_ylim(low - 0.05 if low < 0 else 0.0, 1.04)
    axes.set_ylabel("Cohen's kappa")
    axes.grid(axis="y")
    if low < 0:
        axes.axhline(0, color=GREY, lw=1)


def _ends(estimate: Estimate) -> list[float]:
    found = (estimate.value, estimate.low, estimate.high)
    return [end for end in found if end is not None]


def _thousands(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))


def _percent(share: float) -> str:
    return f"{100 * share:.6g}%"


def _headroom(top: float) -> float:
    return min(1.0, 1.15 * top) if top > 0 else 1.0


def _round_numbers(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten between two numbers, fewer over a wide range."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(powers) <= 5 else (1,)
    found = [step * 10.0**power for power in powers for step in steps]
    return [number for number in found if 0.75 * low <= number <= 1.3 * high] or [low]


def _shortened(name: str) -> str:
    shown = drawable(name, "condition")
    # Matplotlib takes a leading underscore for "not in the legend".
    return f" {shown}" if shown.startswith("_") else shown


def _picture(draw: Callable[[Axes], None], height: float, colours: int = 256) -> bytes:
    with _style():
        figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        draw(figure.add_subplot())
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[:, :, :3]
    sink = io.BytesIO()
    # A palette of the picture's own colours: a third of the bytes, and no difference to see.
    image = Image.fromarray(np.ascontiguousarray(pixels))
    palette = image.quantize(colours, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    palette.save(sink, format="PNG", optimize=True)
    return sink.getvalue()


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """Draw by Matplotlib's own defaults and ours, whatever settings file it found."""
    with matplotlib.style.context(["default", _STYLE]):
        yield
