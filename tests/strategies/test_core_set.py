"""k-center greedy."""

from __future__ import annotations

import itertools

import numpy as np

from pipelines.strategies.core_set import CoreSet, k_center
from tests.strategies.cases import blobs, chosen, context_of, rows_of


def radius(vectors: np.ndarray, centres: np.ndarray) -> float:
    return float(np.linalg.norm(vectors[:, None] - centres[None], axis=2).min(axis=1).max())


def test_every_group_is_visited_before_any_is_visited_twice() -> None:
    vectors, axis = blobs([20, 5, 5, 5])
    known = rows_of(vectors[:1], [0.0], seed=9)
    found = CoreSet().choose(rows_of(vectors, np.zeros(35)), 5, context_of(known, [1]))
    assert {axis[row] for row in chosen(found)[:3]} == {1, 2, 3}


def test_the_radius_is_at_most_twice_the_best() -> None:
    vectors = np.random.default_rng(2).normal(size=(12, 3)).astype(np.float32)
    found = k_center(vectors, np.empty((0, 3), np.float32), 3)
    assert found[0] == 0 and len({*found.tolist()}) == 3
    best = min(radius(vectors, vectors[list(c)]) for c in itertools.combinations(range(12), 3))
    assert best <= radius(vectors, vectors[found]) <= 2 * best + 1e-6


def test_copies_are_chosen_last_and_never_twice() -> None:
    vectors = np.repeat(np.eye(3, dtype=np.float32), 3, axis=0)
    found = k_center(vectors, np.empty((0, 3), np.float32), 9)
    assert sorted(found.tolist()) == list(range(9))
    assert {*(found[:3] // 3).tolist()} == {0, 1, 2}
