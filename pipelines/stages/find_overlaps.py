"""FindOverlaps: which clusters of opposite labels mix, ranked."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import apache_beam as beam
import numpy as np
from apache_beam import pvalue

from pipelines.console import metrics
from pipelines.errors import RunFailed
from pipelines.numerics.overlap import ClusterStats, Overlap, rank_overlaps
from pipelines.stages.cluster_per_label import ClusterModel, ClusterTotals

STAGE = "FindOverlaps"


def to_stats(model: ClusterModel, totals: ClusterTotals) -> tuple[ClusterStats, ClusterStats]:
    """Return the positive and the negative clusters' statistics."""
    kp = len(model.positive)
    sides = ((model.positive, slice(0, kp)), (model.negative, slice(kp, None)))
    positive, negative = (
        ClusterStats(
            centroids=centroids,
            count=totals.count[part],
            distance_sum=totals.distance[part],
            mass=totals.mass[part],
        )
        for centroids, part in sides
    )
    return positive, negative


@dataclasses.dataclass(eq=False)
class FindOverlaps(beam.PTransform):
    """Rank cluster pairs of opposite labels and keep the top few of each positive cluster.

    Input: singletons ``PCollection[ClusterModel]`` and ``PCollection[ClusterTotals]``. Output: a
    singleton ``PCollection[list[Overlap]]``, best first.
    """

    per_positive_cluster: int

    def expand(
        self, inputs: tuple[beam.PCollection[ClusterModel], beam.PCollection[ClusterTotals]]
    ) -> beam.PCollection[list[Overlap]]:
        """Apply the transform."""
        model, totals = inputs
        return model | "RankOverlaps" >> beam.FlatMap(self._rank, pvalue.AsSingleton(totals))

    def _rank(self, model: ClusterModel, totals: ClusterTotals) -> Iterator[list[Overlap]]:
        with metrics.timed(STAGE):
            positive, negative = to_stats(model, totals)
            found = rank_overlaps(
                positive,
                negative,
                np.asarray(totals.nearer),
                model.neighbors,
                per_positive=self.per_positive_cluster,
            )
            if not found:
                raise RunFailed("no cluster pair of opposite labels has members on both sides")
            metrics.count(STAGE, "clusters", len(model.positive) + len(model.negative))
            metrics.count(STAGE, "overlaps", len(found))
            yield found
