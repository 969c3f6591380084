from __future__ import annotations

import pytest

from pipelines.numerics.minutes import (
    AWAY_SEC,
    DEFAULTS,
    LEAST_GAPS,
    PAIR,
    POSITIVES,
    SINGLE,
    affordable,
    gaps_sec,
    rates,
)


def test_an_item_takes_from_the_answer_before_it() -> None:
    times, kinds = [100.0, 40.0, 0.0, 130.0], [PAIR, SINGLE, PAIR, SINGLE]
    assert gaps_sec(times, kinds) == {SINGLE: [40.0, 30.0], PAIR: [60.0]}


def test_breaks_say_nothing() -> None:
    times = [0.0, 20.0, 20.0 + AWAY_SEC, 21.0 + 2 * AWAY_SEC, 51.0 + 2 * AWAY_SEC]
    assert gaps_sec(times, [SINGLE] * 5) == {SINGLE: [20.0, AWAY_SEC, 30.0]}


def test_times_of_saving_measure_nothing() -> None:
    assert gaps_sec([0.0, 0.0, 0.0, 60.0], [PAIR] * 4) == {}
    assert gaps_sec([0.0, 0.0, 30.0, 60.0], [PAIR] * 4) == {PAIR: [30.0, 30.0]}
    assert gaps_sec([], []) == gaps_sec([5.0], [PAIR]) == {}


def test_the_task_comes_first_then_what_is_measured() -> None:
    measured = [{PAIR: [30.0] * 10, SINGLE: [20.0]}, {PAIR: [60.0] * 10}]
    found = rates({PAIR: None, SINGLE: None, POSITIVES: 2.0}, measured)
    assert found[PAIR].minutes == pytest.approx(0.75)
    assert (found[PAIR].source, found[PAIR].answers) == ("measured", LEAST_GAPS)
    assert (found[SINGLE].minutes, found[SINGLE].source) == (DEFAULTS[SINGLE], "assumed")
    assert (found[POSITIVES].minutes, found[POSITIVES].source) == (2.0, "task")
    assert rates({PAIR: 1.5}, measured)[PAIR].minutes == 1.5


@pytest.mark.parametrize(
    ("minutes", "rate", "experts", "items"),
    [(60, 0.6, 1, 100), (60, 0.8, 2, 37), (120, 0.5, 2, 120), (0.1, 0.8, 2, 1)],
)
def test_minutes_buy_whole_items(minutes: float, rate: float, experts: int, items: int) -> None:
    assert affordable(minutes, rate, experts) == items
