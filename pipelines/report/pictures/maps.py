"""The ads on a plane: all of them by label, closely where two clusters mix, and those that are shown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from pipelines.report.pictures import canvas
from pipelines.report.pictures.canvas import BLACK, BLUE, ORANGE, SMALLEST, WIDTH_INCHES, Names

_PALE = "#b9bfc8"
_MAP_HEIGHTS, _CLOSE_HEIGHT = (4.4, 6.4), 3.9
# What the legend and the edges take of a picture, inches.
_LEGEND, _EDGES = 0.42, 0.16
# A close look is so much of the map's width: the narrowest that holds much of both clusters.
_CLOSE_WIDTHS = (0.14, 0.18, 0.23, 0.30)
_WIDTH_COST, _HIDDEN_COST = 2.5, 0.8
# Between the lines of a name, in letters' sizes.
_LETTER_LINE = 1.22
# Pairs further apart on the map than this share of its width are not joined: lines would cross it.
_JOINED_WIDTH = 0.2
# Predicted label, marker, colour, and what makes a marker as large as the other one.
_SIDES = ((False, "o", BLUE, 1.0), (True, "^", ORANGE, 1.5))


@dataclass(frozen=True, slots=True)
class Label:
    """A name for a part of the map: lines of text, the most telling first, around a point."""

    x: float
    y: float
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Box:
    """A part of the plane."""

    left: float
    low: float
    width: float
    height: float

    def holds(self, points: np.ndarray) -> np.ndarray:
        """Return which points lie in it, bool (n,)."""
        x, y = points[..., 0] - self.left, points[..., 1] - self.low
        return np.asarray((x >= 0) & (x <= self.width) & (y >= 0) & (y <= self.height))

    def shared(self, other: Box) -> float:
        """Return the area that two boxes have in common; 0 where they do not meet."""
        across = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
        up = min(self.low + self.height, other.low + other.height) - max(self.low, other.low)
        return max(across, 0.0) * max(up, 0.0)


def whole_map(points: np.ndarray) -> Box:
    """Return the part of the plane that the maps show."""
    low, high = points.min(axis=0), points.max(axis=0)
    middle, size = (low + high) / 2, np.maximum(high - low, 1e-6) * 1.05
    tall = _drawn_height(_map_height(points))
    unit = max(size[0] / _drawn_width(), size[1] / tall)
    width, height = float(unit * _drawn_width()), float(unit * tall)
    return Box(float(middle[0]) - width / 2, float(middle[1]) - height / 2, width, height)


def _map_height(points: np.ndarray) -> float:
    """Return how tall the maps are, inches: as the cloud is, within bounds."""
    across, up = np.maximum(np.ptp(points, axis=0), 1e-6)
    wanted = _drawn_width() * up / across + _LEGEND + _EDGES
    return float(np.clip(wanted, *_MAP_HEIGHTS))


def close_box(
    points: np.ndarray,
    members: tuple[np.ndarray, np.ndarray],
    pairs: Sequence[Sequence[int]],
    taken: Sequence[Box] = (),
) -> Box:
    """Return where on the map two clusters lie among each other.

    Args:
        points: float (n, 2), n >= 1.
        members: rows of the positive and of the negative cluster, bool (n,) each.
        pairs: rows of the two ads of each pair that was chosen from them.
        taken: boxes that are drawn already: to lie on one costs as much as it hides.
    """
    frame = whole_map(points)
    sides = [points[side] for side in members]
    ends = points[np.array(pairs, dtype=np.intp).reshape(-1, 2)]
    middles = np.concatenate([*sides, ends.mean(axis=1), points.mean(axis=0, keepdims=True)])
    found: list[tuple[float, Box]] = []
    for part in _CLOSE_WIDTHS:
        width = part * frame.width
        height = width * _drawn_height(_CLOSE_HEIGHT) / _drawn_width()
        for x, y in middles.tolist():
            box = Box(x - width / 2, y - height / 2, width, height)
            held = [float(box.holds(side).mean()) if len(side) else 1.0 for side in sides]
            joined = float(box.holds(ends).all(axis=1).mean()) if len(ends) else 1.0
            # Both clusters and the pairs count; a wider look has to show clearly more.
            gain = min(held) + 0.3 * sum(held) + 0.6 * joined - _WIDTH_COST * part
            hidden = sum(box.shared(other) for other in taken) / (width * height)
            found.append((gain - _HIDDEN_COST * hidden, box))
    return max(found, key=lambda entry: entry[0])[1]


def ad_map(
    points: np.ndarray,
    positive: np.ndarray,
    names: Names,
    labels: Sequence[Label] = (),
    boxes: Sequence[Box] = (),
) -> bytes:
    """Draw ads by predicted label.

    Args:
        points: float (n, 2).
        positive: bool (n,), the predicted label.
        names: of the labels.
        labels: names of parts of the map, the most important first; one that would lie on another
            loses lines, and then itself.
        boxes: parts of the map that are shown closely, numbered from 1.
    """
    frame = whole_map(points)

    def draw(axes: Axes) -> list[Line2D]:
        _as_plane(axes, frame)
        for side, marker, colour, scale in _SIDES:
            _dots(axes, points[positive == side], marker, colour, scale * _size(points), side)
        taken: list[Box] = []
        for number, box in enumerate(boxes, start=1):
            corner = (box.left, box.low)
            edge = Rectangle(corner, box.width, box.height, fill=False, ec=BLACK, lw=1.6, zorder=5)
            axes.add_patch(edge)
            top = box.low + box.height
            corners = [(box.left + x * box.width, y) for x in (0.0, 1.0) for y in (top, box.low)]
            _place(axes, frame, (str(number),), corners, taken, number=True)
        thin = frame.width / 1000
        for box in boxes:
            # No name lies on an edge.
            for x in (box.left, box.left + box.width):
                taken.append(Box(x, box.low, thin, box.height))
            for y in (box.low, box.low + box.height):
                taken.append(Box(box.left, y, box.width, thin))
        for label in labels:
            line = _LETTER_LINE * SMALLEST / 72 * frame.width / _drawn_width()
            ways = [(label.x, label.y + step * line) for step in (0, 1, -1, 2, -2)]
            for count in range(len(label.lines), 0, -1):
                if _place(axes, frame, label.lines[:count], ways, taken):
                    break
        return _ad_handles(names)

    return canvas.picture(draw, height=_map_height(points), colours=128)


def close_map(
    points: np.ndarray,
    positive: np.ndarray,
    members: tuple[np.ndarray, np.ndarray],
    pairs: Sequence[Sequence[int]],
    box: Box,
    names: Names,
) -> bytes:
    """Draw a part of the map closely: two clusters, and the pairs that were chosen from them.

    Args:
        points: float (n, 2).
        positive: bool (n,), the predicted label.
        members: rows of the positive and of the negative cluster, bool (n,) each.
        pairs: rows of the two ads of each pair, numbered from 1; those that reach out of the box are
            left out.
        box: from :func:`close_box`.
        names: of the labels.
    """

    def draw(axes: Axes) -> list[Line2D]:
        _as_plane(axes, box)
        inside, others = box.holds(points), ~(members[0] | members[1])
        for side, marker, _, scale in _SIDES:
            rest = points[inside & others & (positive == side)]
            axes.plot(*rest.T, marker, color=_PALE, markersize=4.5 * scale, mew=0, alpha=0.8)
        for (_, marker, colour, scale), member in zip(_SIDES, reversed(members), strict=True):
            edge: dict[str, Any] = {"mec": "white", "mew": 0.6, "zorder": 4}
            shown = points[inside & member]
            axes.plot(*shown.T, marker, color=colour, markersize=6.5 * scale, **edge)
        handles = _ad_handles(names)
        drawn = [
            (number, rows)
            for number, rows in enumerate(pairs, start=1)
            if box.holds(points[list(rows)]).all()
        ]
        unit = box.width / (72 * _drawn_width())
        # No number hides an end of a pair.
        ends = points[[row for _, rows in drawn for row in rows]].reshape(-1, 2).tolist()
        taken = [Box(x - 7 * unit, y - 7 * unit, 14 * unit, 14 * unit) for x, y in ends]
        for number, rows in drawn:
            axes.plot(*points[list(rows)].T, color=BLACK, lw=2.2, zorder=4.5)
            for row in rows:
                _, marker, colour, scale = _SIDES[int(positive[row])]
                look: dict[str, Any] = {"mec": BLACK, "mew": 1.4, "zorder": 6}
                axes.plot(*points[row], marker, color=colour, markersize=8 * scale, **look)
            x, y = points[list(rows)].mean(axis=0).tolist()
            ways = [
                (x + far * unit * math.cos(turn), y + far * unit * math.sin(turn))
                for far in (16, 24, 34)
                for turn in np.linspace(math.pi / 2, 2.5 * math.pi, 8, endpoint=False)
            ]
            _place(axes, box, (str(number),), ways, taken, number=True)
        if drawn:
            handles.append(Line2D([], [], color=BLACK, lw=2, label="pair"))
        return [*handles, Line2D([], [], color=_PALE, marker="o", ls="none", label="others")]

    return canvas.picture(draw, height=_CLOSE_HEIGHT, colours=128)


def apart(points: np.ndarray, items: Sequence[Sequence[int]]) -> int:
    """Return how many pairs :func:`item_map` does not join, as their ads are far apart on the map."""
    return sum(len(rows) > 1 and not _near(points, rows) for rows in items)


def item_map(
    points: np.ndarray,
    positive: np.ndarray,
    items: Sequence[Sequence[int]],
    explored: np.ndarray,
    names: Names,
) -> bytes:
    """Draw the ads that are shown to experts; the two of a pair are joined by a line if they are near.

    Args:
        points: float (n, 2).
        positive: bool (n,), the predicted label.
        items: rows of each item's one or two ads, (m,).
        explored: bool (m,), which items were drawn at random.
        names: of the labels.
    """
    frame = whole_map(points)

    def draw(axes: Axes) -> list[Line2D]:
        _as_plane(axes, frame)
        _dots(axes, points, "o", _PALE, _size(points), False)
        handles = _ad_handles(names)
        for drawn, line, label in ((False, "-", "pair"), (True, ":", "drawn at random")):
            pairs = [
                rows
                for rows, found in zip(items, explored, strict=True)
                if len(rows) > 1 and found == drawn and _near(points, rows)
            ]
            ends = points[np.array(pairs, dtype=np.intp).reshape(-1, 2)]
            axes.plot(ends[:, :, 0].T, ends[:, :, 1].T, color=BLACK, ls=line, lw=0.9, alpha=0.75)
            if pairs:
                handles.append(Line2D([], [], color=BLACK, lw=1, ls=line, label=label))
        shown = np.array([row for rows in items for row in rows], dtype=np.intp)
        for side, marker, colour, _ in _SIDES:
            marked = points[shown[positive[shown] == side]]
            edge: dict[str, Any] = {"ms": 6.0 if side else 5.0, "mec": "white", "mew": 0.5}
            axes.plot(*marked.T, marker, color=colour, zorder=4, **edge)
        return handles

    return canvas.picture(draw, height=_map_height(points), colours=128)


def _near(points: np.ndarray, rows: Sequence[int]) -> bool:
    first, second = points[list(rows)]
    return float(np.hypot(*(first - second))) <= _JOINED_WIDTH * whole_map(points).width


def _drawn_width() -> float:
    return WIDTH_INCHES - _EDGES


def _drawn_height(height: float) -> float:
    return height - _LEGEND - _EDGES


def _place(
    axes: Axes,
    frame: Box,
    lines: Sequence[str],
    places: Iterable[tuple[float, float]],
    taken: list[Box],
    number: bool = False,
) -> bool:
    """Write lines at the first of some places where they lie on nothing written; return whether."""
    unit = frame.width / (72 * _drawn_width())
    room = 10.0 if number else 5.0
    width = (max(canvas.text_width(line) for line in lines) + room) * unit
    height = (_LETTER_LINE * SMALLEST * len(lines) + (5.0 if number else 2.0)) * unit
    for x, y in places:
        # Moved inside: what is written must not be cut off.
        x = min(max(x, frame.left + width / 2), frame.left + frame.width - width / 2)
        y = min(max(y, frame.low + height / 2), frame.low + frame.height - height / 2)
        box = Box(x - width / 2, y - height / 2, width, height)
        if not any(box.shared(other) for other in taken):
            taken.append(box)
            look: dict[str, Any] = {"path_effects": [withStroke(linewidth=3.5, foreground="white")]}
            if number:
                plate = {"boxstyle": "circle,pad=0.15", "fc": "white", "ec": BLACK, "lw": 1.2}
                look = {"bbox": plate, "fontweight": "bold"}
            where: dict[str, Any] = {"ha": "center", "va": "center", "linespacing": 1.0}
            axes.text(x, y, "\n".join(lines), fontsize=SMALLEST, zorder=7, **where, **look)
            return True
    return False


def _as_plane(axes: Axes, frame: Box) -> None:
    axes.set_aspect("equal", adjustable="box")
    # The shape of the frame is that of the picture, up to rounding.
    axes.set_xlim(frame.left, frame.left + frame.width)
    axes.set_ylim(frame.low, frame.low + frame.height)
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
    alpha = 0.85 if strong else 0.45
    axes.plot(*points.T, marker, color=colour, markersize=size, mew=0, alpha=alpha)


def _ad_handles(names: Names) -> list[Line2D]:
    settings: dict[str, Any] = {"ls": "none", "mec": "white", "mew": 0.5}
    return [
        Line2D([], [], color=BLUE, marker="o", label=f"called {names.negative}", **settings),
        Line2D([], [], color=ORANGE, marker="^", label=f"called {names.positive}", **settings),
    ]
