"""ClusterPerLabel: k-means on the ads of each predicted label, without shuffling the corpus.

A hash sample of each label is fitted in one worker; then every block is assigned where it is
read, with the centroids as a side input.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam import pvalue

from pipelines.console import metrics
from pipelines.contracts import Block, ClusterAssignment, ScoredPart
from pipelines.numerics import hashing, kmeans, overlap
from pipelines.numerics.calibration import Threshold
from pipelines.store import blocks, scores

STAGE = "ClusterPerLabel"
ASSIGNMENTS, STATS, SAMPLE = "assignments", "stats", "sample"
# Neighbours across labels are counted on so many sampled ads of each label: the count is
# quadratic, and only ranks cluster pairs.
_NEIGHBOR_QUERIES, _NEIGHBOR_ROWS = 2_000, 20_000


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """What clustering depends on.

    Attributes:
        positive_clusters: k of the positive label, or None for k from the class size.
        negative_clusters: the same for the negative label.
        sample_rows: rows of each label that the centroids are fitted on.
        coverage_rows: rows of the corpus that coverage is measured on.
        neighbors: neighbours of each sampled positive counted for the overlap ranking.
        standardize: whether dimensions are standardised first.
        seed: of the samples and of k-means.
    """

    positive_clusters: int | None
    negative_clusters: int | None
    sample_rows: int
    coverage_rows: int
    neighbors: int
    standardize: bool
    seed: int


@dataclass(frozen=True, slots=True)
class ClusterModel:
    """Centroids of both labels in one space.

    Attributes:
        space: maps raw vectors to unit vectors.
        positive: (kp, dim) float32 centroids.
        negative: (kn, dim) float32 centroids.
        neighbors: (kp, kn) int64, neighbours across labels among the sampled ads.
    """

    space: kmeans.VectorSpace
    positive: np.ndarray
    negative: np.ndarray
    neighbors: np.ndarray


@dataclass(frozen=True, slots=True)
class ClusterTotals:
    """Exact integer sums over all rows, from which :class:`overlap.ClusterStats` is made.

    Attributes:
        count, distance, mass: int64 (kp + kn,): rows, distance to the own centroid in units of
            1e-6, weight in the corpus's unit; positive clusters first.
        nearer: int64 (kp, kn): members of either cluster nearer to the other's centroid.
        truncated: ads of which the model saw only the beginning.
    """

    count: np.ndarray
    distance: np.ndarray
    mass: np.ndarray
    nearer: np.ndarray
    truncated: int = 0


def fit(
    positive: pa.Table, negative: pa.Table, threshold: Threshold, settings: ClusterSettings
) -> ClusterModel:
    """Fit both labels' centroids on samples (columns key and vector).

    A label without ads gets one cluster, empty, that overlaps with none.

    Memory: about ``10 * dim`` bytes a sampled row (float16 and float32 copies, k-means' own).
    """
    chosen, counted = [], []
    for table, limit in ((positive, _NEIGHBOR_QUERIES), (negative, _NEIGHBOR_ROWS)):
        keys = np.asarray(table.column("key").to_pylist())
        rows = hashing.lowest_ranks(keys, settings.sample_rows, settings.seed)
        chosen.append(blocks.vectors(table)[rows].astype(np.float32))
        counted.append(hashing.lowest_ranks(keys[rows], limit, settings.seed))
    space = kmeans.fit_space(
        chosen, [threshold.n_positive, threshold.n_negative], settings.standardize
    )
    vectors = [kmeans.project(space, rows) for rows in chosen]
    some = next(rows for rows in vectors if len(rows))
    ks = [
        settings.positive_clusters or kmeans.auto_k(threshold.n_positive),
        settings.negative_clusters or kmeans.auto_k(threshold.n_negative),
    ]
    centroids = [
        kmeans.fit_kmeans(rows, min(k, len(rows)), settings.seed) if len(rows) else some[:1]
        for rows, k in zip(vectors, ks, strict=True)
    ]
    near = [rows[part] for rows, part in zip(vectors, counted, strict=True)]
    labels = [
        kmeans.assign(rows, centers)[0] for rows, centers in zip(near, centroids, strict=True)
    ]
    neighbors = overlap.neighbor_counts(
        near[0],
        labels[0],
        near[1],
        labels[1],
        (len(centroids[0]), len(centroids[1])),
        settings.neighbors,
    )
    return ClusterModel(space, centroids[0], centroids[1], neighbors)


def assign_block(
    table: pa.Table, model: ClusterModel, threshold: Threshold
) -> tuple[np.ndarray, np.ndarray, ClusterTotals]:
    """Assign a scored block's rows.

    Returns:
        predicted labels, bool (rows,); clusters within the own label, int32 (rows,); sums.
    """
    vectors = kmeans.project(model.space, blocks.vectors(table))
    weights = table.column("weight").to_numpy()
    positive = table.column("margin").to_numpy() >= np.float32(threshold.margin)
    kp, kn = len(model.positive), len(model.negative)
    cluster = np.zeros(len(vectors), dtype=np.int32)
    count = np.zeros(kp + kn, dtype=np.int64)
    distance = np.zeros(kp + kn, dtype=np.int64)
    mass = np.zeros(kp + kn, dtype=np.int64)
    nearer = np.zeros((kp, kn), dtype=np.int64)
    sides = ((True, model.positive, model.negative, 0), (False, model.negative, model.positive, kp))
    for side, own, other, offset in sides:
        rows = np.flatnonzero(positive == side)
        if not len(rows):
            continue
        labels, own_distance = kmeans.assign(vectors[rows], own)
        cluster[rows] = labels
        at = labels.astype(np.int64) + offset
        np.add.at(count, at, 1)
        np.add.at(distance, at, np.rint(own_distance.astype(np.float64) * 1e6).astype(np.int64))
        np.add.at(mass, at, weights[rows])
        counts = overlap.nearer_counts(vectors[rows], labels, own_distance, other, len(own))
        nearer += counts if side else counts.T
    truncated = int(np.count_nonzero(table.column("truncated").to_numpy(zero_copy_only=False)))
    return positive, cluster, ClusterTotals(count, distance, mass, nearer, truncated)


@dataclasses.dataclass(eq=False)
class ClusterPerLabel(beam.PTransform):
    """Cluster each label: scored files and a threshold to clusters.

    Input: ``PCollection[ScoredPart]`` and a singleton ``PCollection[Threshold]``. Output: a dict of
    singletons ``model`` (:class:`ClusterModel`), ``stats`` (:class:`ClusterTotals`), the
    ``assignments`` (``PCollection[ClusterAssignment]``) and the coverage ``sample``
    (``PCollection[Block]``).
    """

    root: str
    settings: ClusterSettings

    def expand(
        self, inputs: tuple[beam.PCollection[ScoredPart], beam.PCollection[Threshold]]
    ) -> dict[str, beam.PCollection]:
        """Apply the transform."""
        parts, threshold = inputs
        at = pvalue.AsSingleton(threshold)
        model = (
            parts
            | "SampleRows" >> beam.FlatMap(self._sample_rows, at)
            | "GatherSample" >> beam.GroupByKey()
            | "FitKMeans" >> beam.Map(self._fit, at)
        )
        outcome = parts | "Assign" >> beam.FlatMap(
            self._assign, at, pvalue.AsSingleton(model)
        ).with_outputs(STATS, SAMPLE, main=ASSIGNMENTS)
        return {
            "model": model,
            ASSIGNMENTS: outcome[ASSIGNMENTS],
            STATS: outcome[STATS] | "SumStats" >> beam.CombineGlobally(_add_totals),
            SAMPLE: outcome[SAMPLE],
        }

    def _sample_rows(
        self, part: ScoredPart, threshold: Threshold
    ) -> Iterator[tuple[int, tuple[bool, Block]]]:
        with metrics.timed(STAGE):
            settings = self.settings
            with scores.OpenPart(self.root, part) as block:
                table = block.columns(["key", "margin"])
                ranks = hashing.ranks(table.column("key").to_pylist(), settings.seed)
                positive = table.column("margin").to_numpy() >= np.float32(threshold.margin)
                sampled = np.zeros(len(positive), dtype=bool)
                sides = ((True, threshold.n_positive), (False, threshold.n_negative))
                for side, population in sides:
                    limit = hashing.sample_limit(settings.sample_rows, population)
                    sampled |= (positive == side) & hashing.below(ranks, limit)
                rows = block.rows(sampled, ["key", "vector"])
            for side, _ in sides:
                kept = rows.filter(pa.array(positive[sampled] == side))
                if kept.num_rows:
                    yield 0, (side, blocks.to_block(kept))

    def _fit(
        self, item: tuple[int, Iterable[tuple[bool, Block]]], threshold: Threshold
    ) -> ClusterModel:
        with metrics.timed(STAGE):
            sides: dict[bool, list[Block]] = {True: [], False: []}
            for side, block in item[1]:
                sides[side].append(block)
            empty = blocks.concat([*sides[True], *sides[False]]).slice(0, 0)
            tables = {
                side: blocks.sort_by_key(blocks.concat(found)) if found else empty
                for side, found in sides.items()
            }
            return fit(tables[True], tables[False], threshold, self.settings)

    def _assign(
        self, part: ScoredPart, threshold: Threshold, model: ClusterModel
    ) -> Iterator[ClusterAssignment | pvalue.TaggedOutput]:
        with metrics.timed(STAGE):
            # The one read of all bytes: nearly all of them are needed here, and what was sampled or
            # counted of a damaged block before ends the run here, before anything is committed.
            table = scores.read(self.root, part)
            positive, cluster, totals = assign_block(table, model, threshold)
            metrics.count(STAGE, "assigned", len(positive))
            # Another seed than the clusters' sample: coverage is measured on other ads.
            ranks = hashing.ranks(table.column("key").to_pylist(), self.settings.seed + 1)
            population = threshold.n_positive + threshold.n_negative
            limit = hashing.sample_limit(self.settings.coverage_rows, population)
            rows: Any = np.flatnonzero(hashing.below(ranks, limit))
            if len(rows):
                sample = table.take(pa.array(rows))
                sample = sample.append_column("positive", pa.array(positive[rows]))
                sample = sample.append_column("cluster", pa.array(cluster[rows]))
                yield pvalue.TaggedOutput(SAMPLE, blocks.to_block(sample))
            yield pvalue.TaggedOutput(STATS, totals)
            yield ClusterAssignment(part, positive.tobytes(), cluster.astype("<i4").tobytes())


def _add_totals(parts: Iterable[ClusterTotals | None]) -> ClusterTotals | None:
    total: ClusterTotals | None = None
    for part in parts:
        if part is None or total is None:
            total = part or total
            continue
        total = ClusterTotals(
            total.count + part.count,
            total.distance + part.distance,
            total.mass + part.mass,
            total.nearer + part.nearer,
            total.truncated + part.truncated,
        )
    return total
