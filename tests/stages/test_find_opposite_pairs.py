"""Routing, searching and merging against brute force, however the rows are cut."""

from __future__ import annotations

from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from models.neighbors import ExactIndex
from pipelines.contracts import ClusterAssignment, scored_schema
from pipelines.numerics import hashing, kmeans
from pipelines.numerics.calibration import Band
from pipelines.numerics.overlap import Overlap
from pipelines.stages import find_opposite_pairs as stage
from pipelines.stages.cluster_per_label import ClusterModel, ClusterTotals
from pipelines.store import blocks
from pipelines.store.shown import write
from pipelines.text import content_key
from tests.helpers import write_scored_blocks

SPACE = kmeans.VectorSpace(None, None)


def table(rows: int, seed: int, dim: int = 6) -> pa.Table:
    rng = np.random.default_rng(seed)
    keys = [content_key(f"{seed} {n}") for n in range(rows)]
    vectors = rng.normal(size=(rows, dim)).astype(np.float16)
    columns = [
        pa.array(keys),
        pa.array([f"id{n}" for n in range(rows)]),
        pa.array([f"text {n}" for n in range(rows)]),
        pa.array([""] * rows),
        pa.array(np.full(rows, 1000)),
        pa.array(np.ones(rows, dtype=np.int64)),
        pa.array(np.zeros(rows, dtype=np.float32)),
        pa.array(np.ones(rows, dtype=np.int32)),
        pa.array(np.zeros(rows, dtype=bool)),
        blocks.vector_array(vectors),
    ]
    return pa.Table.from_arrays(columns, schema=scored_schema(dim))


def scored_rows(margins: np.ndarray, seed: int = 0) -> pa.Table:
    """Return scored rows of these margins."""
    found = table(len(margins), seed)
    place = found.column_names.index("margin")
    return found.set_column(place, "margin", pa.array(margins, pa.float32()))


def overlap(positive: int, negative: int) -> Overlap:
    return Overlap(positive, negative, 0.5, 1.0, 0.1, 1, 0.1, 1000, 1)


def totals(count: list[int], kp: int) -> ClusterTotals:
    counts = np.asarray(count, dtype=np.int64)
    return ClusterTotals(counts, counts, counts, np.zeros((kp, len(count) - kp), dtype=np.int64))


def brute_force(positives: pa.Table, negatives: pa.Table, m: int) -> set[tuple[str, str]]:
    p = kmeans.project(SPACE, blocks.vectors(positives)).astype(np.float64)
    n = kmeans.project(SPACE, blocks.vectors(negatives)).astype(np.float64)
    found = set()
    names = negatives.column("key").to_pylist()
    for key, row in zip(positives.column("key").to_pylist(), p, strict=True):
        order = np.argsort(((n - row) ** 2).sum(axis=1), kind="stable")[:m]
        found.update((key, names[at]) for at in order)
    return found


def search(negatives: pa.Table, positives: pa.Table, m: int) -> pa.Table:
    index = ExactIndex(kmeans.project(SPACE, blocks.vectors(negatives)))
    return stage.search_part(negatives, positives, index, SPACE, m)


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_split_clusters_give_what_brute_force_gives(parts: int) -> None:
    positives, negatives = table(30, seed=1), table(90, seed=2)
    rank = hashing.ranks(negatives.column("key").to_pylist(), 0) % np.uint64(parts)
    found = [
        search(negatives.filter(pa.array(rank == part)), positives, 4) for part in range(parts)
    ]
    merged = stage.merge_candidates(pa.concat_tables(found).combine_chunks(), 4, 10_000)
    pairs = list(
        zip(merged.column("p_key").to_pylist(), merged.column("n_key").to_pylist(), strict=True)
    )
    assert len(pairs) == len(set(pairs)) == 120
    assert set(pairs) == brute_force(positives, negatives, 4)


def test_mutual_pairs_come_first_and_are_mutual() -> None:
    positives, negatives = table(25, seed=3), table(25, seed=4)
    found = search(negatives, positives, 25)
    merged = stage.merge_candidates(found, 25, 10_000)
    rows = merged.select(["p_key", "n_key", "distance", "mutual"]).to_pylist()
    nearest_n = {}
    nearest_p = {}
    for row in sorted(rows, key=lambda r: r["distance"]):
        nearest_n.setdefault(row["p_key"], row["n_key"])
        nearest_p.setdefault(row["n_key"], row["p_key"])
    for row in rows:
        both = nearest_n[row["p_key"]] == row["n_key"] and nearest_p[row["n_key"]] == row["p_key"]
        assert row["mutual"] == both
    assert [r["mutual"] for r in rows] == sorted((r["mutual"] for r in rows), reverse=True)
    for mutual in (True, False):
        distances = [r["distance"] for r in rows if r["mutual"] == mutual]
        assert distances == sorted(distances)
    assert stage.merge_candidates(found, 25, 7).num_rows == 7


def test_merging_does_not_depend_on_row_order() -> None:
    found = search(table(40, seed=6), table(20, seed=5), 6)
    # Copies lie equally near: only the keys can tell which come first, and which are cut off.
    coarse = np.round(found.column("distance").to_numpy() * 2) / 2
    place = found.column_names.index("distance")
    found = found.set_column(place, "distance", pa.array(coarse, pa.float32()))
    shuffled = found.take(pa.array(np.random.default_rng(0).permutation(found.num_rows)))
    assert stage.merge_candidates(shuffled, 3, 50).equals(stage.merge_candidates(found, 3, 50))


def test_routing_sends_members_of_overlapping_clusters_and_nothing_else() -> None:
    rows = table(200, seed=7)
    rng = np.random.default_rng(0)
    positive = rng.random(200) < 0.3
    cluster = rng.integers(0, 3, 200).astype(np.int32)
    counts = [int((positive & (cluster == c)).sum()) for c in range(3)]
    counts += [int((~positive & (cluster == c)).sum()) for c in range(3)]
    overlaps = [overlap(0, 2), overlap(1, 2), overlap(1, 0)]
    routed = list(
        stage.route(rows, positive, cluster, overlaps, totals(counts, 3), 3, 1000, seed=0)
    )
    sent = {(place, side): set(part.column("key").to_pylist()) for place, (side, part) in routed}
    keys = np.asarray(rows.column("key").to_pylist())

    def members(side: bool, c: int) -> set[str]:
        return set(keys[(positive == side) & (cluster == c)])

    assert sent == {
        ((2, 0), -1): members(False, 2),
        ((0, 0), -1): members(False, 0),
        ((2, 0), 0): members(True, 0),
        ((2, 0), 1): members(True, 1),
        ((0, 0), 1): members(True, 1),
    }


def test_routing_splits_large_negative_clusters_and_thins_large_positive_ones() -> None:
    rows = table(1000, seed=8)
    positive = np.arange(1000) < 400
    cluster = np.zeros(1000, dtype=np.int32)
    routed = list(
        stage.route(rows, positive, cluster, [overlap(0, 0)], totals([400, 600], 1), 1, 100, 0)
    )
    negatives = [part for (_, (side, part)) in routed if side == -1]
    assert len(negatives) == 6
    assert sum(part.num_rows for part in negatives) == 600
    assert {place for place, (side, _) in routed if side == 0} == {(0, n) for n in range(6)}
    sizes = {part.num_rows for _, (side, part) in routed if side == 0}
    assert len(sizes) == 1
    assert 60 < sizes.pop() < 140, "about a hundred of the 400 positives are searched"


def test_candidates_lie_in_the_band_and_were_not_shown(tmp_path: Path) -> None:
    margins = np.arange(-40, 40, dtype=np.float32)
    whole = scored_rows(margins)
    positive = margins >= 0
    keys = whole.column("key").to_pylist()
    shown = frozenset([keys[38], keys[42], keys[0]])
    files = write_scored_blocks(tmp_path, [whole.slice(0, 50), whole.slice(50)])
    parts = [(files[0], positive[:50]), (files[1], positive[50:])]
    zeros = [np.zeros(len(part), dtype="<i4").tobytes() for _, part in parts]
    assignments = [
        ClusterAssignment(file, part.tobytes(), zero)
        for (file, part), zero in zip(parts, zeros, strict=True)
    ]
    one = np.eye(1, 6, dtype=np.float32)
    model = ClusterModel(SPACE, one, one, np.ones((1, 1), dtype=np.int64))
    singles = (model, totals([40, 40], 1), [overlap(0, 0)], Band(-6.0, 5.0))
    with TestPipeline() as pipeline:
        given = [pipeline | "Assigned" >> beam.Create(assignments)]
        for name, value in zip(("Model", "Totals", "Overlaps", "Band"), singles, strict=True):
            given.append(pipeline | name >> beam.Create([value]))
        found = tuple(given) | stage.FindOppositePairs(
            str(tmp_path), write(str(tmp_path), shown), "exact", 3, 1000, 1000, 0
        )
        pairs = found[stage.CANDIDATES] | beam.MapTuple(
            lambda place, block: {
                (row["p_margin"], row["n_margin"]) for row in blocks.from_block(block).to_pylist()
            }
        )
        assert_that(pairs, check_band, label="band")
        rows = found[stage.SHOWN] | beam.FlatMap(
            lambda block: blocks.from_block(block).column("key").to_pylist()
        )
        assert_that(rows, equal_to(sorted(shown)), label="shown")


def check_band(found: list[set[tuple[float, float]]]) -> None:
    [pairs] = found
    assert {p for p, _ in pairs} == {0.0, 1.0, 3.0, 4.0, 5.0}, "2 was shown, 6 lies outside"
    assert len(pairs) == 15
    assert {n for _, n in pairs} <= {-6.0, -5.0, -4.0, -3.0, -1.0}, "-2 was shown"
