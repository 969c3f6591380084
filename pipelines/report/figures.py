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
import itertools
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
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from PIL import Image

from pipelines.numerics.calibration import MARGIN_STEP, N_BINS

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
BLACK, GREY, SKY, YELLOW = "#000000", "#6b7480", "#56B4E9", "#E69F00"
# Large letters for the width: a telephone of 360 pixels shows an inch on 52, and 12 points on nearly 9.
WIDTH_INCHES, DPI = 6.4, 160
_LETTERS, _SMALLEST = 12.5, 12.0
# Fewer ads than this are no cloud to draw an outline around.
_MIN_OUTLINED = 3
# An outline of so many standard deviations holds about two thirds of a round cloud.
_OUTLINE_SIGMAS = 1.5
_BINS = 80
# Bars this much lower than the highest could not be seen beside it.
_INVISIBLE = 1 / 50
_NAME_CHARS = 28
# A legend's parts, in letters' sizes.
_HANDLE, _HANDLE_GAP, _COLUMN_GAP = 2.2, 0.6, 1.2
# Marks of so much of the axis' width beside each other do not touch.
_MARK_STEP = 0.026

_STYLE = {
    "figure.dpi": DPI,
    "font.size": _LETTERS,
    "axes.labelsize": _LETTERS,
    "xtick.labelsize": _SMALLEST,
    "ytick.labelsize": _SMALLEST,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.axisbelow": True,
    "grid.color": "#d5d9df",
    "legend.edgecolor": "white",
    "legend.framealpha": 0.9,
    "legend.fontsize": _SMALLEST,
    "legend.handlelength": _HANDLE,
    "legend.handletextpad": _HANDLE_GAP,
    "legend.columnspacing": _COLUMN_GAP,
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
        joined: dict[int, np.ndarray] = {}
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
            axes.plot(*ends.T, color=BLACK, lw=1.8, zorder=5, path_effects=_cased(3.2))
            axes.plot(*ends[:1].T, "^", color=ORANGE, markersize=9, mec="white", zorder=8)
            axes.plot(*ends[1:].T, "o", color=BLUE, markersize=8, mec="white", zorder=8)
            joined[place] = ends
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
            Line2D([], [], color=BLACK, lw=1.8, label="overlap, by rank"),
        ]
        _legend_above(axes, handles)
        _number(axes, joined)

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


def _number(axes: Axes, joined: dict[int, np.ndarray]) -> None:
    """Write the number of each line beside it; when everything else is drawn."""
    if not joined:
        return
    figure = axes.get_figure(root=True)
    assert figure is not None
    # Where points will lie in the picture is known once it is laid out.
    figure.draw_without_rendering()
    scale = 72.0 / figure.dpi
    ends = np.array([axes.transData.transform(line) for line in joined.values()]) * scale
    bounds = axes.get_window_extent().get_points() * scale
    places = number_places(ends, bounds)
    back = axes.transData.inverted()
    for number, (anchor, box) in zip(joined, places, strict=True):
        axes.annotate(
            str(number),
            back.transform(anchor / scale).tolist(),
            xytext=(box - anchor).tolist(),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=_SMALLEST,
            fontweight="bold",
            zorder=7,
            bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": GREY, "lw": 0.8},
            arrowprops={
                "arrowstyle": "-",
                "color": GREY,
                "lw": 0.9,
                "shrinkB": 0,
                "path_effects": _cased(2.2),
            },
        ).set_in_layout(False)


# Half the width and height of a number's box, in points; the farthest that one is put from its line.
_HALF_BOX = np.array([9.0, 10.0])
_DISTANCES = (18.0, 24.0, 30.0, 38.0, 48.0, 60.0, 75.0)
_DIRECTIONS = 24
# How bad it is that a box covers a mark or another box, covers a line, or that its leader meets one.
_COVERS, _COVERS_LINE, _MEETS_MARK, _MEETS_LINE = 20.0, 6.0, 4.0, 2.0


def number_places(ends: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Find places for the numbers of lines, clear of the lines, their ends and one another.

    Of many places around a line, near ones first, each number in turn takes the one that collides
    least; nothing is drawn by chance.

    Args:
        ends: float (n, 2, 2), both ends of each line, in points.
        bounds: float (2, 2), lower left and upper right corner of what is drawn on.

    Returns:
        float (n, 2, 2): where the number's leader touches its line, and the middle of its box.
    """
    marks = ends.reshape(-1, 2)
    lines = _along(ends[:, 0], ends[:, 1])
    boxes, leaders = np.zeros((0, 2)), np.zeros((0, _STEPS, 2))
    found = []
    for place in range(len(ends)):
        others = np.delete(lines, place, axis=0).reshape(-1, 2)
        anchor = _freest(ends[place], others)
        tried = _around(anchor)
        cost = np.zeros(len(tried))
        reach = _along(np.broadcast_to(anchor, tried.shape), tried)
        cost += _COVERS * _covered(tried, marks, 6.0).sum(axis=1)
        cost += _COVERS * _covered(tried, boxes, _HALF_BOX + 2.0).sum(axis=1)
        inside = (tried - _HALF_BOX >= bounds[0]) & (tried + _HALF_BOX <= bounds[1])
        cost += _COVERS * ~inside.all(axis=1)
        for line in lines:
            cost += _COVERS_LINE * _covered(tried, line, 2.0).any(axis=1)
        for leader in leaders:
            cost += _COVERS_LINE * _covered(tried, leader, 2.0).any(axis=1)
            cost += _MEETS_LINE * _near(reach, leader, 2.0).any(axis=(1, 2))
        for box in boxes:
            # A leader that ran under a box would seem to be the other one's.
            cost += _COVERS_LINE * np.all(np.abs(reach - box) < _HALF_BOX, axis=2).any(axis=1)
        cost += _MEETS_MARK * _near(reach, marks, 6.0).any(axis=1).sum(axis=1)
        cost += _MEETS_LINE * (_near(reach, others, 2.0).any(axis=2).mean(axis=1) > 0.15)
        cost += np.linalg.norm(tried - anchor, axis=1) / 100.0
        best = int(np.argmin(cost))
        found.append((anchor, tried[best]))
        boxes = np.concatenate([boxes, tried[best : best + 1]])
        leaders = np.concatenate([leaders, reach[best : best + 1]])
    return np.array(found).reshape(-1, 2, 2)


_STEPS = 25


def _along(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return points on the way between two, (n, 2) each, as (n, _STEPS, 2)."""
    share = np.linspace(0.0, 1.0, _STEPS)[:, None]
    return one[:, None] * (1.0 - share) + other[:, None] * share


def _around(anchor: np.ndarray) -> np.ndarray:
    """Return the places to try around a point, near ones first, (m, 2)."""
    angles = np.arange(_DIRECTIONS) * (2.0 * math.pi / _DIRECTIONS) + math.pi / 4
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.concatenate([anchor + distance * circle for distance in _DISTANCES])


def _freest(ends: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the point of a line's middle half that is farthest from other lines' points."""
    shares = np.array([0.5, 0.35, 0.65, 0.25, 0.75])[:, None]
    tried = ends[0] * (1.0 - shares) + ends[1] * shares
    if not len(others):
        return tried[0]
    apart = np.linalg.norm(tried[:, None] - others, axis=2).min(axis=1)
    # So far is far enough: then the middle is best. Rounded, or the last bits would decide.
    return tried[int(np.argmax(np.minimum(np.round(apart), 8.0)))]


def _covered(boxes: np.ndarray, points: np.ndarray, room: float | np.ndarray) -> np.ndarray:
    """Tell which points lie in which boxes and the room around them, bool (boxes, points)."""
    return (np.abs(boxes[:, None] - points) < _HALF_BOX + room).all(axis=2)


def _near(ways: np.ndarray, points: np.ndarray, room: float) -> np.ndarray:
    """Tell which points of ways (w, _STEPS, 2) lie near which points, (w, _STEPS, points)."""
    return np.linalg.norm(ways[:, :, None] - points, axis=3) < room


def _cased(width: float) -> list[AbstractPathEffect]:
    """Give a line or a text a white edge, so that it is seen on whatever lies under it."""
    return [withStroke(linewidth=width, foreground="white")]


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
        _legend_above(axes)

    return _picture(draw, height=4.9)


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

    return _picture(draw, height=4.5)


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
        many = len(models) > _NAMES_ABREAST
        below: list[float] = []
        for (place, value, low, high), following in itertools.zip_longest(known, values[1:]):
            if low is not None and high is not None:
                axes.plot([place] * 2, [low, high], color=ORANGE, lw=2)
                axes.plot([place] * 2, [low, high], "_", color=ORANGE, markersize=10)
            if len(models) > _NUMBERS_ABREAST:
                continue
            # On the side of the line to the next model where that line is not; many stand above.
            rises = not many and following is not None and following > value
            if rises:
                # Room for the number, or it would lie on the names under the axis.
                below.append(value - 0.05)
            axes.annotate(
                f"{value:z.2f}",
                (place, high if many and high is not None else value),
                xytext=(0, 11) if many else (9, -11 if rises else 11),
                textcoords="offset points",
                ha="center" if many else "left",
                va="center",
                fontsize=_SMALLEST,
                zorder=5,
                path_effects=_cased(3.5),
            )
        label = "model and experts, 95% interval"
        axes.plot(places, values, "^", color=ORANGE, mec="white", markersize=9, label=label)
        for place, model in enumerate(models):
            if model.value is None:
                axes.annotate("undefined", (place, 0), ha="center", va="bottom", fontsize=_SMALLEST)
        names = [model.name for model in models]
        axes.set_xticks(range(len(models)), names)
        if many:
            axes.tick_params(axis="x", rotation=45)
        axes.set_xlim(-0.5, len(models) - 0.5)
        _kappa_axis(axes, [*models, experts], below)
        _legend_above(axes)

    return _picture(draw, height=4.9)


# More models' names than this have no room beside each other, nor more numbers than that.
_NAMES_ABREAST, _NUMBERS_ABREAST = 7, 12


def stand_aside(curves: Sequence[Curve]) -> list[tuple[float, ...]]:
    """Return where the marks of each curve stand on the axis, in labels.

    A curve of several numbers of labels stands at them. Curves of a single number that others share
    would hide one another: these stand side by side, in their order, around it.

    Args:
        curves: as for :func:`learning_curves`.

    Returns:
        For each curve as many places as it has numbers.
    """
    there, back = _scale(curves)
    places = [curve.labels for curve in curves]
    low, high = _reach(curves)
    step = _MARK_STEP * (high - low)
    shown = [
        place
        for place, curve in enumerate(curves)
        if any(value is not None for value in curve.values) and max(curve.labels) > 0
    ]
    single = [place for place in shown if len(curves[place].labels) == 1]
    rest = sorted(single, key=lambda place: (curves[place].labels[0], place))
    fixed = [there(x) for p in shown if p not in single for x in curves[p].labels if x > 0]
    while rest:
        first = there(curves[rest[0]].labels[0])
        # Numbers that nearly are the same hide their marks as well.
        group = [place for place in rest if there(curves[place].labels[0]) - first < step]
        rest = [place for place in rest if place not in group]
        middle = sum(there(curves[place].labels[0]) for place in group) / len(group)
        kept_free = any(abs(at - middle) < step for at in fixed)
        if len(group) == 1 and not kept_free:
            continue
        slots = np.arange(len(group)) - (len(group) - 1) / 2
        if kept_free:
            # The middle is the curve's whose mark cannot stand aside.
            slots = np.array([slot for slot in range(-len(group), len(group) + 1) if slot])
            slots = np.sort(slots[np.argsort(np.abs(slots), kind="stable")][: len(group)])
        for place, slot in zip(sorted(group), slots.tolist(), strict=True):
            places[place] = (back(middle + slot * step),)
    return places


def _logarithmic(curves: Sequence[Curve]) -> bool:
    labels = [number for curve in curves for number in curve.labels if number > 0]
    return bool(labels) and max(labels) > 20 * min(labels)


def _scale(curves: Sequence[Curve]) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """Return what turns labels into the axis' own lengths, and back."""
    if _logarithmic(curves):
        return math.log10, lambda length: 10.0**length
    return float, float


def _reach(curves: Sequence[Curve]) -> tuple[float, float]:
    """Return the ends of the axis before any mark stands aside, in its own lengths."""
    there, _ = _scale(curves)
    labels = [number for curve in curves for number in curve.labels if number > 0] or [1.0]
    low, high = there(min(labels)), there(max(labels))
    if _logarithmic(curves):
        return low + math.log10(0.75), high + math.log10(1.3)
    # A single number: room on both sides, or marks that stand aside would seem far apart.
    room = 0.06 * (high - low) or 0.5 * high
    return low - room, high + room


def learning_curves(curves: Sequence[Curve], experts: Estimate) -> bytes:
    """Draw each condition's kappa against its number of labels, with the spread over seeds.

    Args:
        curves: one a condition; one with a single number of labels is a point.
        experts: the experts among themselves on the same ads.
    """
    looks = condition_looks([curve.name for curve in curves])
    places = stand_aside(curves)
    logarithmic = _logarithmic(curves)
    there, back = _scale(curves)
    low, high = _reach(curves)

    def draw(axes: Axes) -> None:
        # Blue is a condition's here.
        _experts_line(axes, experts, GREY)
        for curve, stands in zip(curves, places, strict=True):
            known = [i for i, value in enumerate(curve.values) if value is not None]
            if not known:
                continue
            look = looks[curve.name]
            at = np.array([stands[i] for i in known])
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
                ls=look.line if len(curve.labels) > 1 else "none",
                lw=1.8,
                markersize=8,
                mec="white",
                label=_shortened(curve.name),
            )
        marks = [there(x) for stands in places for x in stands if x > 0]
        room = 2 * _MARK_STEP * (high - low)
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(
            back(min([low, *(x - room for x in marks)])),
            back(max([high, *(x + room for x in marks)])),
        )
        if logarithmic:
            axes.xaxis.set_major_locator(FixedLocator(_round_numbers(back(low), back(high))))
        else:
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
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

    return _picture(draw, height=5.2)


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

    return _picture(draw, height=1.5 + 0.55 * max(rows, 2))


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
    figure = axes.get_figure(root=True)
    assert figure is not None
    if found:
        columns = _columns([str(handle.get_label()) for handle in found])
        figure.legend(handles=found, loc="outside upper center", ncols=columns)


def _columns(labels: Sequence[str]) -> int:
    """Return as many columns of a legend as fit beside each other."""
    font = FontProperties(family="DejaVu Sans", size=_SMALLEST)
    widths = [text_to_path.get_text_width_height_descent(text, font, False)[0] for text in labels]
    room = 72 * WIDTH_INCHES - 2 * _SMALLEST
    for columns in range(len(labels), 1, -1):
        # As Matplotlib deals them out.
        longest = [float(part.max()) for part in np.array_split(np.array(widths), columns)]
        gaps = columns * (_HANDLE + _HANDLE_GAP) + (columns - 1) * _COLUMN_GAP
        if sum(longest) + gaps * _SMALLEST <= room:
            return columns
    return 1


def _experts_line(axes: Axes, experts: Estimate, colour: str = BLUE) -> None:
    if experts.value is None:
        return
    label = f"{experts.name}: {experts.value:z.2f}"
    axes.axhline(experts.value, color=colour, lw=1.8, ls=(0, (7, 3)), label=label)
    if experts.low is not None and experts.high is not None:
        band = "their 95% interval"
        axes.axhspan(experts.low, experts.high, color=colour, alpha=0.15, lw=0, label=band)


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
    """Return round numbers between two, a few to each power of ten; fewer over a wide range."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for steps in ((1, 2, 5), (1, 3), (1,)):
        numbers = [step * 10.0**power for power in powers for step in steps]
        found = [number for number in numbers if low <= number <= high]
        if len(found) <= _MAX_TICKS:
            break
    return found or [low]


_MAX_TICKS = 8


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
