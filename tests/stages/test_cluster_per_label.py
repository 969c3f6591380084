"""Clustering: sums over blocks, samples, and rows that do not depend on their block."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipelines.numerics import hashing, kmeans
from pipelines.numerics.calibration import Threshold
from pipelines.stages import cluster_per_label as stage
from pipelines.stages.find_overlaps import to_stats
from pipelines.store import blocks
from pipelines.text import content_key
from tests.stages.test_find_opposite_pairs import table

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


@pytest.fixture(scope="module")
def fitted() -> tuple[pa.Table, Threshold, stage.ClusterModel]:
    rows, threshold = labelled(400)
    positive = rows.column("margin").to_numpy() >= 0
    parts = [rows.filter(pa.array(positive == side)) for side in (True, False)]
    return rows, threshold, stage.fit(parts[0], parts[1], threshold, SETTINGS)


def test_fit_chooses_k_from_the_class_size_unless_given(fitted) -> None:
    _, threshold, model = fitted
    assert len(model.positive) == kmeans.auto_k(threshold.n_positive)
    assert len(model.negative) == 5
    assert model.neighbors.shape == (len(model.positive), 5)
    assert model.neighbors.sum() == threshold.n_positive * 3


def test_sums_do_not_depend_on_the_blocks(fitted) -> None:
    rows, threshold, model = fitted
    positive, cluster, whole = stage.assign_block(rows, model, threshold)
    rng = np.random.default_rng(3)
    order = rng.permutation(rows.num_rows)
    total = None
    for part in np.array_split(order, 7):
        p, c, totals = stage.assign_block(rows.take(pa.array(part)), model, threshold)
        np.testing.assert_array_equal(p, positive[part])
        np.testing.assert_array_equal(c, cluster[part])
        total = stage._add_totals([total, totals])
    assert total is not None
    for name in ("count", "distance", "mass", "nearer"):
        np.testing.assert_array_equal(getattr(total, name), getattr(whole, name))


def test_sums_are_what_brute_force_counts(fitted) -> None:
    rows, threshold, model = fitted
    positive, cluster, totals = stage.assign_block(rows, model, threshold)
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
    assert totals.count[:kp].sum() == threshold.n_positive
    assert totals.mass.sum() == rows.column("weight").to_numpy().sum()
    first, second = to_stats(model, totals)
    assert (len(first.count), len(second.count)) == (kp, 5)


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
