"""Clustering: sums over blocks, samples, and rows that do not depend on their block."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that

from pipelines.numerics import hashing, kmeans
from pipelines.numerics.calibration import Band, Threshold
from pipelines.stages import cluster_per_label as stage
from pipelines.stages.find_overlaps import to_stats
from pipelines.store import blocks, scores
from pipelines.store.shown import write
from pipelines.text import content_key
from tests.helpers import write_scored_blocks
from tests.stages.test_find_opposite_pairs import table

BAND = Band(-0.5, 0.25)
# What a pipeline gave: functions of a module are not copied on their way into it.
FOUND: dict[str, list[Any]] = {}
SETTINGS = stage.ClusterSettings(
    positive_clusters=None,
    negative_clusters=5,
    sample_rows=150,
    coverage_rows=100,
    neighbors=3,
    standardize=True,
    seed=1,
)


def labelled(rows: int, seed: int = 11) -> tuple[pa.Table, Threshold]:
    rng = np.random.default_rng(seed)
    margin = (rng.integers(-800, 200, rows) / 256).astype(np.float32)
    weight = rng.integers(0, 5000, rows)
    found = table(rows, seed)
    for name, values in (("margin", margin), ("weight", weight)):
        found = found.set_column(found.column_names.index(name), name, pa.array(values))
    positives = int((margin >= 0).sum())
    return found, Threshold(0.0, positives, rows - positives)


def samples(rows: pa.Table, positive: np.ndarray) -> list[stage.Sample]:
    """Return what both labels' clusters are fitted on, from tables of 90 rows."""
    found = []
    for side in (True, False):
        part = rows.filter(pa.array(positive == side))
        tables = [part.slice(at, 90) for at in range(0, part.num_rows, 90)]
        found.append(stage.drawn(tables, SETTINGS.sample_rows, 6, SETTINGS.seed))
    return found


@pytest.fixture(scope="module")
def fitted() -> tuple[pa.Table, Threshold, stage.ClusterModel]:
    rows, threshold = labelled(400)
    positive = rows.column("margin").to_numpy() >= 0
    return rows, threshold, stage.fit(*samples(rows, positive), threshold, SETTINGS)


def test_fit_chooses_k_from_the_class_size_unless_given(fitted) -> None:
    _, threshold, model = fitted
    assert len(model.positive) == kmeans.auto_k(threshold.n_positive)
    assert len(model.negative) == 5
    assert model.neighbors.shape == (len(model.positive), 5)
    assert model.neighbors.sum() == threshold.n_positive * 3


def test_sums_do_not_depend_on_the_blocks(fitted) -> None:
    rows, threshold, model = fitted
    near = np.arange(400) % 3 == 0
    positive, cluster, whole = stage.assign_block(rows, model, threshold, near)
    rng = np.random.default_rng(3)
    order = rng.permutation(rows.num_rows)
    total = None
    for part in np.array_split(order, 7):
        taken = rows.take(pa.array(part))
        p, c, totals = stage.assign_block(taken, model, threshold, near[part])
        np.testing.assert_array_equal(p, positive[part])
        np.testing.assert_array_equal(c, cluster[part])
        total = stage._add_totals([total, totals])
    assert total is not None
    for name in ("count", "distance", "mass", "nearer", "band"):
        np.testing.assert_array_equal(getattr(total, name), getattr(whole, name))


def test_sums_are_what_brute_force_counts(fitted) -> None:
    rows, threshold, model = fitted
    near = np.arange(400) % 3 == 0
    positive, cluster, totals = stage.assign_block(rows, model, threshold, near)
    vectors = kmeans.project(model.space, blocks.vectors(rows)).astype(np.float64)
    kp = len(model.positive)
    nearer = np.zeros((kp, 5), dtype=np.int64)
    for row in range(rows.num_rows):
        own, other = (
            (model.positive, model.negative) if positive[row] else (model.negative, model.positive)
        )
        to_own = np.linalg.norm(own - vectors[row], axis=1)
        to_other = np.linalg.norm(other - vectors[row], axis=1)
        assert to_own.argmin() == cluster[row]
        for j in np.flatnonzero(to_other < np.float32(to_own.min())):
            nearer[(cluster[row], j) if positive[row] else (j, cluster[row])] += 1
    np.testing.assert_array_equal(totals.nearer, nearer)
    assert totals.count.sum() == rows.num_rows
    own = np.where(positive, cluster, kp + cluster)
    np.testing.assert_array_equal(totals.band, np.bincount(own[near], minlength=kp + 5))
    assert totals.count[:kp].sum() == threshold.n_positive
    assert totals.mass.sum() == rows.column("weight").to_numpy().sum()
    first, second = to_stats(model, totals)
    assert (len(first.count), len(second.count)) == (kp, 5)


def test_what_is_drawn_are_the_first_ads_with_their_own_vectors(fitted) -> None:
    rows, _, _ = fitted
    keys = rows.column("key").to_pylist()
    tables = [rows.slice(at, 33) for at in range(0, 400, 33)]
    found = stage.drawn(tables, 50, 6, 9)
    expected = hashing.first_turned(keys, 50, 9)
    assert list(found.keys) == [keys[row] for row in expected] == sorted(found.keys)
    np.testing.assert_array_equal(found.vectors, blocks.vectors(rows)[expected])
    assert stage.drawn([], 50, 6, 9).vectors.shape == (0, 6)


def test_the_fit_does_not_depend_on_the_rows_order(fitted) -> None:
    rows, threshold, model = fitted
    mixed = rows.take(pa.array(np.random.default_rng(5).permutation(rows.num_rows)))
    positive = mixed.column("margin").to_numpy() >= 0
    again = stage.fit(*samples(mixed, positive), threshold, SETTINGS, threads=2)
    for name in ("positive", "negative", "neighbors"):
        np.testing.assert_array_equal(getattr(again, name), getattr(model, name))


def _keep(name: str, got: list[Any]) -> None:
    FOUND[name] = got


def run(tmp_path: Path, rows: pa.Table, threads: int, shown: frozenset[str]) -> dict[str, Any]:
    """Run the stage on three blocks; rows that leave it as one table each, sorted by key."""
    _, threshold = labelled(400)
    files = write_scored_blocks(tmp_path, [rows.slice(at, 150) for at in (0, 150, 300)])
    FOUND.clear()
    with TestPipeline() as pipeline:
        given = (
            pipeline | "Files" >> beam.Create(files),
            pipeline | "Threshold" >> beam.Create([threshold]),
            pipeline | "Band" >> beam.Create([BAND]),
        )
        out = given | stage.ClusterPerLabel(
            str(tmp_path), SETTINGS, write(str(tmp_path), shown), threads
        )
        for name in (stage.MODEL, stage.STATS, stage.BAND, stage.SAMPLE, stage.SHOWN):
            assert_that(out[name], functools.partial(_keep, name), label=name)
    found = dict(FOUND)
    for name in (stage.BAND, stage.SAMPLE, stage.SHOWN):
        found[name] = blocks.sort_by_key(blocks.concat(found[name]))
    by_number = {scores.number_of(file): scores.read(str(tmp_path), file) for file in files}
    return {**found, "blocks": by_number}


@pytest.mark.parametrize("threads", [1, 2])
def test_rows_leave_with_what_is_needed_of_them(tmp_path: Path, threads: int) -> None:
    rows, _ = labelled(400)
    keys = np.array(rows.column("key").to_pylist())
    margin = rows.column("margin").to_numpy()
    held = keys[(margin >= BAND.low) & (margin <= BAND.high)]
    shown = {*held[:3].tolist(), keys[margin < BAND.low][0]}
    found = run(tmp_path, rows, threads, frozenset(shown))

    [model], [totals] = found[stage.MODEL], found[stage.STATS]
    positive, cluster, sums = stage.assign_block(
        rows, model, Threshold(0.0, int((margin >= 0).sum()), 0), np.isin(keys, held[3:])
    )
    for name in ("count", "distance", "mass", "nearer", "band"):
        np.testing.assert_array_equal(getattr(totals, name), getattr(sums, name))
    expected = {
        stage.BAND: set(held[3:].tolist()),
        stage.SAMPLE: set(keys[hashing.lowest_ranks(keys, 100, SETTINGS.seed + 1)].tolist()),
        stage.SHOWN: shown,
    }
    place = {key: row for row, key in enumerate(keys.tolist())}
    for name, wanted in expected.items():
        table = found[name]
        got = set(table.column("key").to_pylist())
        assert got >= wanted if name == stage.SAMPLE else got == wanted
        for row in table.to_pylist():
            whole = found["blocks"][row["block"]].slice(row["row"], 1).to_pylist()[0]
            for column, value in row.items():
                if column not in ("positive", "cluster", "block", "row"):
                    assert whole[column] == value
            at = place[row["key"]]
            assert (row["positive"], row["cluster"]) == (positive[at], cluster[at])
        assert not {"text", "id", "fields"} & set(table.column_names)
    assert {"margin", "weight"} <= set(found[stage.SAMPLE].column_names)


def test_the_sample_is_the_lowest_ranks_whatever_the_order() -> None:
    keys = [content_key(str(n)) for n in range(300)]
    chosen = {keys[row] for row in hashing.lowest_ranks(keys, 40, 9)}
    shuffled = list(np.random.default_rng(0).permutation(keys))
    assert {shuffled[row] for row in hashing.lowest_ranks(shuffled, 40, 9)} == chosen
    rows = hashing.lowest_ranks(shuffled, 40, 9)
    assert [shuffled[row] for row in rows] == sorted(chosen)
    assert {keys[row] for row in hashing.lowest_ranks(keys, 40, 10)} != chosen


@pytest.mark.parametrize(("wanted", "population"), [(100, 1000), (100, 100), (1000, 5000), (5, 7)])
def test_the_limit_lets_enough_rows_through(wanted: int, population: int) -> None:
    ranks = np.random.default_rng(wanted).integers(0, 2**64, population, dtype=np.uint64)
    passed = int(hashing.below(ranks, hashing.sample_limit(wanted, population)).sum())
    assert passed >= min(wanted, population)
    if population >= 10 * wanted:
        assert passed <= 2 * wanted
