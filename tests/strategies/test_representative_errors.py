"""REAL: minorities within clusters."""

from __future__ import annotations

import numpy as np

from pipelines.strategies.representative_errors import RepresentativeErrors, minorities
from tests.strategies.cases import blobs, chosen, context_of, rows_of


def test_seats_go_by_how_likely_and_many_the_errors_of_a_cluster_are() -> None:
    # Cluster 0: mostly negative, four likely errors; cluster 1: mostly positive, one; cluster 2: none.
    positive = np.array([0.1] * 6 + [0.9] * 4 + [0.8] * 5 + [0.4] + [0.2] * 5)
    cluster = np.array([0] * 10 + [1] * 6 + [2] * 5)
    # 3.6 and .6 of 4.2: of five seats four and one, by whole parts and one for the largest.
    assert minorities(positive, cluster, 5).tolist() == [6, 7, 8, 9, 15]
    # First rows of a minority, for the pool is in random order.
    assert minorities(positive, cluster, 2).tolist() == [6, 7]


def test_seats_without_an_error_go_to_the_likeliest_ones_left() -> None:
    positive = np.array([0.1, 0.2, 0.45, 0.3])
    assert minorities(positive, np.zeros(4, int), 3).tolist() == [2, 3, 1]
    assert minorities(positive, np.zeros(4, int), 9).tolist() == [2, 3, 1, 0]


def test_an_ad_called_otherwise_than_its_like_is_asked_about() -> None:
    vectors, _ = blobs([30, 30])
    margins = np.array([2.0] * 30 + [-2.0] * 30)
    margins[[4, 40]] *= -1
    found = RepresentativeErrors().choose(rows_of(vectors, margins), 2, context_of(None))
    assert {*chosen(found)} == {4, 40}
