"""The ads on a plane: all of them by label, the clusters that overlap, and the ads that are shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.transforms import Affine2D

from pipelines.report.pictures import canvas
from pipelines.report.pictures.canvas import BLACK, BLUE, ORANGE, Names

_PALE = "#b9bfc8"
# Fewer ads than this are no cloud to draw an outline around.
_MIN_OUTLINED = 3
# An outline of so many standard deviations holds about two thirds of a round cloud.
_OUTLINE_SIGMAS = 1.5
_PANELS_ABREAST = 2
# Predicted label, marker, colour, line, and what makes a marker as large as the other one.
_SIDES = ((False, "o", BLUE, "--", 1.0), (True, "^", ORANGE, "-", 1.5))


def ad_map(points: np.ndarray, positive: np.ndarray, names: Names) -> bytes:
    """Draw ads by predicted label.

    Args:
        points: float (n, 2).
        positive: bool (n,), the predicted label.
        names: of the labels.
    """

    def draw(axes: Axes) -> list[Line2D]:
        _as_plane(axes)
        for side, marker, colour, _, scale in _SIDES:
            _dots(axes, points[positive == side], marker, colour, scale * _size(points), side)
        return _ad_handles(names)

    return canvas.picture(draw, height=5.4, colours=128)


def cluster_map(
    points: np.ndarray,
    positive: np.ndarray,
    cluster: np.ndarray,
    overlaps: Sequence[tuple[int, int]],
    names: Names,
) -> bytes:
    """Draw each pair of overlapping clusters on a map of its own, outlined among the other ads.

    Args:
        points: float (n, 2).
        positive: bool (n,), the predicted label.
        cluster: int (n,), cluster within the row's own label.
        overlaps: (positive cluster, negative cluster) of each pair, best first; a map's number is its
            place. A cluster without a row leaves its map without an outline.
        names: of the labels.
    """
    columns = min(_PANELS_ABREAST, max(1, len(overlaps)))
    rows = max(1, -(-len(overlaps) // columns))

    def draw(*panels: Axes) -> list[Line2D]:
        for axes in panels[len(overlaps) :]:
            axes.set_axis_off()
        for place, (axes, pair) in enumerate(zip(panels, overlaps, strict=False), start=1):
            _as_plane(axes)
            axes.set_title(str(place), fontweight="bold")
            size = 0.7 * _size(points)
            _dots(axes, points, "o", _PALE, size, False)
            for (side, marker, colour, line, scale), number in zip(
                _SIDES, reversed(pair), strict=True
            ):
                members = points[(positive == side) & (cluster == number)]
                _dots(axes, members, marker, colour, 1.5 * scale * size, True)
                _outline(axes, members, colour, line)
        handles = [
            Line2D(
                [], [], color=colour, marker=marker, mec="white", ls=line, label=f"{name} cluster"
            )
            for (_, marker, colour, line, _), name in zip(
                _SIDES, (names.negative, names.positive), strict=True
            )
        ]
        return [*reversed(handles), _grey_handle("other ads")]

    height = 0.9 + (2.5 if columns > 1 else 4.5) * rows
    return canvas.picture(draw, height, colours=128, shape=(rows, columns))


def item_map(
    points: np.ndarray,
    positive: np.ndarray,
    items: Sequence[Sequence[int]],
    explored: np.ndarray,
    names: Names,
) -> bytes:
    """Draw the ads that are shown to experts; the two of a pair are joined by a line.

    Args:
        points: float (n, 2).
        positive: bool (n,), the predicted label.
        items: rows of each item's one or two ads, (m,).
        explored: bool (m,), which items were drawn at random.
        names: of the labels.
    """

    def draw(axes: Axes) -> list[Line2D]:
        _as_plane(axes)
        _dots(axes, points, "o", _PALE, _size(points), False)
        handles = _ad_handles(names)
        for drawn, line, label in ((False, "-", "pair"), (True, ":", "drawn at random")):
            pairs = [
                rows
                for rows, found in zip(items, explored, strict=True)
                if len(rows) > 1 and found == drawn
            ]
            ends = points[np.array(pairs, dtype=np.intp).reshape(-1, 2)]
            axes.plot(ends[:, :, 0].T, ends[:, :, 1].T, color=BLACK, ls=line, lw=0.9, alpha=0.75)
            if pairs:
                handles.append(Line2D([], [], color=BLACK, lw=1, ls=line, label=label))
        shown = np.array([row for rows in items for row in rows], dtype=np.intp)
        for side, marker, colour, _, _ in _SIDES:
            marked = points[shown[positive[shown] == side]]
            edge: dict[str, Any] = {"ms": 6.0 if side else 5.0, "mec": "white", "mew": 0.5}
            axes.plot(*marked.T, marker, color=colour, zorder=4, **edge)
        return handles

    return canvas.picture(draw, height=5.4, colours=128)


def _as_plane(axes: Axes) -> None:
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.03)
    axes.spines[:].set_visible(False)
    # The directions have no unit and no meaning of their own.
    axes.set_xticks([])
    axes.set_yticks([])


def _size(points: np.ndarray) -> float:
    # Many ads are drawn smaller, or they are one blot.
    return float(np.clip(260 / math.sqrt(max(len(points), 1)), 2.0, 5.0))


def _dots(
    axes: Axes, points: np.ndarray, marker: str, colour: str, size: float, strong: bool
) -> None:
    alpha = 0.85 if strong else 0.55
    axes.plot(*points.T, marker, color=colour, markersize=size, mew=0, alpha=alpha)


def _ad_handles(names: Names) -> list[Line2D]:
    settings: dict[str, Any] = {"ls": "none", "mec": "white", "mew": 0.5}
    return [
        Line2D([], [], color=BLUE, marker="o", label=f"called {names.negative}", **settings),
        Line2D([], [], color=ORANGE, marker="^", label=f"called {names.positive}", **settings),
    ]


def _grey_handle(label: str) -> Line2D:
    return Line2D([], [], color=_PALE, marker="o", ls="none", label=label)


def _outline(axes: Axes, rows: np.ndarray, colour: str, line: str) -> None:
    """Draw the ellipse of a cloud's spread; a few ads get none, their markers say where they are."""
    if len(rows) < _MIN_OUTLINED:
        return
    # What a circle has to be stretched by to be as wide as the cloud in every direction.
    values, directions = np.linalg.eigh(np.cov(rows.T.astype(np.float64)))
    stretch = np.eye(3)
    stretch[:2, :2] = directions * np.sqrt(np.clip(values, 0.0, None))
    stretch[:2, 2] = rows.mean(axis=0)
    place = Affine2D(stretch) + axes.transData
    style: dict[str, Any] = {"fill": False, "ec": colour, "ls": line, "lw": 1.6, "zorder": 4}
    axes.add_artist(Circle((0, 0), _OUTLINE_SIGMAS, transform=place, **style))
