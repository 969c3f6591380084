"""Rows of known ads, wherever they lie."""

from __future__ import annotations

from pathlib import Path

import apache_beam as beam
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from pipelines.stages.gather_rows import GatherRows
from pipelines.store import blocks
from tests.helpers import write_scored_blocks
from tests.stages.test_find_opposite_pairs import table


def test_only_the_wanted_rows_and_columns_come(tmp_path: Path) -> None:
    whole = table(30, seed=1)
    keys = whole.column("key").to_pylist()
    wanted = [keys[3], keys[17], keys[29], "0" * 32]
    files = write_scored_blocks(tmp_path, [whole.slice(n, 10) for n in (0, 10, 20)])
    with TestPipeline() as pipeline:
        found = (
            pipeline
            | beam.Create(files)
            | GatherRows(str(tmp_path), wanted, ["key", "id"])
            | beam.FlatMap(lambda block: blocks.from_block(block).to_pylist())
        )
        assert_that(found, equal_to([{"key": keys[n], "id": f"id{n}"} for n in (3, 17, 29)]))


def test_no_keys_are_no_rows(tmp_path: Path) -> None:
    files = write_scored_blocks(tmp_path, [table(5, seed=1)])
    with TestPipeline() as pipeline:
        found = pipeline | beam.Create(files) | GatherRows(str(tmp_path), [], ["key"])
        assert_that(found, equal_to([]))
