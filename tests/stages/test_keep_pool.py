"""The pool: the best of all open ads, whatever the blocks and their order."""

from __future__ import annotations

import itertools
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.test_pipeline import TestPipeline

from pipelines.config import Selection
from pipelines.contracts import Block
from pipelines.numerics.calibration import Threshold
from pipelines.stages.keep_pool import KeepPool, best, score_rows
from pipelines.stages.make_context import MakeContext
from pipelines.store import blocks
from pipelines.store.shown import write
from pipelines.strategies.base import Context, Need, Plan, Rows, RowStrategy
from pipelines.strategies.uncertainty import Uncertainty
from tests.helpers import write_scored_blocks
from tests.stages.test_find_opposite_pairs import table

PLAN = Plan(Selection(budget=10), 0, "policy")
THRESHOLD = Threshold(0.0, 10, 50, "prior")


class Spread(RowStrategy):
    """Far from what was labelled."""

    name = "spread"
    needs = frozenset({Need.VECTORS, Need.LABELS})

    def score(self, rows: Rows, context: Context) -> np.ndarray:
        assert rows.vectors is not None and context.labelled is not None
        assert context.labelled.rows.vectors is not None
        positives = context.labelled.rows.vectors[context.labelled.labels == 1]
        return np.abs(rows.vectors.astype(np.float64) - positives.mean(axis=0)).sum(axis=1)


class Nothing(RowStrategy):
    """Scores that are none."""

    name = "nothing"

    def score(self, rows: Rows, context: Context) -> np.ndarray:
        return np.full(len(rows), np.nan)


def scored(rows: int, seed: int = 0) -> pa.Table:
    margins = np.rint(np.random.default_rng(seed).normal(size=rows) * 256) / 256
    found = table(rows, seed)
    place = found.column_names.index("margin")
    return found.set_column(place, "margin", pa.array(margins, pa.float32()))


def save(block: Block, path: Path) -> None:
    path.write_bytes(block.data)


def kept(
    root: Path, strategy: RowStrategy, plan: Plan, parts: list[pa.Table], shown: set
) -> pa.Table:
    files = write_scored_blocks(root, parts)
    saved = root / "pool"
    with TestPipeline() as pipeline:
        given = pipeline | "Files" >> beam.Create(files)
        context = (
            given,
            pipeline | "Threshold" >> beam.Create([THRESHOLD]),
            pipeline | "Open" >> beam.Create([60]),
        ) | MakeContext(str(root), strategy, plan)
        pool = (given, context) | KeepPool(
            str(root), strategy, plan.selection, write(str(root), shown)
        )
        _ = pool | "Save" >> beam.Map(save, saved)
    data = saved.read_bytes()
    return blocks.from_block(Block(1, data)) if data else pa.table({})


def test_the_pool_is_the_best_of_all_blocks_in_any_order(tmp_path: Path) -> None:
    whole = scored(60)
    keys, margins = whole.column("key").to_pylist(), whole.column("margin").to_numpy()
    expected = [keys[i] for i in np.lexsort((np.asarray(keys), np.abs(margins)))[:10]]
    for number, cuts in enumerate(([0, 60], [0, 7, 30, 60], [0, *range(5, 61, 5)])):
        parts = [whole.slice(a, b - a) for a, b in itertools.pairwise(cuts)]
        pool = kept(tmp_path / str(number), Uncertainty(), PLAN, parts[::-1], set())
        assert pool.column("key").to_pylist() == expected
    assert "vector" not in pool.column_names, "what is not needed is not read"


def test_what_was_shown_is_left_out(tmp_path: Path) -> None:
    whole = scored(60)
    first = kept(tmp_path / "a", Uncertainty(), PLAN, [whole], set()).column("key").to_pylist()
    second = kept(tmp_path / "b", Uncertainty(), PLAN, [whole], set(first))
    assert not set(first) & set(second.column("key").to_pylist())
    assert (
        kept(
            tmp_path / "c", Uncertainty(), PLAN, [whole], set(whole.column("key").to_pylist())
        ).num_rows
        == 0
    )


def test_a_strategy_that_needs_them_gets_vectors_and_labels(tmp_path: Path) -> None:
    whole = scored(60)
    keys = whole.column("key").to_pylist()
    plan = Plan(Selection(budget=60), 0, "policy", {keys[3]: 1, keys[41]: 0, "gone" * 8: 1})
    pool = kept(tmp_path, Spread(), plan, [whole.slice(0, 25), whole.slice(25)], set())
    vectors = blocks.vectors(whole).astype(np.float64)
    far = np.abs(vectors - vectors[3]).sum(axis=1)
    assert pool.column("key").to_pylist() == [keys[i] for i in np.lexsort((np.asarray(keys), -far))]
    assert pool.column("key").to_pylist()[-1] == keys[3]


def test_a_score_that_is_no_number_names_the_strategy() -> None:
    context = PLAN.at(THRESHOLD, 60)
    with pytest.raises(ValueError, match="strategy 'nothing': score must give 6 finite numbers"):
        score_rows(scored(6), Nothing(), context)


def test_ties_go_by_key() -> None:
    whole = scored(20).append_column("score", pa.array(np.ones(20)))
    assert best([whole], 5).column("key").to_pylist() == sorted(whole.column("key").to_pylist())[:5]
