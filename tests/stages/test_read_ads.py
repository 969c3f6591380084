"""Ranges of any source to ads and dead letters, and what is counted on the way."""

from __future__ import annotations

import json
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from pipelines.console import metrics
from pipelines.errors import find_run_failed
from pipelines.jobs.running import DEFAULT_RUNNER
from pipelines.sources import registry
from pipelines.sources.base import Range, ReadOptions
from pipelines.stages.read_ads import ADS, REJECTED, ReadAds
from tests import helpers


def test_ads_and_dead_letters_of_all_ranges(tmp_path: Path) -> None:
    for name in ("a", "b"):
        rows = [{"id": f"{name}{n}", "text": f"ad {n}"} for n in range(20)]
        helpers.write_jsonl(tmp_path / f"{name}.jsonl", [*rows, {"id": f"{name}-bad"}])
    options = ReadOptions()
    ranges = registry.plan(registry.list_corpus([f"{tmp_path}/*.jsonl"]), options, 100)
    assert len(ranges) > 10
    pipeline = TestPipeline(runner=DEFAULT_RUNNER)
    found = pipeline | ReadAds(ranges, options)
    ids = found[ADS] | "Id" >> beam.Map(lambda ad: ad.id)
    bad = found[REJECTED] | "Bad" >> beam.Map(lambda r: (r.id, r.reason))
    assert_that(ids, equal_to([f"{name}{n}" for name in "ab" for n in range(20)]), label="ads")
    assert_that(bad, equal_to([("a-bad", "no_text"), ("b-bad", "no_text")]), label="bad")
    result = pipeline.run()
    result.wait_until_finish()
    counted = {
        counter.key.metric.name: counter.committed
        for counter in result.metrics().query()["counters"]
        if counter.key.metric.namespace == metrics.NAMESPACE
    }
    assert (counted["ReadAds/records"], counted["ReadAds/rejected"]) == (42, 2)
    assert "ReadAds/msec" in counted


def test_a_file_that_cannot_be_read_fails_the_run_with_its_name(tmp_path: Path) -> None:
    gone = Range("files", str(tmp_path / "gone.jsonl"), "jsonl", 0, -1, 10)
    pipeline = TestPipeline(runner=DEFAULT_RUNNER)
    _ = pipeline | ReadAds([gone], ReadOptions())
    with pytest.raises(Exception, match="run failed") as caught:
        pipeline.run().wait_until_finish()
    assert "gone.jsonl: cannot be read to its end as jsonl" in str(find_run_failed(caught.value))


def test_nothing_to_read_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one range"):
        ReadAds([], ReadOptions())


def test_a_dead_letter_can_be_stored_whatever_the_record_held(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id": "\\ud83d", "text": "a"}\n\xff\xfe\n')
    ranges = registry.plan(registry.list_corpus([str(path)]), ReadOptions(), 1 << 20)
    with TestPipeline(runner=DEFAULT_RUNNER) as pipeline:
        found = pipeline | ReadAds(ranges, ReadOptions())
        stored = found[REJECTED] | beam.Map(
            lambda r: len(json.dumps([r.id, r.excerpt]).encode()) > 9
        )
        assert_that(stored, equal_to([True, True]))
