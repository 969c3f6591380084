"""TypiClust."""

from __future__ import annotations

import numpy as np

from pipelines.strategies.clusters import Clusters, typical
from tests.strategies.cases import blobs, chosen, context_of, rows_of


def test_the_largest_cluster_nobody_asked_about_comes_first() -> None:
    vectors, axis = blobs([30, 20, 10])
    known = rows_of(vectors[:1], [0.0], seed=9)
    found = Clusters().choose(rows_of(vectors, np.zeros(60)), 2, context_of(known, [1]))
    assert [axis[row] for row in chosen(found)] == [1, 2]


def test_of_a_cluster_the_densest_place_is_typical() -> None:
    line = np.array([0.0, 1.0, 1.1, 1.2, 3.0, 9.0], np.float32)[:, None]
    found = typical(line, np.array([0, 0, 0, 0, 0, 1]), np.array([], int), 6)
    assert found[:2].tolist() == [2, 5]
    assert sorted(found.tolist()) == list(range(6))


def test_a_covered_cluster_waits_for_a_turn() -> None:
    line = np.arange(6, dtype=np.float32)[:, None]
    cluster = np.array([0, 0, 0, 0, 1, 1])
    assert cluster[typical(line, cluster, np.array([0]), 3)].tolist() == [1, 1, 0]
