"""The conditions of a simulation: kappa against labels, and side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Affine2D

from pipelines.report.pictures import canvas
from pipelines.report.pictures.canvas import BLACK, BLUE, GREEN, GREY, ORANGE, Estimate

# Marks so far from each other do not touch, in points; and the room of one on the axis, of its length.
_MARK_POINTS, _MARK_ROOM = 10.0, 0.03


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

    @property
    def is_drawn(self) -> bool:
        """Whether there is anything to draw."""
        return any(value is not None for value in self.values)


# Colour, marker and line of a condition, the same in all pictures of a report.
Look = tuple[str, str, str]
_KNOWN_LOOKS: dict[str, Look] = {
    "boundary": (ORANGE, "^", "-"),
    "uncertainty": (BLUE, "o", "--"),
    "random": (BLACK, "s", ":"),
}
_OTHER_LOOKS = (
    (GREEN, "D", "-."),
    (canvas.PURPLE, "v", "-."),
    (canvas.YELLOW, "P", "-."),
    (canvas.SKY, "X", "-."),
)


def condition_looks(names: Sequence[str]) -> dict[str, Look]:
    """Return how each condition is drawn; beyond seven, looks repeat."""
    others = [name for name in dict.fromkeys(names) if name not in _KNOWN_LOOKS]
    return _KNOWN_LOOKS | {
        name: _OTHER_LOOKS[place % len(_OTHER_LOOKS)] for place, name in enumerate(others)
    }


def stand_aside(curves: Sequence[Curve]) -> list[float]:
    """Return how far each curve is drawn beside its numbers of labels, in marks' widths.

    A curve of several numbers of labels stands at them. Curves of a single number that others share,
    or nearly share, would hide one another: these stand side by side, in their order, around it.

    Args:
        curves: as for :func:`learning_curves`.

    Returns:
        For each curve a number, 0 for most.
    """
    aside = [0.0] * len(curves)
    singles: dict[str, list[int]] = {}
    fixed: set[str] = set()
    for place, curve in enumerate(curves):
        if curve.is_drawn and len(curve.labels) == 1:
            singles.setdefault(_roughly(curve.labels[0]), []).append(place)
        elif curve.is_drawn:
            fixed.update(map(_roughly, curve.labels))
    for number, group in singles.items():
        middle = len(group) // 2 if number in fixed else (len(group) - 1) / 2
        for slot, place in enumerate(group):
            aside[place] = slot - middle
            if number in fixed and slot >= middle:
                # The middle is the curve's whose mark cannot stand aside.
                aside[place] += 1
    return aside


def _roughly(labels: float) -> str:
    # Numbers that nearly are the same hide their marks as well.
    return f"{labels:.1e}"


def learning_curves(curves: Sequence[Curve], experts: Estimate) -> bytes:
    """Draw each condition's kappa against its number of labels, with the spread over seeds.

    Args:
        curves: one a condition; one with a single number of labels is a point.
        experts: the experts among themselves on the same ads.
    """
    looks = condition_looks([curve.name for curve in curves])
    aside = stand_aside(curves)
    labels = [number for curve in curves for number in curve.labels if number > 0] or [1.0]
    low, high = min(labels), max(labels)
    logarithmic = high > 20 * low

    def draw(axes: Axes) -> None:
        # Blue is a condition's here.
        canvas.experts_line(axes, experts, GREY)
        ends = experts.ends
        for curve, slot in zip(curves, aside, strict=True):
            if not curve.is_drawn:
                continue
            known = [i for i, value in enumerate(curve.values) if value is not None]
            colour, marker, line = looks[curve.name]
            at = np.array([curve.labels[i] for i in known])
            values = np.array([curve.values[i] for i in known], dtype=np.float64)
            spreads = np.array([curve.spreads[i] or 0.0 for i in known])
            ends += [*(values - spreads).tolist(), *(values + spreads).tolist()]
            moved = axes.transData + Affine2D().translate(slot * _MARK_POINTS * canvas.DPI / 72, 0)
            if len(known) > 1:
                band = (values - spreads, values + spreads)
                axes.fill_between(at, *band, color=colour, alpha=0.15, lw=0)
            elif spreads.any():
                style: dict[str, Any] = {"color": colour, "capsize": 4, "lw": 1.5}
                axes.errorbar(at, values, spreads, **style, transform=moved)
            look = {"ls": line if len(curve.labels) > 1 else "none", "lw": 1.8, "transform": moved}
            name = canvas.condition_name(curve.name)
            canvas.marks(axes, at, values, marker, colour, label=name, **look)
        room = _MARK_ROOM * (2 + max(map(abs, aside), default=0.0))
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=9))
            factor = (high / low) ** room
            axes.set_xlim(low / factor, high * factor)
        else:
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
            # A single number: room on both sides, or marks that stand aside would seem far apart.
            apart = room * (high - low) or 0.5 * high
            axes.set_xlim(low - apart, high + apart)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))
        axes.set_xlabel("training labels" + (" (log scale)" if logarithmic else ""))
        canvas.kappa_axis(axes, ends)

    return canvas.picture(draw, height=5.2)


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
        looks = (("o", BLUE), ("^", ORANGE), ("s", GREEN), ("D", canvas.PURPLE))
        ends = [0.0]
        for place, (name, estimates) in enumerate(sets):
            marker, colour = looks[place % len(looks)]
            down = 0.2 * (place - (len(sets) - 1) / 2)
            known = [row for row, one in enumerate(estimates) if one.value is not None]
            for row in known:
                own = estimates[row].ends
                axes.plot([min(own), max(own)], [row + down] * 2, color=colour, lw=1.8)
                ends += own
            if known:
                values = np.array([estimates[row].value for row in known], dtype=np.float64)
                canvas.marks(axes, values, np.array(known) + down, marker, colour, label=name)
        axes.set_yticks(range(rows), [canvas.condition_name(name) for name in conditions])
        axes.set_ylim(rows - 0.5, -0.5)
        axes.set_xlim(min(ends) - 0.02, 1.02)
        axes.set_xlabel("Cohen's kappa with the experts")
        axes.grid(axis="x")
        axes.axvline(0, color=GREY, lw=1)

    return canvas.picture(draw, height=1.5 + 0.55 * max(rows, 2))
