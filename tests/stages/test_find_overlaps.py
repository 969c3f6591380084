"""Overlaps from clusters: which pairs are kept, and a corpus in which none are."""

from __future__ import annotations

import apache_beam as beam
import numpy as np
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from pipelines.numerics import kmeans
from pipelines.stages.cluster_per_label import ClusterModel, ClusterTotals
from pipelines.stages.find_overlaps import FindOverlaps, to_stats

AXES = np.eye(4, dtype=np.float32)
MODEL = ClusterModel(
    kmeans.VectorSpace(None, None), AXES[:2], AXES[1:4], np.array([[0, 0, 9], [5, 0, 0]])
)


def totals(count: list[int], nearer: list[list[int]]) -> ClusterTotals:
    counts = np.array(count, dtype=np.int64)
    mixed = np.array(nearer, dtype=np.int64)
    return ClusterTotals(counts, counts * 100_000, counts * 1000, mixed, counts)


def test_statistics_are_cut_between_the_labels() -> None:
    positive, negative = to_stats(MODEL, totals([10, 20, 30, 40, 20], [[0] * 3] * 2))
    assert positive.count.tolist() == [10, 20] and negative.count.tolist() == [30, 40, 20]
    assert positive.mass.tolist() == [10_000, 20_000]
    assert negative.distance_sum.tolist() == [3_000_000, 4_000_000, 2_000_000]
    assert negative.centroids is not MODEL.positive and len(negative.centroids) == 3


def check(found: list) -> None:
    [overlaps] = found
    assert [(o.positive, o.negative) for o in overlaps] == [(1, 0), (0, 2)]
    assert [o.mass for o in overlaps] == [50_000, 30_000]


def test_each_positive_cluster_keeps_its_most_mixed_partner() -> None:
    with TestPipeline() as pipeline:
        given = totals([10, 20, 30, 40, 20], [[0, 0, 8], [15, 1, 0]])
        model = pipeline | "Model" >> beam.Create([MODEL])
        sums = pipeline | "Totals" >> beam.Create([given])
        assert_that((model, sums) | FindOverlaps(per_positive_cluster=1), check)


def test_a_label_without_members_overlaps_with_nothing() -> None:
    with TestPipeline() as pipeline:
        model = pipeline | "Model" >> beam.Create([MODEL])
        sums = pipeline | "Totals" >> beam.Create([totals([0, 0, 9, 9, 9], [[0] * 3] * 2)])
        assert_that((model, sums) | FindOverlaps(2), equal_to([[]]))
