"""Routing, searching and merging against brute force, however the rows are cut."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that

from pipelines.contracts import CANDIDATE_SCHEMA, Block, scored_schema
from pipelines.numerics import kmeans
from pipelines.numerics.overlap import Overlap
from pipelines.stages import find_opposite_pairs as stage
from pipelines.stages.cluster_per_label import ClusterModel, ClusterTotals
from pipelines.store import blocks
from pipelines.text import content_key

SPACE = kmeans.VectorSpace(None, None)
# What a pipeline gave: functions of a module are not copied on their way into it.
FOUND: dict[str, list[Block]] = {}
SETTINGS = stage.SearchSettings("exact", 4, 1000, 10_000, 0)


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


def overlap(positive: int, negative: int, mass: int = 1000) -> Overlap:
    return Overlap(positive, negative, 0.5, 1.0, 0.1, 1, 0.1, mass, 1)


def in_band(rows: pa.Table, positive: np.ndarray, cluster: np.ndarray | int = 0) -> pa.Table:
    """Return scored rows as they leave ``ClusterPerLabel``, all of one block."""
    n = rows.num_rows
    found = rows.append_column("positive", pa.array(np.broadcast_to(positive, n)))
    cluster = np.broadcast_to(np.asarray(cluster, dtype=np.int32), n)
    found = found.append_column("cluster", pa.array(cluster))
    found = found.append_column("block", pa.array(np.full(n, 7, dtype=np.int64)))
    return found.append_column("row", pa.array(np.arange(n, dtype=np.int32)))


def model_of(kp: int, kn: int, dim: int = 6) -> ClusterModel:
    """Return clusters of which no more is asked than how many there are."""
    zeros = (np.zeros((k, dim), dtype=np.float32) for k in (kp, kn))
    return ClusterModel(SPACE, *zeros, np.zeros((kp, kn), dtype=np.int64))


def totals(band: Iterable[int], kp: int) -> ClusterTotals:
    counts = np.asarray(list(band), dtype=np.int64)
    nearer = np.zeros((kp, len(counts) - kp), dtype=np.int64)
    return ClusterTotals(counts, counts, counts, nearer, counts)


def search(positives: pa.Table, negatives: pa.Table, m: int) -> pa.Table:
    """Return the candidates of two labels of one cluster each."""
    settings = dataclasses.replace(SETTINGS, neighbors=m)
    rows = in_band(positives, True), in_band(negatives, False)
    searched = np.ones((1, 1), dtype=bool)
    found = stage.search_part(*rows, model_of(1, 1), [overlap(0, 0)], searched, settings)
    return stage.mark_mutual(stage.keep_nearest(found, m))


def pairs_of(found: pa.Table) -> list[tuple[str, str]]:
    return list(
        zip(found.column("p_key").to_pylist(), found.column("n_key").to_pylist(), strict=True)
    )


def brute_force(positives: pa.Table, negatives: pa.Table, m: int) -> set[tuple[str, str]]:
    p = kmeans.project(SPACE, blocks.vectors(positives)).astype(np.float64)
    n = kmeans.project(SPACE, blocks.vectors(negatives)).astype(np.float64)
    found = set()
    names = negatives.column("key").to_pylist()
    for key, row in zip(positives.column("key").to_pylist(), p, strict=True):
        order = np.argsort(((n - row) ** 2).sum(axis=1), kind="stable")[:m]
        found.update((key, names[at]) for at in order)
    return found


def _keep(name: str, got: list[Block]) -> None:
    FOUND[name] = got


def run(
    rows: pa.Table, kp: int, kn: int, overlaps: list[Overlap], cut: int, **changes: int
) -> list:
    """Run the stage on a band in blocks of some size; candidates and their ads, as tables."""
    settings = dataclasses.replace(SETTINGS, **changes)
    positive = rows.column("positive").to_numpy(zero_copy_only=False)
    cluster = rows.column("cluster").to_numpy()
    band = np.bincount(np.where(positive, cluster, kp + cluster), minlength=kp + kn)
    given = [blocks.to_block(rows.slice(at, cut)) for at in range(0, rows.num_rows, cut)]
    FOUND.clear()
    with TestPipeline() as pipeline:
        inputs = [pipeline | "Band" >> beam.Create(given)]
        for name, value in (
            ("Model", model_of(kp, kn)),
            ("Totals", totals(band, kp)),
            ("Overlaps", overlaps),
        ):
            inputs.append(pipeline | name >> beam.Create([value]))
        out = tuple(inputs) | stage.FindOppositePairs(settings)
        for name in (stage.CANDIDATES, stage.ADS):
            assert_that(out[name], functools.partial(_keep, name), label=name)
    [pool], ads = FOUND[stage.CANDIDATES], FOUND[stage.ADS]
    tables = [blocks.from_block(pool) if pool.rows else CANDIDATE_SCHEMA.empty_table()]
    return [*tables, blocks.concat(ads) if ads else rows.slice(0, 0)]


@pytest.fixture(scope="module")
def band() -> pa.Table:
    rng = np.random.default_rng(0)
    return in_band(table(400, seed=7), rng.random(400) < 0.3, rng.integers(0, 3, 400))


def sides(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    positive = rows.column("positive").to_numpy(zero_copy_only=False)
    return rows.filter(pa.array(positive)), rows.filter(pa.array(~positive))


# 120 positives and 280 negatives: at 200 rows an exhaustive search of two parts of negatives.
@pytest.mark.parametrize(("rows", "cut"), [(1000, 400), (200, 400), (200, 37), (1000, 1)])
def test_the_nearest_of_the_whole_band_are_found_whichever_clusters_overlap(
    band: pa.Table, rows: int, cut: int
) -> None:
    found, ads = run(band, 3, 3, [overlap(i, 0) for i in range(3)], cut, exhaustive_rows=rows)
    pairs = pairs_of(found)
    assert set(pairs) == brute_force(*sides(band), 4) and len(set(pairs)) == len(pairs)
    assert found.schema.equals(CANDIDATE_SCHEMA)
    assert set(ads.column("key").to_pylist()) == {key for pair in pairs for key in pair}
    assert ads.column_names == band.column_names


def test_blocks_and_parts_change_nothing(band: pa.Table) -> None:
    overlaps = [overlap(0, 2, 500), overlap(1, 2, 300), overlap(1, 0, 100), overlap(2, 1, 800)]
    whole, _ = run(band, 3, 3, overlaps, 400, max_candidates=300)
    mixed = band.take(pa.array(np.random.default_rng(1).permutation(band.num_rows)))
    for cut, rows in ((400, 1000), (13, 200)):
        again, _ = run(mixed, 3, 3, overlaps, cut, exhaustive_rows=rows, max_candidates=300)
        assert again.equals(whole)


def test_a_pair_stands_for_its_overlap_or_for_the_best_of_its_positive_cluster() -> None:
    # As they are ranked: cluster 1 mixes most with 2, cluster 0 with 1.
    overlaps = [overlap(1, 2), overlap(0, 1), overlap(1, 0), overlap(0, 2)]
    assert stage.home_of(overlaps, (2, 3)).tolist() == [[1, 1, 3], [2, 0, 0]]


def test_candidates_say_where_they_stand(band: pa.Table) -> None:
    overlaps = [overlap(0, 2, 500), overlap(1, 2, 300), overlap(2, 1, 800)]
    found, ads = run(band, 3, 3, overlaps, 400)
    cluster = dict(
        zip(ads.column("key").to_pylist(), ads.column("cluster").to_pylist(), strict=True)
    )
    home = stage.home_of(overlaps, (3, 3))
    for row in found.to_pylist():
        assert row["overlap"] == home[cluster[row["p_key"]], cluster[row["n_key"]]]
        assert row["mass"] == overlaps[row["overlap"]].mass


def test_a_band_too_large_is_searched_where_clusters_mix_or_lie_near(band: pa.Table) -> None:
    overlaps = [overlap(0, 2), overlap(1, 2), overlap(1, 0)]
    # 100 x 100 comparisons of 120 x 280 leave each positive cluster none of three as the nearest one.
    found, _ = run(band, 3, 3, overlaps, 50, exhaustive_rows=100)
    positives, negatives = sides(band)

    def of(rows: pa.Table, clusters: tuple[int, ...]) -> pa.Table:
        return rows.filter(pa.array(np.isin(rows.column("cluster").to_numpy(), clusters)))

    expected = brute_force(of(positives, (0,)), of(negatives, (2,)), 4)
    expected |= brute_force(of(positives, (1,)), of(negatives, (0, 2)), 4)
    assert set(pairs_of(found)) == expected


def test_the_nearest_clusters_are_searched_as_far_as_there_is_time() -> None:
    axes = np.eye(6, dtype=np.float32)
    model = ClusterModel(SPACE, axes[:2] + 0.1 * axes[3:5], axes[1:5], np.zeros((2, 4), np.int64))
    counts = np.array([50, 50, 25, 25, 25, 25])

    def searched(rows: int) -> list[list[int]]:
        plan = stage.plan_search(model, [overlap(0, 2)], counts, rows)
        return plan.searched.astype(int).tolist()

    assert searched(100) == [[1] * 4] * 2
    assert searched(51) == [[0, 0, 1, 0], [1, 0, 0, 0]], "a quarter, and where clusters mix"
    assert searched(71) == [[1, 0, 1, 0], [1, 0, 0, 1]]
    assert searched(10) == [[0, 0, 1, 0], [0, 0, 0, 0]]


def test_parts_hold_whole_clusters_or_parts_of_a_large_one() -> None:
    first, parts = stage.pack(np.array([40, 50, 20, 250, 0, 90, 10, 100, 1]), 100)
    assert first.tolist() == [0, 0, 1, 2, 5, 5, 5, 6, 7]
    assert parts.tolist() == [1, 1, 1, 3, 1, 1, 1, 1, 1]


def test_no_place_holds_more_than_it_should(band: pa.Table) -> None:
    positive = band.column("positive").to_numpy(zero_copy_only=False)
    cluster = band.column("cluster").to_numpy()
    counts = np.bincount(np.where(positive, cluster, 3 + cluster), minlength=6)
    plan = stage.plan_search(model_of(3, 3), [overlap(i, 0) for i in range(3)], counts, 60)
    places: dict[stage.Place, dict[bool, int]] = {}
    met: dict[str, int] = {}
    for place, (side, part) in stage.route(band, plan, 0):
        places.setdefault(place, {})[side] = part.num_rows
        for key in part.column("key").to_pylist():
            met[key] = met.get(key, 0) + 1
    # Parts by hash are as large as they should be but for chance.
    assert max(part[side] for part in places.values() for side in part) < 60 * 1.3
    assert len(places) == 2 * int((plan.first + plan.parts).max())
    keys = np.array(band.column("key").to_pylist())
    assert {met[key] for key in keys[~positive]} == {2}, "a part of negatives meets all positives"
    assert set(met) == set(keys)


def test_parts_go_by_the_band_not_by_the_clusters() -> None:
    # However large its cluster is: what is not in the band needs no place.
    rows = in_band(table(60, seed=8), np.arange(60) < 20)
    plan = stage.plan_search(model_of(1, 1), [overlap(0, 0)], np.array([20, 40]), 1000)
    routed = [(place, side) for place, (side, _) in stage.route(rows, plan, 0)]
    assert routed == [((0, 0), False), ((0, 0), True)]


@pytest.mark.parametrize("positives", [0, 40])
def test_a_label_without_ads_in_the_band_makes_no_pairs(positives: int) -> None:
    rows = in_band(table(40, seed=3), np.arange(40) < positives)
    found, ads = run(rows, 1, 1, [overlap(0, 0)], 40)
    assert found.num_rows == ads.num_rows == 0


def test_mutual_pairs_are_each_other_s_nearest() -> None:
    found = search(table(25, seed=3), table(25, seed=4), 25)
    nearest_n: dict[str, str] = {}
    nearest_p: dict[str, str] = {}
    rows = sorted(found.to_pylist(), key=lambda row: row["distance"])
    for row in rows:
        nearest_n.setdefault(row["p_key"], row["n_key"])
        nearest_p.setdefault(row["n_key"], row["p_key"])
    assert any(row["mutual"] for row in rows)
    for row in rows:
        both = nearest_n[row["p_key"]] == row["n_key"] and nearest_p[row["n_key"]] == row["p_key"]
        assert row["mutual"] == both
        assert (row["partner_rank"] == 1) == (nearest_n[row["p_key"]] == row["n_key"])


def test_the_pool_keeps_the_mutual_and_nearest() -> None:
    found = search(table(25, seed=3), table(25, seed=4), 25)
    order = sorted(found.to_pylist(), key=lambda row: (not row["mutual"], row["distance"]))
    assert stage.pool_of([found], 70).to_pylist() == order[:70]


def test_equal_distances_are_told_apart_by_keys_alone() -> None:
    found = search(table(20, seed=5), table(40, seed=6), 6).select(
        ["p_key", "n_key", "distance", "overlap", "mass"]
    )
    # Copies lie equally near: only the keys can tell which come first, and which are cut off.
    coarse = np.round(found.column("distance").to_numpy() * 2) / 2
    found = found.set_column(2, "distance", pa.array(coarse, pa.float32()))

    def pool(rows: pa.Table) -> pa.Table:
        return stage.pool_of([stage.mark_mutual(stage.keep_nearest(rows, 3))], 50)

    mixed = found.take(pa.array(np.random.default_rng(0).permutation(found.num_rows)))
    assert pool(mixed).equals(pool(found))
