"""The context of a strategy: labelled ads and the space of vectors, whatever the blocks."""

from __future__ import annotations

import pickle
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.test_pipeline import TestPipeline

from pipelines.config import Selection
from pipelines.numerics import hashing
from pipelines.numerics.calibration import Threshold
from pipelines.stages import fit_space
from pipelines.stages.make_context import MakeContext, labelled_of
from pipelines.store import blocks
from pipelines.strategies.base import UNIT, Context, Plan, RowStrategy
from pipelines.strategies.core_set import CoreSet
from pipelines.strategies.uncertainty import Uncertainty
from tests.helpers import write_scored_blocks
from tests.stages.test_keep_pool import PLAN, scored


def made(
    root: Path, strategy: RowStrategy, plan: Plan, parts: list[pa.Table], standardize: bool
) -> Context:
    saved = root / "context"
    files = write_scored_blocks(root, parts)
    threshold = Threshold(0.0, 10, sum(map(len, parts)) - 10, "prior")
    with TestPipeline() as pipeline:
        context = (
            pipeline | "Files" >> beam.Create(files),
            pipeline | "Threshold" >> beam.Create([threshold]),
            pipeline | "Open" >> beam.Create([60]),
        ) | MakeContext(str(root), strategy, plan, standardize)
        _ = context | "Save" >> beam.Map(lambda one: saved.write_bytes(pickle.dumps(one)))
    loaded = pickle.loads(saved.read_bytes())
    assert isinstance(loaded, Context)
    return loaded


def test_labels_come_where_they_are_needed(tmp_path: Path) -> None:
    whole = scored(60)
    keys = whole.column("key").to_pylist()
    plan = Plan(Selection(budget=10), 0, "policy", {keys[3]: 1, keys[41]: 0, "gone" * 8: 1})
    parts = [whole.slice(0, 25), whole.slice(25)]
    context = made(tmp_path / "a", CoreSet(), plan, parts, standardize=False)
    assert context.labelled is not None and context.open_ads == 60
    assert dict(zip(context.labelled.rows.keys, context.labelled.labels, strict=True)) == {
        keys[3]: 1,
        keys[41]: 0,
    }
    assert context.space == UNIT
    assert made(tmp_path / "b", CoreSet(), PLAN, parts, standardize=False).labelled is None


def test_the_space_is_of_a_sample_whatever_the_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_space, "SAMPLE_ROWS", 30)
    whole = scored(60)
    one = made(tmp_path / "a", CoreSet(), PLAN, [whole], standardize=True).space
    parts = [whole.slice(40), whole.slice(0, 7), whole.slice(7, 33)]
    many = made(tmp_path / "b", CoreSet(), PLAN, parts, standardize=True).space
    assert one.mean is not None and one.scale is not None
    assert many.mean is not None and many.scale is not None
    assert one.mean.tolist() == many.mean.tolist() and one.scale.tolist() == many.scale.tolist()
    rows = hashing.first_turned(whole.column("key").to_pylist(), 30, PLAN.seed)
    sample = blocks.vectors(whole)[rows].astype(np.float64)
    assert one.mean == pytest.approx(sample.mean(axis=0), abs=1e-6)
    assert one.scale == pytest.approx(sample.std(axis=0), rel=1e-5)


def test_who_needs_no_vectors_gets_no_space(tmp_path: Path) -> None:
    assert made(tmp_path, Uncertainty(), PLAN, [scored(60)], standardize=True).space == UNIT


def test_labelled_rows_are_sorted_and_carry_their_label() -> None:
    whole = scored(6)
    keys = whole.column("key").to_pylist()
    plan = Plan(Selection(), 0, "policy", {key: n % 2 for n, key in enumerate(keys)})
    parts = [blocks.to_block(whole.slice(4)), blocks.to_block(whole.slice(0, 4))]
    found = labelled_of(parts, plan)
    assert found is not None and list(found.rows.keys) == sorted(keys)
    assert found.labels.tolist() == [plan.labels[key] for key in sorted(keys)]
    assert labelled_of([], plan) is None
