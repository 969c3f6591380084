"""ClusterPerLabel: k-means on the ads of each predicted label, without shuffling the corpus.

A sample of each label by its hashes is fitted in one worker; then every block is assigned where it is
read, with the centroids as a side input. What later steps need of its ads leaves here, so that no
block is read for it again: the few in the band, in the sample, or shown before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam import pvalue

from pipelines.console import metrics
from pipelines.contracts import Block, ScoredPart
from pipelines.numerics import hashing, kmeans, overlap
from pipelines.numerics.calibration import Band, Threshold
from pipelines.numerics.threads import one_blas_thread
from pipelines.stages.side_by_side import SideBySide
from pipelines.store import blocks, scores
from pipelines.store.shown import NOTHING, Shown

STAGE = "ClusterPerLabel"
MODEL, STATS, BAND, SAMPLE, SHOWN = "model", "stats", "band", "sample", "shown"
# Columns of the rows that leave here, beside those that are made of the assignment.
_OF_BAND, _OF_SAMPLE, _OF_SHOWN = (
    ("key", "vector"),
    ("key", "margin", "weight", "vector"),
    ("key", "vector"),
)
_ASSIGNED = ("key", "margin", "weight", "truncated", "vector")
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
        band: int64 (kp + kn,): rows in the band that experts have not seen.
        truncated: ads of which the model saw only the beginning.
    """

    count: np.ndarray
    distance: np.ndarray
    mass: np.ndarray
    nearer: np.ndarray
    band: np.ndarray
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """Sampled ads of a label, in the order of their keys.

    Attributes:
        keys: n content keys.
        vectors: float16 (n, dim), as stored.
    """

    keys: Sequence[str]
    vectors: np.ndarray


def drawn(tables: Sequence[pa.Table], wanted: int, dim: int, seed: int) -> Sample:
    """Return the first ``wanted`` rows, by ``hashing.turned``, of some tables (columns key and vector) in any order.

    Memory: 2 * dim bytes a row, and its keys.
    """
    keys = [key for table in tables for key in table.column("key").to_pylist()]
    rows = hashing.first_turned(keys, wanted, seed)
    place = np.full(len(keys), -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    vectors = np.empty((len(rows), dim), dtype=np.float16)
    start = 0
    for table in tables:
        own = place[start : start + table.num_rows]
        vectors[own[own >= 0]] = blocks.vectors(table)[own >= 0]
        start += table.num_rows
    return Sample([keys[row] for row in rows.tolist()], vectors)


def fit(
    positive: Sample,
    negative: Sample,
    threshold: Threshold,
    settings: ClusterSettings,
    threads: int = 1,
) -> ClusterModel:
    """Fit both labels' centroids on samples.

    A label without ads gets one cluster, empty, that overlaps with none.

    Memory: about ``8 * dim`` bytes a sampled row of one label, and what ``kmeans.fit_kmeans`` takes.
    """
    raw = [positive.vectors, negative.vectors]
    counted = [
        hashing.lowest_ranks(sample.keys, limit, settings.seed)
        for sample, limit in ((positive, _NEIGHBOR_QUERIES), (negative, _NEIGHBOR_ROWS))
    ]
    space = kmeans.fit_space(
        raw, [threshold.n_positive, threshold.n_negative], settings.standardize
    )
    ks = [
        settings.positive_clusters or kmeans.auto_k(threshold.n_positive),
        settings.negative_clusters or kmeans.auto_k(threshold.n_negative),
    ]

    def fitted(rows: np.ndarray, part: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        # In a function of its own: one label's vectors are let go before the other's are made.
        vectors = kmeans.project(space, rows)
        if not len(rows):
            return vectors, vectors
        made = kmeans.fit_kmeans(vectors, min(k, len(rows)), settings.seed, threads)
        return made, vectors[part]

    found = [fitted(rows, part, k) for rows, part, k in zip(raw, counted, ks, strict=True)]
    centroids, near = (list(both) for both in zip(*found, strict=True))
    for own, other in ((0, 1), (1, 0)):
        if not len(centroids[own]):
            centroids[own] = near[other][:1]
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
        threads,
    )
    return ClusterModel(space, centroids[0], centroids[1], neighbors)


def assign_block(
    table: pa.Table, model: ClusterModel, threshold: Threshold, near: np.ndarray
) -> tuple[np.ndarray, np.ndarray, ClusterTotals]:
    """Assign a scored block's rows.

    Args:
        table: the block.
        model: the clusters.
        threshold: the label rule.
        near: bool (rows,), which rows pairs may be made of.

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
    band = np.zeros(kp + kn, dtype=np.int64)
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
        np.add.at(band, at, near[rows])
        counts = overlap.nearer_counts(vectors[rows], labels, own_distance, other, len(own))
        nearer += counts if side else counts.T
    truncated = int(np.count_nonzero(table.column("truncated").to_numpy(zero_copy_only=False)))
    return positive, cluster, ClusterTotals(count, distance, mass, nearer, band, truncated)


@dataclasses.dataclass(eq=False)
class ClusterPerLabel(beam.PTransform):
    """Cluster each label: scored parts, a threshold and a band to clusters.

    Input: ``PCollection[ScoredPart]``, singletons ``PCollection[Threshold]`` and ``PCollection[Band]``.
    Output: a dict of singletons ``model`` (:class:`ClusterModel`) and ``stats``
    (:class:`ClusterTotals`), and of rows (``PCollection[Block]``), each with the columns key, vector,
    positive (bool), cluster (int32), and block and row, which say where the rest of it is
    (``scores.number_of``): those of the ``band`` that experts have not seen, the coverage ``sample``
    (with margin and weight), and those ``shown`` before (key and vector alone).

    Memory of the worker that fits: about ``20 * dim * sample_rows`` bytes. Shuffled are the sample and
    band rows, about ``2 * dim + 100`` bytes each.

    Args:
        root: the workspace.
        settings: see :class:`ClusterSettings`.
        shown: ads that experts have seen.
        threads: blocks that a process works on at once.
    """

    root: str
    settings: ClusterSettings
    shown: Shown = NOTHING
    threads: int = 1

    def expand(
        self,
        inputs: tuple[
            beam.PCollection[ScoredPart], beam.PCollection[Threshold], beam.PCollection[Band]
        ],
    ) -> dict[str, beam.PCollection]:
        """Apply the transform."""
        parts, threshold, band = inputs
        at = pvalue.AsSingleton(threshold)
        model = (
            parts
            | "SampleRows" >> beam.ParDo(SideBySide(self._sample_rows, self.threads), at)
            | "GatherSample" >> beam.GroupByKey()
            | "FitKMeans" >> beam.Map(self._fit, at)
        )
        outcome = parts | "Assign" >> beam.ParDo(
            SideBySide(self._assign, self.threads),
            at,
            pvalue.AsSingleton(band),
            pvalue.AsSingleton(model),
        ).with_outputs(STATS, SAMPLE, SHOWN, main=BAND)
        return {
            MODEL: model,
            BAND: outcome[BAND],
            STATS: outcome[STATS] | "SumStats" >> beam.CombineGlobally(_add_totals),
            SAMPLE: outcome[SAMPLE],
            SHOWN: outcome[SHOWN],
        }

    def _sample_rows(
        self, part: ScoredPart, threshold: Threshold
    ) -> Iterator[tuple[int, tuple[bool, Block]]]:
        with metrics.timed(STAGE):
            settings = self.settings
            with scores.OpenPart(self.root, part) as block:
                table = block.columns(["key", "margin"])
                # Blocks are cut in the order of their keys, so most hold none of the sample.
                places = hashing.turned(table.column("key").to_pylist(), settings.seed)
                positive = table.column("margin").to_numpy() >= np.float32(threshold.margin)
                sampled = np.zeros(len(positive), dtype=bool)
                sides = ((True, threshold.n_positive), (False, threshold.n_negative))
                for side, population in sides:
                    limit = hashing.sample_limit(settings.sample_rows, population)
                    sampled |= (positive == side) & hashing.below(places, limit)
                if not sampled.any():
                    return
                rows = block.rows(sampled, ["key", "vector"])
            for side, _ in sides:
                kept = rows.filter(pa.array(positive[sampled] == side))
                if kept.num_rows:
                    yield 0, (side, blocks.to_block(kept))

    def _fit(
        self, item: tuple[int, Iterable[tuple[bool, Block]]], threshold: Threshold
    ) -> ClusterModel:
        with metrics.timed(STAGE), one_blas_thread():
            sides: dict[bool, list[pa.Table]] = {True: [], False: []}
            for side, block in item[1]:
                sides[side].append(blocks.from_block(block))
            some = next(table for side in (True, False) for table in sides[side])
            dim = blocks.vectors(some).shape[1]
            wanted, seed = self.settings.sample_rows, self.settings.seed
            # One label after the other: what the sample travelled in is let go.
            samples = [drawn(sides.pop(side), wanted, dim, seed) for side in (True, False)]
            return fit(samples[0], samples[1], threshold, self.settings, self.threads)

    def _assign(
        self, part: ScoredPart, threshold: Threshold, band: Band, model: ClusterModel
    ) -> Iterator[Block | pvalue.TaggedOutput]:
        with metrics.timed(STAGE):
            table = scores.read_columns(self.root, part, _ASSIGNED)
            shown = self.shown.among(table.column("key"))
            near = band.holds(table.column("margin").to_numpy()) & ~shown
            positive, cluster, totals = assign_block(table, model, threshold, near)
            metrics.count(STAGE, "assigned", len(positive))
            # Another seed than the clusters' sample: coverage is measured on other ads.
            ranks = hashing.ranks(table.column("key").to_pylist(), self.settings.seed + 1)
            population = threshold.n_positive + threshold.n_negative
            limit = hashing.sample_limit(self.settings.coverage_rows, population)
            found = _Assigned(table, positive, cluster, scores.number_of(part))
            if (sampled := hashing.below(ranks, limit)).any():
                yield pvalue.TaggedOutput(SAMPLE, found.rows(sampled, _OF_SAMPLE))
            if shown.any():
                yield pvalue.TaggedOutput(SHOWN, found.rows(shown, _OF_SHOWN))
            yield pvalue.TaggedOutput(STATS, totals)
            if near.any():
                yield found.rows(near, _OF_BAND)


@dataclass(frozen=True, slots=True)
class _Assigned:
    """A block with its rows' labels and clusters."""

    table: pa.Table
    positive: np.ndarray
    cluster: np.ndarray
    number: int

    def rows(self, wanted: np.ndarray, columns: Sequence[str]) -> Block:
        """Return some rows, with what was assigned to them and where they stand."""
        at = np.flatnonzero(wanted)
        rows = self.table.select(columns).take(pa.array(at))
        for name, values in (
            ("positive", self.positive[at]),
            ("cluster", self.cluster[at]),
            ("block", np.full(len(at), self.number, dtype=np.int64)),
            ("row", at.astype(np.int32)),
        ):
            rows = rows.append_column(name, pa.array(values))
        return blocks.to_block(rows)


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
            total.band + part.band,
            total.truncated + part.truncated,
        )
    return total
