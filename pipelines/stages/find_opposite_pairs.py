"""FindOppositePairs: nearest ads of opposite labels in the band around the threshold.

The band is small beside the corpus, so its ads are compared each with each, and what is found nearest is
the nearest there is. Which clusters overlap says where a pair stands, not whether it is found. A band too
large for that is searched inside overlapping cluster pairs alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam import pvalue

from models.neighbors import IndexKind, build_index
from pipelines.console import metrics
from pipelines.contracts import Block
from pipelines.numerics import candidates, hashing, kmeans
from pipelines.numerics.overlap import Overlap
from pipelines.stages.cluster_per_label import ClusterModel, ClusterTotals
from pipelines.stages.gather_rows import is_among
from pipelines.store import blocks

STAGE = "FindOppositePairs"
CANDIDATES, ADS = "candidates", "ads"
_KEYS = ("p_key", "n_key")

# Where ads meet: (negative part, positive part) of an exhaustive search, else (negative cluster, part).
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """What the search depends on.

    Attributes:
        index: ``auto``, ``exact`` or ``scann``; all find the same.
        neighbors: nearest negatives kept of each positive.
        exhaustive_rows: ads of each label that are compared each with each; also the most of a label that
            meet in one worker.
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


def route(
    table: pa.Table,
    overlaps: Sequence[Overlap],
    band: np.ndarray,
    n_positive_clusters: int,
    settings: SearchSettings,
) -> Iterator[tuple[Place, tuple[bool, pa.Table]]]:
    """Send rows of the band to the places where they meet those of the other label.

    Each with each, where that is not too much: in parts of at most ``exhaustive_rows`` of either label,
    every part of one meets every part of the other. Else negative rows go to a part of their cluster, and
    positive rows to every part of the clusters that theirs overlaps with; of a positive cluster with more
    than ``exhaustive_rows`` a uniform hash sample of about that many is searched.

    Args:
        table: rows of the band, see ``ClusterPerLabel``.
        overlaps: the cluster pairs that mix.
        band: int64 (clusters,), rows of the whole band in each cluster, positive ones first.
        n_positive_clusters: how many of them are positive.
        settings: of the search.

    Yields:
        (place, (label, rows)).
    """
    limit = settings.exhaustive_rows
    positive = table.column("positive").to_numpy(zero_copy_only=False)
    cluster = table.column("cluster").to_numpy()
    ranks = hashing.ranks(table.column("key").to_pylist(), settings.seed)
    sizes = (int(band[:n_positive_clusters].sum()), int(band[n_positive_clusters:].sum()))

    def part(members: np.ndarray, number: int, parts: int) -> pa.Table:
        return table.filter(pa.array(members & (ranks % np.uint64(parts) == number)))

    if is_exhaustive(*sizes, limit):
        n_parts, p_parts = parts_of(sizes[1], limit), parts_of(sizes[0], limit)
        for a in range(n_parts):
            for b in range(p_parts):
                yield (a, b), (False, part(~positive, a, n_parts))
                yield (a, b), (True, part(positive, b, p_parts))
        return
    partners: dict[int, list[int]] = {}
    for overlap in overlaps:
        partners.setdefault(overlap.negative, []).append(overlap.positive)
    for j, mixed in sorted(partners.items()):
        parts = parts_of(int(band[n_positive_clusters + j]), limit)
        shares = {i: limit / max(int(band[i]), 1) for i in sorted(mixed)}
        chosen = np.zeros(len(positive), dtype=bool)
        for i, share in shares.items():
            chosen |= positive & (cluster == i) & hashing.below(ranks, share)
        positives = table.filter(pa.array(chosen))
        for number in range(parts):
            yield (j, number), (False, part(~positive & (cluster == j), number, parts))
            yield (j, number), (True, positives)


def search_part(
    positives: pa.Table,
    negatives: pa.Table,
    model: ClusterModel,
    overlaps: Sequence[Overlap],
    settings: SearchSettings,
    threads: int = 1,
) -> pa.Table:
    """Return the ``neighbors`` nearest negatives of every positive.

    Args:
        positives: rows of the band, in any order; so are ``negatives``.
        negatives: at least one.
        model: the clusters, and the space that distances are measured in.
        overlaps: the cluster pairs that mix.
        settings: of the search.
        threads: blocks of positives that are searched side by side.

    Returns:
        columns ``p_key``, ``n_key``, ``distance`` (float32), ``overlap`` (int32, see :func:`home_of`) and
        ``mass`` (int64) of that.
    """
    # Ads of a cluster lie near one another: together they are told apart faster where all of them do.
    positives = positives.sort_by([("cluster", "ascending"), ("key", "ascending")])
    negatives = blocks.sort_by_key(negatives)
    index = build_index(kmeans.project(model.space, blocks.vectors(negatives)), settings.index)
    queries = kmeans.project(model.space, blocks.vectors(positives))
    found, distances = index.search(queries, settings.neighbors, threads)
    rows, columns = np.repeat(np.arange(len(found)), found.shape[1]), found.ravel()
    left, right = (table.column("cluster").to_numpy() for table in (positives, negatives))
    home = home_of(overlaps, (len(model.positive), len(model.negative)))
    overlap = home[left[rows], right[columns]]
    mass = np.asarray([overlap.mass for overlap in overlaps], dtype=np.int64)
    table = {
        "p_key": positives.column("key").take(pa.array(rows)),
        "n_key": negatives.column("key").take(pa.array(columns)),
        "distance": pa.array(distances.ravel()),
        "overlap": pa.array(overlap),
        "mass": pa.array(mass[overlap]),
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
        known = tuple(map(pvalue.AsSingleton, (model, totals, overlaps)))
        pool = (
            band
            | "Route" >> beam.FlatMap(self._route, *known)
            | "Meet" >> beam.GroupByKey()
            | "Search" >> beam.FlatMap(self._search, *known)
            | "GroupByPositive" >> beam.GroupByKey()
            | "KeepNearest" >> beam.FlatMap(self._keep_nearest, known[1])
            | "GroupByNegative" >> beam.GroupByKey()
            | "MarkMutual" >> beam.Map(_mark_mutual)
            | "KeepPool" >> beam.CombineGlobally(_pooled, self.settings.max_candidates)
        )
        keys = pool | "KeysOfPool" >> beam.Map(_keys_of)
        ads = band | "RowsOfPool" >> beam.FlatMap(_rows_of, pvalue.AsSingleton(keys))
        return {CANDIDATES: pool, ADS: ads}

    def _route(
        self, block: Block, model: ClusterModel, totals: ClusterTotals, overlaps: list[Overlap]
    ) -> Iterator[tuple[Place, tuple[bool, Block]]]:
        with metrics.timed(STAGE):
            table = blocks.from_block(block)
            routed = route(table, overlaps, totals.band, len(model.positive), self.settings)
            for place, (positive, rows) in routed:
                if rows.num_rows:
                    metrics.count(STAGE, "routed", rows.num_rows if positive else 0)
                    yield place, (positive, blocks.to_block(rows))

    def _search(
        self,
        item: tuple[Place, Iterable[tuple[bool, Block]]],
        model: ClusterModel,
        totals: ClusterTotals,
        overlaps: list[Overlap],
    ) -> Iterator[tuple[int, Block]]:
        with metrics.timed(STAGE):
            sides: dict[bool, list[Block]] = {True: [], False: []}
            for positive, block in item[1]:
                sides[positive].append(block)
            if not (sides[True] and sides[False]):
                return
            positives, negatives = blocks.concat(sides[True]), blocks.concat(sides[False])
            metrics.count(STAGE, "queries", positives.num_rows)
            found = search_part(positives, negatives, model, overlaps, self.settings, self.threads)
            yield from self._sharded(found, "p_key", totals)

    def _keep_nearest(
        self, item: tuple[int, Iterable[Block]], totals: ClusterTotals
    ) -> Iterator[tuple[int, Block]]:
        with metrics.timed(STAGE):
            found = keep_nearest(blocks.concat(list(item[1])), self.settings.neighbors)
            metrics.count(STAGE, "candidates", found.num_rows)
            yield from self._sharded(found, "n_key", totals)

    def _sharded(
        self, table: pa.Table, key: str, totals: ClusterTotals
    ) -> Iterator[tuple[int, Block]]:
        """Yield a table's rows in shards by a key: all candidates of an ad come together."""
        shards = parts_of(int(totals.band.sum()), 2 * self.settings.exhaustive_rows)
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
