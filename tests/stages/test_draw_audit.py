"""Drawing an audit: a random sample of every stratum, whatever the blocks; who was seen is no part of it."""

from __future__ import annotations

import collections
import itertools
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.test_pipeline import TestPipeline

from pipelines.errors import RunFailed
from pipelines.numerics import audit, calibration
from pipelines.stages.draw_audit import (
    DRAWN,
    FRAME,
    AuditPlan,
    DrawAudit,
    Frame,
    lowest,
    plan_frame,
    tally,
)
from pipelines.stages.write_audit import audit_items, frame_file, known_of
from pipelines.store import blocks
from tests.helpers import write_scored_blocks
from tests.stages.test_keep_pool import scored

ROWS, BUDGET = 400, 60


def plan(**changes: Any) -> AuditPlan:
    known: dict[str, Any] = {"threshold": 1.0, "prior": 0.15, "budget": BUDGET, "seed": 3}
    return AuditPlan(**{**known, "shown": frozenset(), **changes})


def drawn_from(root: Path, tables: list[pa.Table], how: AuditPlan) -> tuple[Frame, pa.Table]:
    """Run the stage in a pipeline; returns what it gave."""
    files, given = write_scored_blocks(root, tables), root / "given"
    given.mkdir(exist_ok=True)

    def save(element: Any, name: str) -> None:
        import pickle

        (given / name).write_bytes(pickle.dumps(element))

    with TestPipeline() as pipeline:
        found = pipeline | beam.Create(files) | DrawAudit(str(root), how)
        _ = found[FRAME] | "SaveFrame" >> beam.Map(save, "frame")
        _ = found[DRAWN] | "SaveDrawn" >> beam.Map(save, "drawn")
    import pickle

    frame, block = (pickle.loads((given / name).read_bytes()) for name in ("frame", "drawn"))
    return frame, blocks.from_block(block)


def keys_of(table: pa.Table) -> list[str]:
    return table.column("key").to_pylist()


def test_the_sample_does_not_depend_on_the_blocks(tmp_path: Path) -> None:
    whole = scored(ROWS)
    frame, drawn = drawn_from(tmp_path / "one", [whole], plan())
    parts = [whole.slice(start, 37) for start in range(0, ROWS, 37)][::-1]
    other_frame, other = drawn_from(tmp_path / "many", parts, plan())
    assert sorted(keys_of(drawn)) == sorted(keys_of(other))
    assert drawn.num_rows == BUDGET == frame.sample.labels.sum()
    assert other_frame.sample.starts.tolist() == frame.sample.starts.tolist()
    counts = collections.Counter(drawn.column("stratum").to_pylist())
    assert [counts[row] for row in range(len(counts))] == frame.sample.labels.tolist()
    margins = drawn.column("margin").to_numpy()
    assert frame.sample.stratum_of(margins).tolist() == drawn.column("stratum").to_pylist()
    assert frame.histogram.sum() == ROWS
    assert frame.weight.sum() == sum(whole.column("weight").to_pylist())


def test_every_ad_of_a_stratum_is_as_likely_as_the_next() -> None:
    table = scored(ROWS)
    margins = table.column("margin").to_numpy()
    frame = plan_frame(tally(table, plan()), plan())
    stratum = frame.sample.stratum_of(margins)
    counts = np.zeros(ROWS)
    place = {key: row for row, key in enumerate(keys_of(table))}
    from pipelines.numerics import hashing

    for seed in range(300):
        rows = table.append_column("stratum", pa.array(stratum))
        rows = rows.append_column("quota", pa.array(frame.sample.labels[stratum]))
        rows = rows.append_column("hash", pa.array(hashing.ranks(keys_of(table), seed)))
        for key in keys_of(lowest([rows])):
            counts[place[key]] += 1
    wanted = 300 * (frame.sample.labels / frame.sample.sizes)[stratum]
    spread = np.sqrt(np.maximum(wanted * (1 - wanted / 300), 1e-9))
    assert np.abs((counts - wanted) / spread).max() < 5
    assert counts.sum() == 300 * BUDGET


def test_a_larger_budget_draws_the_same_ads_and_more(tmp_path: Path) -> None:
    tables = [scored(ROWS)]
    frame, first = drawn_from(tmp_path / "a", tables, plan())
    strata = tuple(zip(frame.sample.starts.tolist(), frame.sample.labels.tolist(), strict=True))
    more = plan(budget=150, strata=strata)
    _, second = drawn_from(tmp_path / "b", tables, more)
    assert {*keys_of(first)} < {*keys_of(second)} and second.num_rows == 150


def test_ads_that_experts_saw_are_counted_and_not_drawn(tmp_path: Path) -> None:
    table = scored(ROWS)
    keys, margins = keys_of(table), table.column("margin").to_numpy()
    shown, settled = frozenset(keys[:90]), {key: int(n % 3 == 0) for n, key in enumerate(keys[:70])}
    how = plan(shown=shown, settled=settled, budget=ROWS)
    frame, drawn = drawn_from(tmp_path, [table.slice(0, 200), table.slice(200)], how)
    assert {*keys_of(drawn)} == {*keys[90:]}, "a budget for all draws all"
    wanted = np.zeros(4, dtype=int)
    for row, key in enumerate(keys[:70]):
        wanted[2 * settled[key] + int(margins[row] >= 1.0)] += 1
    assert frame.known[0].tolist() == wanted.tolist()
    assert frame.left_out == 20
    weights = table.column("weight").to_numpy()[:70].sum()
    assert frame.known[1].sum() == weights
    known = known_of(frame, -3)
    assert sum(map(sum, known.weights)) == pytest.approx(weights / 1000)
    assert [n for row in known.counts for n in row] == wanted.tolist()


def test_items_are_single_ads_with_their_propensity_in_an_order_of_their_own(
    tmp_path: Path,
) -> None:
    frame, drawn = drawn_from(tmp_path, [scored(ROWS)], plan())
    items = audit_items(drawn, frame, "policy", 3)
    assert [item.rank for item in items] == list(range(1, BUDGET + 1))
    propensity = frame.sample.labels / frame.sample.sizes
    strata = []
    for item in items:
        [ad] = item.ads
        strata.append(int(frame.sample.stratum_of(np.array(ad.margin))))
        assert (item.source, item.drawn) == ("audit", ad.key)
        assert item.propensity == pytest.approx(propensity[strata[-1]], rel=1e-5)
        assert ad.label == ("positive" if ad.margin >= 1.0 else "negative")
    again = audit_items(drawn.take(pa.array(range(BUDGET))[::-1]), frame, "policy", 3)
    assert again == items
    # The first half of the order holds about half of each stratum.
    half = collections.Counter(strata[: BUDGET // 2])
    for row, number in enumerate(frame.sample.labels.tolist()):
        assert abs(half[row] - number / 2) <= 3 * number**0.5 / 2 + 1
    assert any(a > b for a, b in itertools.pairwise(strata))
    with np.load(__import__("io").BytesIO(frame_file(frame, -3)), allow_pickle=False) as kept:
        histogram = np.zeros(calibration.N_BINS, dtype=np.int64)
        histogram[kept["bins"]] = kept["ads"]
    assert histogram.tolist() == frame.histogram.tolist()
    assert audit.bin_of(np.array(items[0].ads[0].margin)) in np.flatnonzero(histogram)


def test_what_cannot_be_drawn_is_refused() -> None:
    table = scored(20)
    how = plan(shown=frozenset(keys_of(table)))
    with pytest.raises(RunFailed, match="no ad is left to audit: experts saw every one"):
        plan_frame(tally(table, how), how)
    with pytest.raises(ValueError, match="budget must be at least 1 ad, got 0"):
        DrawAudit("w", plan(budget=0))
