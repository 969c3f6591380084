"""Drift of scores and shares, against a slow oracle and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipelines.numerics import drift


def slow_index(now: list[int], before: list[int]) -> float:
    q = [(n + 0.5) / (sum(now) + 0.5 * len(now)) for n in now]
    p = [(n + 0.5) / (sum(before) + 0.5 * len(before)) for n in before]
    return sum((a - b) * math.log(a / b) for a, b in zip(q, p, strict=True))


def test_the_index_is_that_of_deciles() -> None:
    before = np.full(10, 50)
    now = np.array([5, 10, 20, 40, 60, 60, 80, 90, 100, 35])
    found = drift.stability(now, before)
    assert found.index == pytest.approx(slow_index(now.tolist(), before.tolist()))
    assert drift.stability(before, before).index == 0.0
    # 27.88 is the 99.9th percentile of a chi-square of nine degrees.
    assert found.chance == pytest.approx(27.877 * (1 / 500 + 1 / 500), rel=1e-4)


def test_ties_keep_together() -> None:
    before, now = np.zeros(100, dtype=int), np.zeros(100, dtype=int)
    before[[3, 70]], now[[3, 70]] = (400, 100), (100, 100)
    found = drift.stability(now, before)
    assert found.index == pytest.approx(slow_index([100, 100], [400, 100]), abs=0.01)


def test_chance_is_what_is_seen_without_drift() -> None:
    rng = np.random.default_rng(1)
    found = [
        drift.stability(
            np.bincount(rng.integers(0, 500, 300), minlength=500),
            np.bincount(rng.integers(0, 500, 2100), minlength=500),
        )
        for _ in range(500)
    ]
    assert np.mean([each.index > each.chance for each in found]) < 0.01
    assert np.mean([each.index > each.chance / 4 for each in found]) > 0.3


def test_an_empty_night_compares_with_nothing() -> None:
    with pytest.raises(ValueError, match="must hold something"):
        drift.stability(np.zeros(5, dtype=int), np.ones(5, dtype=int))


def test_deviation() -> None:
    # (.3 - .2) / sqrt(.21818 * .78182 * (1/100 + 1/450)), by hand.
    assert drift.deviation(30, 100, 90, 450) == pytest.approx(2.19017, abs=1e-4)
    assert drift.deviation(10, 100, 30, 100) < 0
    assert drift.deviation(0, 10, 0, 10) == drift.deviation(1, 0, 1, 9) == 0.0
