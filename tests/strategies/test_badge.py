"""BADGE: k-means++ on gradient embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.strategies.badge import Badge, k_means_plus_plus
from tests.strategies.cases import blobs, chosen, context_of, rows_of


def test_rows_come_by_their_squared_distance_to_those_drawn() -> None:
    vectors = np.array([[4, 0], [3, 0], [0, 0], [0, 3]], np.float32)
    draws = np.random.default_rng(0).random((1000, 2))
    second = [int(k_means_plus_plus(vectors, np.ones(4), pair)[1]) for pair in draws]
    # From (4, 0): 0, 1, 16 and 25 of 42.
    shares = np.bincount(second, minlength=4) / len(second)
    assert shares == pytest.approx([0, 1 / 42, 16 / 42, 25 / 42], abs=0.05)


def test_the_scale_is_the_rows_length() -> None:
    vectors = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    assert k_means_plus_plus(vectors, np.array([0.1, -0.5, 0.2]), np.array([0.9]))[0] == 1


def test_copies_and_rows_of_nothing_come_once_when_nothing_else_is_left() -> None:
    vectors = np.repeat(np.eye(2, dtype=np.float32), 4, axis=0)
    draws = np.random.default_rng(1).random(8)
    found = k_means_plus_plus(vectors, np.full(8, 0.5), draws)
    assert sorted(found.tolist()) == list(range(8)) and {*(found[:2] // 4)} == {0, 1}
    none = k_means_plus_plus(vectors, np.zeros(8), draws)
    assert sorted(none.tolist()) == list(range(8))


def test_doubtful_ads_of_different_groups_are_asked_about() -> None:
    vectors, axis = blobs([10, 10, 30, 30])
    labels = (axis == 0).astype(int)
    known = np.flatnonzero(axis < 2)
    at = context_of(rows_of(vectors[known], np.zeros(20), seed=9), labels[known])
    found = Badge().choose(rows_of(vectors, np.zeros(80)), 4, at)
    # Groups 2 and 3 were never labelled: the head is near one half there.
    assert {axis[row] for row in chosen(found)[:2]} == {2, 3}
