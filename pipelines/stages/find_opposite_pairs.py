"""FindOppositePairs: nearest ads of opposite labels in the band around the threshold.

The band is small beside the corpus, so its ads are compared each with each, and what is found nearest is
the nearest there is. Which clusters overlap says where a pair stands, not whether it is found. In a band too
large for that an ad is compared with the clusters that mix with its own or lie nearest to it, as many as
there is time for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam import pvalue
from scipy.spatial.distance import cdist

from models.neighbors import IndexKind, build_index
from pipelines.console import metrics
from pipelines.contracts import Block
from pipelines.numerics import candidates, hashing, kmeans
from pipelines.numerics.overlap import Overlap
from pipelines.numerics.threads import one_blas_thread
from pipelines.stages.cluster_per_label import ClusterModel, ClusterTotals
from pipelines.stages.gather_rows import is_among
from pipelines.store import blocks

STAGE = "FindOppositePairs"
CANDIDATES, ADS = "candidates", "ads"
_KEYS = ("p_key", "n_key")

# Where ads meet: part of the negatives, part of the positives.
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """What the search depends on.

    Attributes:
        index: ``auto``, ``exact`` or ``scann``; all find the same.
        neighbors: nearest negatives kept of each positive.
        exhaustive_rows: ads of each label that are compared each with each; also about the most of a label
            that meet in one worker.
        max_candidates: candidate pairs kept in all.
        seed: of the hash that splits large sets.
    """

    index: IndexKind
    neighbors: int
    exhaustive_rows: int
    max_candidates: int
    seed: int


def is_exhaustive(n_positive: int, n_negative: int, exhaustive_rows: int) -> bool:
    """Tell whether a band of so many ads of each label is compared each with each."""
    return n_positive * n_negative <= exhaustive_rows**2


def parts_of(count: int, max_rows: int) -> int:
    """Return into how many parts ``count`` rows are split."""
    return max(1, -(-count // max_rows))


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """Which ads of the band are compared, and where they meet.

    Attributes:
        searched: bool (kp, kn), clusters whose ads are compared.
        first, parts: int64 (kn,), the first part of each negative cluster's ads, and how many.
        positive_parts: how many parts the positives make.
        shards: into how many parts candidates are cut while they are merged.
    """

    searched: np.ndarray
    first: np.ndarray
    parts: np.ndarray
    positive_parts: int
    shards: int


def plan_search(
    model: ClusterModel,
    overlaps: Sequence[Overlap],
    band: np.ndarray,
    exhaustive_rows: int,
) -> SearchPlan:
    """Plan the search of a band.

    All its ads are compared, where that is not too much. Else those of clusters that overlap, and of each
    positive cluster with the nearest negative ones: with that share of all which makes as many
    comparisons as the largest whole search.

    Args:
        model: the clusters.
        overlaps: those that mix.
        band: int64 (kp + kn,), rows of the whole band in each, positive ones first.
        exhaustive_rows: see :class:`SearchSettings`.
    """
    kp, kn = len(model.positive), len(model.negative)
    n_positive, n_negative = int(band[:kp].sum()), int(band[kp:].sum())
    searched = np.ones((kp, kn), dtype=bool)
    if not is_exhaustive(n_positive, n_negative, exhaustive_rows):
        near = exhaustive_rows**2 * kn // (n_positive * n_negative)
        away = cdist(model.positive.astype(np.float64), model.negative.astype(np.float64))
        searched[:] = False
        nearest = np.argsort(away, axis=1, kind="stable")[:, :near]
        np.put_along_axis(searched, nearest, True, axis=1)
        for overlap in overlaps:
            searched[overlap.positive, overlap.negative] = True
    first, parts = pack(band[kp:], exhaustive_rows)
    return SearchPlan(
        searched,
        first,
        parts,
        parts_of(n_positive, exhaustive_rows),
        parts_of(n_positive + n_negative, 2 * exhaustive_rows),
    )


def pack(counts: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Pack clusters into parts of at most ``limit`` rows; a larger cluster fills parts of its own.

    Args:
        counts: int64 (k,), rows of each.
        limit: at least 1.

    Returns:
        int64 (k,) each: a cluster's first part, and how many it has.
    """
    parts = np.maximum(-(-counts // limit), 1)
    first = np.zeros(len(parts), dtype=np.int64)
    part, free = 0, limit
    for number, (count, own) in enumerate(zip(counts.tolist(), parts.tolist(), strict=True)):
        if count > free:
            part, free = part + 1, limit
        first[number] = part
        free -= count
        if own > 1:
            part, free = part + own, limit
    return first, parts


def route(
    table: pa.Table, plan: SearchPlan, seed: int
) -> Iterator[tuple[Place, tuple[bool, pa.Table]]]:
    """Send rows of the band to the places where they meet those of the other label.

    Negatives lie in parts of whole clusters, as far as these are small enough, positives in parts by
    hash. A positive goes wherever a cluster lies that its own is searched with.

    Args:
        table: rows of the band, see ``ClusterPerLabel``.
        plan: of the search.
        seed: of the hash.

    Yields:
        (place, (label, rows)), some of them without rows.
    """
    positive = table.column("positive").to_numpy(zero_copy_only=False)
    cluster = table.column("cluster").to_numpy()
    ranks = hashing.ranks(table.column("key").to_pylist(), seed)
    own = np.where(positive, 0, cluster)
    n_part = plan.first[own] + (ranks % plan.parts[own].astype(np.uint64)).astype(np.int64)
    p_part = ranks % np.uint64(plan.positive_parts)
    last = plan.first + plan.parts
    for a in range(int(last.max())):
        there = np.asarray(plan.searched[:, (plan.first <= a) & (a < last)].any(axis=1))
        met = positive & there[np.where(positive, cluster, 0)]
        negatives = table.filter(pa.array(~positive & (n_part == a)))
        for b in range(plan.positive_parts):
            yield (a, b), (False, negatives)
            yield (a, b), (True, table.filter(pa.array(met & (p_part == b))))


def search_part(
    positives: pa.Table,
    negatives: pa.Table,
    model: ClusterModel,
    overlaps: Sequence[Overlap],
    searched: np.ndarray,
    settings: SearchSettings,
    threads: int = 1,
) -> pa.Table:
    """Return the ``neighbors`` nearest negatives of every positive, among those it is compared with.

    Args:
        positives: rows of the band, in any order; so are ``negatives``.
        negatives: at least one.
        model: the clusters, and the space that distances are measured in.
        overlaps: the cluster pairs that mix.
        searched: bool (kp, kn), clusters whose ads are compared.
        settings: of the search.
        threads: blocks of positives that are searched side by side.

    Returns:
        columns ``p_key``, ``n_key``, ``distance`` (float32), ``overlap`` (int32, see :func:`home_of`) and
        ``mass`` (int64) of that.
    """
    # Ads of a cluster lie near one another: together they are told apart faster where all of them do.
    order = [("cluster", "ascending"), ("key", "ascending")]
    positives, negatives = positives.sort_by(order), blocks.sort_by_key(negatives)
    left, right = (table.column("cluster").to_numpy() for table in (positives, negatives))
    queries, data = (
        kmeans.project(model.space, blocks.vectors(table)) for table in (positives, negatives)
    )
    found = []
    everywhere = bool(searched[np.ix_(np.unique(left), np.unique(right))].all())
    for j in [None] if everywhere else np.unique(right).tolist():
        rows = np.arange(len(queries)) if j is None else np.flatnonzero(searched[left, j])
        columns = np.arange(len(data)) if j is None else np.flatnonzero(right == j)
        if len(rows):
            index = build_index(data[columns], settings.index)
            near, distances = index.search(queries[rows], settings.neighbors, threads)
            found.append((np.repeat(rows, near.shape[1]), columns[near.ravel()], distances.ravel()))
    empty = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
    rows, columns, distances = (np.concatenate(parts) for parts in zip(empty, *found, strict=True))
    home = home_of(overlaps, searched.shape)[left[rows], right[columns]]
    masses = np.asarray([overlap.mass for overlap in overlaps], dtype=np.int64)
    table = {
        "p_key": positives.column("key").take(pa.array(rows)),
        "n_key": negatives.column("key").take(pa.array(columns)),
        "distance": pa.array(distances),
        "overlap": pa.array(home),
        "mass": pa.array(masses[home]),
    }
    return pa.table(table).combine_chunks()


def home_of(overlaps: Sequence[Overlap], shape: tuple[int, int]) -> np.ndarray:
    """Return where pairs of each two clusters stand: int32 (kp, kn), an index into the overlaps.

    Two clusters that are no overlap are counted for the one that mixes most with the positive cluster:
    a nearest pair is no worse for its clusters, but it makes no place of its own among those that mix.
    """
    home = np.full(shape, -1, dtype=np.int32)
    for number in reversed(range(len(overlaps))):
        home[overlaps[number].positive] = number
    for number, overlap in enumerate(overlaps):
        home[overlap.positive, overlap.negative] = number
    return home


def keep_nearest(table: pa.Table, neighbors: int) -> pa.Table:
    """Keep of all candidates of some positives the nearest of each; column ``partner_rank`` (int32)."""
    p_keys, n_keys, distance = _arrays(table)
    kept, rank = candidates.keep_nearest(p_keys, n_keys, distance, neighbors)
    ranks = pa.array(rank.astype(np.int32))
    return table.take(pa.array(kept)).append_column("partner_rank", ranks)


def mark_mutual(table: pa.Table) -> pa.Table:
    """Tell of all candidates of some negatives which are each other's nearest; column ``mutual``."""
    p_keys, n_keys, distance = _arrays(table)
    nearest = table.column("partner_rank").to_numpy() == 1
    found = candidates.mutual(p_keys, n_keys, distance, nearest)
    return table.append_column("mutual", pa.array(found))


def pool_of(tables: Iterable[pa.Table], limit: int) -> pa.Table:
    """Return the candidates that a selection chooses from: of each overlap mutual pairs, then nearest.

    Args:
        tables: of :func:`mark_mutual`, or of this function.
        limit: pairs kept; see ``candidates.seats`` for how overlaps share it.
    """
    table = pa.concat_tables(list(tables)).combine_chunks()
    p_keys, n_keys, distance = _arrays(table)
    alone = ~table.column("mutual").to_numpy(zero_copy_only=False)
    overlap, mass = (table.column(name).to_numpy() for name in ("overlap", "mass"))
    kept = candidates.seats(overlap, mass, (n_keys, p_keys, distance, alone), limit)
    return table.take(pa.array(kept))


def _arrays(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return both keys as bytes, and the distances."""
    p_keys, n_keys = (
        np.asarray(table.column(name).to_pylist(), dtype=f"S{hashing.KEY_CHARS}") for name in _KEYS
    )
    return p_keys, n_keys, table.column("distance").to_numpy()


@dataclasses.dataclass(eq=False)
class FindOppositePairs(beam.PTransform):
    """Find candidate pairs.

    Input: the band's rows (``PCollection[Block]``) and singletons model, totals and overlaps. Output: a
    dict of ``candidates`` (a singleton ``PCollection[Block]``: the columns of :func:`search_part` with
    partner_rank and mutual, at most ``max_candidates`` rows; no table where there are none) and ``ads`` (``PCollection[Block]``:
    the band's rows of their ads).

    Memory of a searching worker: ``exhaustive_rows`` rows of either label, about ``8 * dim + 200`` bytes
    each, and ``neighbors`` candidates of about 100 bytes each. Of the one that holds the pool: at most
    eleven times ``max_candidates`` such candidates.

    Args:
        settings: see :class:`SearchSettings`.
        threads: blocks that one search works on at once.
    """

    settings: SearchSettings
    threads: int = 1

    def expand(
        self,
        inputs: tuple[
            beam.PCollection[Block],
            beam.PCollection[ClusterModel],
            beam.PCollection[ClusterTotals],
            beam.PCollection[list[Overlap]],
        ],
    ) -> dict[str, beam.PCollection]:
        """Apply the transform."""
        band, model, totals, overlaps = inputs
        beside = pvalue.AsSingleton(totals), pvalue.AsSingleton(overlaps)
        plan = pvalue.AsSingleton(model | "PlanSearch" >> beam.Map(self._plan, *beside))
        pool = (
            band
            | "Route" >> beam.FlatMap(self._route, plan)
            | "Meet" >> beam.GroupByKey()
            | "Search" >> beam.FlatMap(self._search, plan, pvalue.AsSingleton(model), beside[1])
            | "GroupByPositive" >> beam.GroupByKey()
            | "KeepNearest" >> beam.FlatMap(self._keep_nearest, plan)
            | "GroupByNegative" >> beam.GroupByKey()
            | "MarkMutual" >> beam.Map(_mark_mutual)
            | "KeepPool" >> beam.CombineGlobally(_pooled, self.settings.max_candidates)
        )
        keys = pool | "KeysOfPool" >> beam.Map(_keys_of)
        ads = band | "RowsOfPool" >> beam.FlatMap(_rows_of, pvalue.AsSingleton(keys))
        return {CANDIDATES: pool, ADS: ads}

    def _plan(
        self, model: ClusterModel, totals: ClusterTotals, overlaps: list[Overlap]
    ) -> SearchPlan:
        return plan_search(model, overlaps, totals.band, self.settings.exhaustive_rows)

    def _route(self, block: Block, plan: SearchPlan) -> Iterator[tuple[Place, tuple[bool, Block]]]:
        with metrics.timed(STAGE):
            for place, (positive, rows) in route(
                blocks.from_block(block), plan, self.settings.seed
            ):
                if rows.num_rows:
                    metrics.count(STAGE, "routed", rows.num_rows if positive else 0)
                    yield place, (positive, blocks.to_block(rows))

    def _search(
        self,
        item: tuple[Place, Iterable[tuple[bool, Block]]],
        plan: SearchPlan,
        model: ClusterModel,
        overlaps: list[Overlap],
    ) -> Iterator[tuple[int, Block]]:
        with metrics.timed(STAGE), one_blas_thread():
            sides: dict[bool, list[Block]] = {True: [], False: []}
            for positive, block in item[1]:
                sides[positive].append(block)
            if not (sides[True] and sides[False]):
                return
            positives, negatives = blocks.concat(sides[True]), blocks.concat(sides[False])
            metrics.count(STAGE, "queries", positives.num_rows)
            found = search_part(
                positives, negatives, model, overlaps, plan.searched, self.settings, self.threads
            )
            yield from self._sharded(found, "p_key", plan.shards)

    def _keep_nearest(
        self, item: tuple[int, Iterable[Block]], plan: SearchPlan
    ) -> Iterator[tuple[int, Block]]:
        with metrics.timed(STAGE):
            found = keep_nearest(blocks.concat(list(item[1])), self.settings.neighbors)
            metrics.count(STAGE, "candidates", found.num_rows)
            yield from self._sharded(found, "n_key", plan.shards)

    def _sharded(self, table: pa.Table, key: str, shards: int) -> Iterator[tuple[int, Block]]:
        """Yield a table's rows in shards by a key: all candidates of an ad come together."""
        if shards == 1:
            yield 0, blocks.to_block(table)
            return
        ranks = hashing.ranks(table.column(key).to_pylist(), self.settings.seed)
        for shard in range(shards):
            rows = table.filter(pa.array(ranks % np.uint64(shards) == shard))
            if rows.num_rows:
                yield shard, blocks.to_block(rows)


def _mark_mutual(item: tuple[int, Iterable[Block]]) -> Block:
    with metrics.timed(STAGE):
        return blocks.to_block(mark_mutual(blocks.concat(list(item[1]))))


def _pooled(found: Iterable[Block], limit: int) -> Block:
    tables = [blocks.from_block(block) for block in found if block.rows]
    return blocks.to_block(pool_of(tables, limit)) if tables else Block(0, b"")


def _keys_of(pool: Block) -> frozenset[str]:
    if not pool.rows:
        return frozenset()
    table = blocks.from_block(pool)
    return frozenset(key for name in _KEYS for key in table.column(name).to_pylist())


def _rows_of(block: Block, keys: frozenset[str]) -> Iterator[Block]:
    table = blocks.from_block(block)
    wanted = is_among(table, keys)
    if wanted.any():
        yield blocks.to_block(table.filter(pa.array(wanted)))
