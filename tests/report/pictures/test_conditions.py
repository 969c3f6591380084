"""The conditions of a simulation: told apart, and none hides another."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.report.pictures import canvas, conditions
from pipelines.report.pictures.conditions import Curve
from tests.report.pictures.samples import (
    EXPERTS,
    laid_out,
)


def test_conditions_differ_in_more_than_colour() -> None:
    names = ["boundary", "random", "uncertainty", "crowd a", "crowd b", "crowd c", "crowd d"]
    looks = conditions.condition_looks(names)
    assert len({looks[name][1] for name in names}) == len(names)
    assert len({looks[name][0] for name in names}) == len(names)
    assert looks["boundary"] == conditions.condition_looks(["boundary"])["boundary"]
    assert conditions.condition_looks([*names, "an eighth"])["an eighth"]


def single(labels: float, value: float | None = 0.5) -> Curve:
    return Curve("crowd", (labels,), (value,), (None,))


def test_conditions_of_one_number_stand_side_by_side_around_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = Curve("boundary", (25, 50), (0.3, 0.6), (None, None))
    curves = [line, *(single(labels) for labels in (14_000, 14_010, 13_990, 14_000))]
    aside = conditions.stand_aside(curves)
    assert aside[0] == 0 and sum(aside) == 0, "around the number"
    assert np.diff(aside[1:]).tolist() == [1, 1, 1], "in their order"
    # As far apart as a mark is wide, whatever the picture's other numbers are.
    _, axes = laid_out(monkeypatch, lambda: conditions.learning_curves(curves, EXPERTS))
    marks = [found for found in axes.lines if found.get_label() == "crowd"]
    drawn = [mark.get_transform().transform((mark.get_xdata()[0], 0.5))[0] for mark in marks]
    assert min(np.diff(drawn)) * 72 / canvas.DPI >= 8
    left, right = axes.get_window_extent().intervalx
    assert left + 10 < drawn[0] and drawn[-1] < right - 10, "and none on the edge"
    number = axes.transData.transform((14_000, 0.5))[0]
    assert np.mean(drawn) == pytest.approx(number, abs=2)


@pytest.mark.parametrize("labels", [7, 14_000])
def test_marks_that_stand_aside_move_their_bars_along(
    labels: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    curves = [Curve("a", (labels,), (0.5,), (0.1,)), Curve("b", (labels,), (0.5,), (0.1,))]
    _, axes = laid_out(monkeypatch, lambda: conditions.learning_curves(curves, EXPERTS))
    bars = [
        bar.get_transform().transform(bar.get_segments()[0])[0, 0]
        for bar in axes.collections
        if hasattr(bar, "get_segments")
    ]
    marks = [
        mark.get_transform().transform((labels, 0.5))[0]
        for mark in axes.lines
        if mark.get_label() in ("a", "b")
    ]
    assert bars == pytest.approx(marks) and marks[0] < marks[1]


def test_a_mark_does_not_stand_on_a_curve_that_cannot_stand_aside() -> None:
    line = Curve("boundary", (50, 100), (0.3, 0.6), (None, None))
    assert conditions.stand_aside([line, single(100)]) == [0, 1]
    assert conditions.stand_aside([line, single(100), single(100)]) == [0, -1, 1]
    assert conditions.stand_aside([line, *[single(100)] * 3]) == [0, -1, 1, 2]


def test_what_hides_nothing_stays_where_it_is() -> None:
    line = Curve("boundary", (25, 50), (0.3, 0.6), (None, None))
    curves = [line, single(100), single(200), single(200, None), single(0)]
    assert conditions.stand_aside(curves) == [0] * 5
    assert conditions.stand_aside([single(7)]) == [0]
    assert conditions.stand_aside([]) == []


def test_a_long_axis_has_few_round_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    for high in (600, 25_600, 200_000):
        curves = [Curve("boundary", (25, 50), (0.3, 0.6), (None, None)), single(high)]
        _, axes = laid_out(monkeypatch, lambda: conditions.learning_curves(curves, EXPERTS))  # noqa: B023
        low, top = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= top]
        assert 2 <= len(ticks) <= 10 and {str(int(tick))[0] for tick in ticks} <= {"1", "3"}
