import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.numerics.kmeans import assign
from pipelines.numerics.overlap import (
    ClusterStats,
    nearer_counts,
    neighbor_counts,
    rank_overlaps,
)

ALL = 10**6
seeds = st.integers(0, 2**32 - 1)


def make_stats(rng, k, d=3):
    count = rng.integers(0, 4, k)
    return ClusterStats(
        centroids=rng.integers(-1, 2, (k, d)).astype(np.float32),
        count=count,
        distance_sum=count * rng.integers(0, 3, k) * 500_000,
        mass=count * 1000,
    )


def midrank(values, value):
    """Share of values below, counting half of the equal ones."""
    below = sum(other < value for other in values)
    equal = sum(other == value for other in values)
    return (below + equal / 2) / len(values)


@given(seeds, st.integers(1, 4), st.integers(1, 5), st.integers(1, 3))
@settings(deadline=None)
def test_ranking_against_counting(seed, kp, kn, per_positive):
    rng = np.random.default_rng(seed)
    positive, negative = make_stats(rng, kp), make_stats(rng, kn)
    nearer = np.minimum(
        rng.integers(0, 3, (kp, kn)), positive.count[:, None] + negative.count[None, :]
    )
    neighbors = rng.integers(0, 3, (kp, kn))
    measures = {}
    for i in range(kp):
        for j in range(kn):
            if not positive.count[i] or not negative.count[j]:
                continue
            gap = float(np.linalg.norm(positive.centroids[i] - negative.centroids[j].astype(float)))
            radii = sum(
                s.distance_sum[c] * 1e-6 / s.count[c] for s, c in ((positive, i), (negative, j))
            )
            found = int(neighbors[i].sum())
            measures[i, j] = (
                -gap / max(radii, 1e-6),
                int(nearer[i, j]) / int(positive.count[i] + negative.count[j]),
                int(neighbors[i, j]) / found if found else 0.0,
            )
    columns = list(zip(*measures.values(), strict=True))
    expected = {
        pair: sum(midrank(column, value) for column, value in zip(columns, values, strict=True)) / 3
        for pair, values in measures.items()
    }
    got = rank_overlaps(positive, negative, nearer, neighbors, per_positive=ALL)
    assert {(o.positive, o.negative) for o in got} == set(expected)
    for overlap in got:
        pair = overlap.positive, overlap.negative
        assert overlap.score == pytest.approx(expected[pair], abs=1e-12)
        assert 0 < overlap.score < 1
        assert -overlap.distance_ratio == pytest.approx(measures[pair][0], abs=1e-12)
        assert overlap.nearer_share == measures[pair][1]
        assert overlap.neighbor_share == measures[pair][2]
        assert overlap.neighbor_count == neighbors[pair]
        assert overlap.mass == positive.mass[pair[0]] + negative.mass[pair[1]]
        assert np.isfinite(overlap.distance_ratio)
    order = [(-o.score, o.positive, o.negative) for o in got]
    assert order == sorted(order)
    for i in range(kp):
        ranked = [o.rank_in_positive for o in got if o.positive == i]
        assert ranked == list(range(1, len(ranked) + 1))
    kept = rank_overlaps(positive, negative, nearer, neighbors, per_positive=per_positive)
    assert kept == [o for o in got if o.rank_in_positive <= per_positive]


def stats(centroids, count, distance_sum):
    count = np.array(count)
    return ClusterStats(
        np.array(centroids, np.float32), count, np.array(distance_sum), count * 1000
    )


def test_mixed_pairs_lead():
    positive = stats([[1, 0], [0, 1]], [10, 10], [2_000_000, 2_000_000])
    negative = stats([[0.9, 0.1], [-1, 0]], [10, 10], [2_000_000, 2_000_000])
    nearer = np.array([[4, 0], [0, 0]])
    neighbors = np.array([[30, 0], [20, 10]])
    got = rank_overlaps(positive, negative, nearer, neighbors, per_positive=1)
    assert [(o.positive, o.negative) for o in got] == [(0, 0), (1, 0)]
    assert got[0].nearer_share == 0.2 and got[0].neighbor_share == 1.0


def test_degenerate_clusters_stay_finite():
    # All centroids equal, clusters of one, no extent, no neighbour found.
    one = stats([[1, 0], [1, 0]], [1, 1], [0, 0])
    zeros = np.zeros((2, 2), dtype=np.int64)
    got = rank_overlaps(one, one, zeros, zeros, per_positive=ALL)
    assert [(o.positive, o.negative) for o in got] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert {o.score for o in got} == {0.5}
    assert {o.distance_ratio for o in got} == {0.0}
    far = stats([[-1, 0]], [1], [0])
    (only,) = rank_overlaps(stats([[1, 0]], [1], [0]), far, zeros[:1, :1], zeros[:1, :1])
    assert only.score == 0.5 and only.distance_ratio == pytest.approx(2e6)


def test_empty_clusters_are_left_out():
    empty = stats([[1, 0]], [0], [0])
    assert rank_overlaps(empty, empty, np.zeros((1, 1), int), np.zeros((1, 1), int)) == []


def test_ranking_refuses():
    one = stats([[1, 0]], [1], [0])
    zeros = np.zeros((1, 1), dtype=np.int64)
    with pytest.raises(ValueError, match="per_positive must be at least 1 pair, got 0"):
        rank_overlaps(one, one, zeros, zeros, per_positive=0)
    with pytest.raises(ValueError, match=r"nearer must be a \(1, 1\) matrix"):
        rank_overlaps(one, one, zeros[:0], zeros)
    with pytest.raises(ValueError, match=r"neighbors must be a \(1, 1\) matrix"):
        rank_overlaps(one, one, zeros, zeros - 1)
    with pytest.raises(ValueError, match="mass must hold 1 non-negative integers"):
        dataclasses.replace(one, mass=np.array([0.5]))


def unit_grid(rng, n, d):
    rows = rng.integers(-1, 2, (n, d)).astype(np.float64)
    rows[~rows.any(axis=1), 0] = 1
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@given(seeds, st.integers(0, 30), st.integers(1, 4), st.integers(1, 4))
@settings(deadline=None)
def test_nearer_counts_against_pairs_and_over_blocks(seed, n, k, k_other):
    rng = np.random.default_rng(seed)
    rows, own, others = unit_grid(rng, n, 3), unit_grid(rng, k, 3), unit_grid(rng, k_other, 3)
    labels, distances = assign(rows, own)
    expected = np.zeros((k, k_other), dtype=np.int64)
    for row, label, value in zip(rows, labels, distances, strict=True):
        for j, other in enumerate(others):
            gap = np.float32(np.sqrt(np.square(row.astype(np.float64) - other).sum()))
            expected[label, j] += gap < value
    got = nearer_counts(rows, labels, distances, others, k)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, expected)
    cut = n // 3
    blocks = nearer_counts(rows[cut:], labels[cut:], distances[cut:], others, k)
    blocks = blocks + nearer_counts(rows[:cut], labels[:cut], distances[:cut], others, k)
    np.testing.assert_array_equal(blocks, expected)


@given(seeds, st.integers(0, 8), st.integers(1, 20), st.integers(1, 25))
@settings(deadline=None)
def test_neighbor_counts_against_sorting(seed, p, n, m):
    rng = np.random.default_rng(seed)
    pos, neg = unit_grid(rng, p, 4), unit_grid(rng, n, 4)
    pos_labels, neg_labels = rng.integers(0, 3, p), rng.integers(0, 4, n)
    expected = np.zeros((3, 4), dtype=np.int64)
    for row, label in zip(pos, pos_labels, strict=True):
        gaps = np.sqrt(np.square(row.astype(np.float64) - neg).sum(axis=1)).astype(np.float32)
        for j in np.argsort(gaps, kind="stable")[:m]:
            expected[label, neg_labels[j]] += 1
    got = neighbor_counts(pos, pos_labels, neg, neg_labels, (3, 4), m)
    np.testing.assert_array_equal(got, expected)
    assert got.sum() == p * min(m, n)


def test_counts_refuse_foreign_labels():
    rows, labels = np.eye(2, dtype=np.float32), np.array([0, 2])
    own = np.zeros(2, dtype=np.float32)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 2\), got 0 to 2"):
        nearer_counts(rows, labels, own, rows, 2)
    with pytest.raises(ValueError, match="own_distance must hold 2 distances"):
        nearer_counts(rows, labels, own[:1], rows, 3)
    with pytest.raises(ValueError, match="pos_labels must hold 2 integers"):
        neighbor_counts(rows, labels[:1], rows, labels, (3, 3), 1)
    with pytest.raises(ValueError, match="neg_labels must lie in"):
        neighbor_counts(rows, labels, rows, -labels, (3, 3), 1)
    with pytest.raises(ValueError, match="m must be at least 1"):
        neighbor_counts(rows, labels, rows, labels, (3, 3), 0)
