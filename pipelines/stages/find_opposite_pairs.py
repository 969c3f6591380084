"""FindOppositePairs: nearest ads of opposite labels inside overlapping cluster pairs.

One shuffle: members of overlapping clusters go to their negative cluster's worker, as blocks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam import pvalue

from models.neighbors import IndexKind, NeighborIndex, build_index
from pipelines.console import metrics
from pipelines.contracts import Block, ClusterAssignment
from pipelines.numerics import hashing, kmeans
from pipelines.numerics.calibration import Band
from pipelines.numerics.overlap import Overlap
from pipelines.stages.cluster_per_label import ClusterModel, ClusterTotals
from pipelines.store import blocks, scores
from pipelines.store.shown import Shown

STAGE = "FindOppositePairs"
CANDIDATES, SHOWN = "candidates", "shown"
# Of one cluster pair and one part of its negatives, at most so many nearest pairs are merged.
_MAX_PAIRS_PER_PART = 100_000
_NEGATIVES = -1

# (negative cluster, part of it)
_Place = tuple[int, int]


def parts_of(count: int, max_rows: int) -> int:
    """Return into how many parts a negative cluster of ``count`` rows is split."""
    return max(1, -(-count // max_rows))


def route(
    table: pa.Table,
    positive: np.ndarray,
    cluster: np.ndarray,
    overlaps: Sequence[Overlap],
    totals: ClusterTotals,
    n_positive_clusters: int,
    max_rows: int,
    seed: int,
) -> Iterator[tuple[_Place, tuple[int, pa.Table]]]:
    """Send a block's rows to the workers that search for them.

    Negative rows go to their cluster's part; positive rows to every part of every negative
    cluster that theirs overlaps with. Of a positive cluster with more than ``max_rows`` members
    a uniform hash sample of about that many is searched.

    Args:
        table: a scored block.
        positive: bool (rows,).
        cluster: int32 (rows,).
        overlaps: the cluster pairs to search.
        totals: sums over all rows, for the cluster sizes.
        n_positive_clusters: how many of ``totals``' clusters are positive.
        max_rows: largest part, rows.
        seed: of the hash.

    Yields:
        ((negative cluster, part), (positive cluster or -1 for negatives, rows)).
    """
    ranks = hashing.ranks(table.column("key").to_pylist(), seed)
    counts = totals.count
    for j in sorted({overlap.negative for overlap in overlaps}):
        parts = parts_of(int(counts[n_positive_clusters + j]), max_rows)
        members = ~positive & (cluster == j)
        for part in range(parts):
            rows = np.flatnonzero(members & (ranks % np.uint64(parts) == part))
            if len(rows):
                yield (j, part), (_NEGATIVES, table.take(pa.array(rows)))
    partners: dict[int, list[int]] = {}
    for overlap in overlaps:
        partners.setdefault(overlap.positive, []).append(overlap.negative)
    for i, negatives in sorted(partners.items()):
        share = max_rows / max(int(counts[i]), 1)
        rows = np.flatnonzero(positive & (cluster == i) & hashing.below(ranks, share))
        if not len(rows):
            continue
        chosen = table.take(pa.array(rows))
        for j in sorted(negatives):
            for part in range(parts_of(int(counts[n_positive_clusters + j]), max_rows)):
                yield (j, part), (i, chosen)


def search_part(
    negatives: pa.Table,
    positives: pa.Table,
    index: NeighborIndex,
    space: kmeans.VectorSpace,
    neighbors: int,
) -> pa.Table:
    """Return the ``neighbors`` nearest negatives of every positive as candidate rows.

    ``index`` holds the negatives' vectors, projected into ``space``, in the table's order.

    Columns: the positive's with prefix ``p_``, the negative's with prefix ``n_``, and
    ``distance`` (float32).
    """
    queries = kmeans.project(space, blocks.vectors(positives))
    found, distances = index.search(queries, neighbors)
    per_query = found.shape[1]
    query_rows = np.repeat(np.arange(len(queries)), per_query)
    if len(query_rows) > _MAX_PAIRS_PER_PART:
        nearest = np.argsort(distances.ravel(), kind="stable")[:_MAX_PAIRS_PER_PART]
    else:
        nearest = np.arange(len(query_rows))
    left = positives.take(pa.array(query_rows[nearest]))
    right = negatives.take(pa.array(found.ravel()[nearest].astype(np.int64)))
    names = [f"p_{name}" for name in left.column_names]
    names += [f"n_{name}" for name in right.column_names] + ["distance"]
    columns = [*left.columns, *right.columns, pa.array(distances.ravel()[nearest], pa.float32())]
    return pa.Table.from_arrays(columns, names=names)


def merge_candidates(table: pa.Table, neighbors: int, limit: int) -> pa.Table:
    """Merge the candidates of one cluster pair from all parts.

    Keeps each positive's nearest, marks mutual nearest pairs (column ``mutual``), and keeps the
    first ``limit`` rows: mutual ones first, then by distance, then by keys.
    """
    p_keys = np.asarray(table.column("p_key").to_pylist())
    n_keys = np.asarray(table.column("n_key").to_pylist())
    distance = table.column("distance").to_numpy()
    order = np.lexsort((n_keys, distance, p_keys))
    starts = np.flatnonzero(np.r_[True, p_keys[order][1:] != p_keys[order][:-1]])
    place = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    kept = order[place < neighbors]
    first_of_p = np.zeros(len(table), dtype=bool)
    first_of_p[order[starts]] = True
    by_negative = kept[np.lexsort((p_keys[kept], distance[kept], n_keys[kept]))]
    first_of_n = np.zeros(len(table), dtype=bool)
    new = np.r_[True, n_keys[by_negative][1:] != n_keys[by_negative][:-1]]
    first_of_n[by_negative[new]] = True
    mutual = first_of_p & first_of_n
    final = kept[np.lexsort((n_keys[kept], p_keys[kept], distance[kept], ~mutual[kept]))][:limit]
    merged = table.take(pa.array(final))
    return merged.append_column("mutual", pa.array(mutual[final]))


@dataclasses.dataclass(eq=False)
class FindOppositePairs(beam.PTransform):
    """Find candidate pairs.

    Input: ``PCollection[ClusterAssignment]`` and singletons model, totals, overlaps and the band
    of margins that pairs are made of (far from the threshold the model is not confused). Output:
    a dict of ``candidates`` (``PCollection`` of ((positive, negative cluster), Block)) and
    ``shown`` (``PCollection[Block]``: rows of ads that experts saw in earlier rounds).

    Args:
        root: the workspace.
        shown: ads that were shown before; they are no candidates.
        index: ``auto``, ``exact`` or ``scann``.
        neighbors: nearest negatives kept of each positive.
        max_cluster_rows: largest set that one worker searches, rows.
        max_candidates: candidates kept of each cluster pair.
        seed: of the hash that splits large clusters.
    """

    root: str
    shown: Shown
    index: IndexKind
    neighbors: int
    max_cluster_rows: int
    max_candidates: int
    seed: int

    def expand(
        self,
        inputs: tuple[
            beam.PCollection[ClusterAssignment],
            beam.PCollection[ClusterModel],
            beam.PCollection[ClusterTotals],
            beam.PCollection[list[Overlap]],
            beam.PCollection[Band],
        ],
    ) -> dict[str, beam.PCollection]:
        """Apply the transform."""
        assignments, model, totals, overlaps, band = inputs
        routed = assignments | "Route" >> beam.FlatMap(
            self._route,
            pvalue.AsSingleton(model),
            pvalue.AsSingleton(totals),
            pvalue.AsSingleton(overlaps),
            pvalue.AsSingleton(band),
        ).with_outputs(SHOWN, main=CANDIDATES)
        candidates = (
            routed[CANDIDATES]
            | "GroupByNegativeCluster" >> beam.GroupByKey()
            | "Search"
            >> beam.FlatMap(_search, self.index, self.neighbors, pvalue.AsSingleton(model))
            | "GroupByClusterPair" >> beam.GroupByKey()
            | "Merge" >> beam.Map(_merge, self.neighbors, self.max_candidates)
        )
        return {CANDIDATES: candidates, SHOWN: routed[SHOWN]}

    def _route(
        self,
        assignment: ClusterAssignment,
        model: ClusterModel,
        totals: ClusterTotals,
        overlaps: list[Overlap],
        band: Band,
    ) -> Iterator[tuple[_Place, tuple[int, Block]] | pvalue.TaggedOutput]:
        with metrics.timed(STAGE):
            positive = np.frombuffer(assignment.positive, dtype=bool)
            cluster = np.frombuffer(assignment.cluster, dtype="<i4")
            searched = np.where(
                positive,
                np.isin(cluster, [overlap.positive for overlap in overlaps]),
                np.isin(cluster, [overlap.negative for overlap in overlaps]),
            )
            with scores.OpenPart(self.root, assignment.part) as block:
                table = block.columns(["key", "margin"] if self.shown else ["margin"])
                shown = np.zeros(len(positive), dtype=bool)
                if self.shown:
                    shown = self.shown.among(table.column("key"))
                near = band.holds(table.column("margin").to_numpy()) & searched & ~shown
                found = block.rows(near | shown)
            if shown.any():
                rows = found.filter(pa.array(shown[near | shown]))
                yield pvalue.TaggedOutput(SHOWN, blocks.to_block(rows))
            routed = route(
                found.filter(pa.array(near[near | shown])),
                positive[near],
                cluster[near],
                overlaps,
                totals,
                len(model.positive),
                self.max_cluster_rows,
                self.seed,
            )
            for place, (side, rows) in routed:
                if side != _NEGATIVES:
                    metrics.count(STAGE, "routed", rows.num_rows)
                yield place, (side, blocks.to_block(rows))


def _search(
    item: tuple[_Place, Iterable[tuple[int, Block]]],
    kind: IndexKind,
    neighbors: int,
    model: ClusterModel,
) -> Iterator[tuple[tuple[int, int], Block]]:
    with metrics.timed(STAGE):
        (j, _), members = item
        sides: dict[int, list[Block]] = {}
        for side, block in members:
            sides.setdefault(side, []).append(block)
        rows = sides.pop(_NEGATIVES, None)
        if not rows:
            return
        negatives = blocks.sort_by_key(blocks.concat(rows))
        # The index is built once for all positive clusters that meet here.
        data = kmeans.project(model.space, blocks.vectors(negatives))
        index = build_index(data, kind=kind)
        for i, found in sorted(sides.items()):
            positives = blocks.sort_by_key(blocks.concat(found))
            metrics.count(STAGE, "queries", positives.num_rows)
            candidates = search_part(negatives, positives, index, model.space, neighbors)
            yield (i, j), blocks.to_block(candidates)


def _merge(
    item: tuple[tuple[int, int], Iterable[Block]], neighbors: int, limit: int
) -> tuple[tuple[int, int], Block]:
    with metrics.timed(STAGE):
        place, parts = item
        table = blocks.concat(list(parts))
        metrics.count(STAGE, "candidates", table.num_rows)
        return place, blocks.to_block(merge_candidates(table, neighbors, limit))
