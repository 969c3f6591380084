"""Ranges of any source to ads and dead letters, and what is counted on the way."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from pipelines.console import metrics
from pipelines.errors import find_run_failed
from pipelines.jobs.running import DEFAULT_RUNNER
from pipelines.sources import registry
from pipelines.sources.base import ReadOptions
from pipelines.sources.records import Place, to_ad
from pipelines.stages import read_ads
from pipelines.stages.read_ads import ADS, REJECTED, ReadAds
from tests import helpers
from tests.sources import parts
from tests.sources.test_contract import Held


def test_ads_and_dead_letters_of_all_ranges(tmp_path: Path) -> None:
    for name in ("a", "b"):
        rows = [{"id": f"{name}{n}", "text": f"ad {n}"} for n in range(20)]
        helpers.write_jsonl(tmp_path / f"{name}.jsonl", [*rows, {"id": f"{name}-bad"}])
    options = ReadOptions()
    assert len(parts([f"{tmp_path}/*.jsonl"], options, 100)) > 10
    pipeline = TestPipeline(runner=DEFAULT_RUNNER)
    # A file that two patterns name is read once.
    found = pipeline | ReadAds([f"{tmp_path}/*.jsonl", f"{tmp_path}/a*"], options, 100)
    ids = found[ADS] | beam.FlatMap(list) | "Id" >> beam.Map(lambda ad: ad.id)
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


def test_ads_travel_many_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ads, "_BATCH", 8)
    path = helpers.write_jsonl(tmp_path / "a.jsonl", [*helpers.tiny_ads(20), {"id": "bad"}])
    with TestPipeline(runner=DEFAULT_RUNNER) as pipeline:
        found = pipeline | ReadAds([str(path)], ReadOptions())
        assert_that(found[ADS] | beam.Map(len), equal_to([8, 8, 4]))


def failure(*patterns: str) -> str:
    pipeline = TestPipeline(runner=DEFAULT_RUNNER)
    _ = pipeline | ReadAds(patterns, ReadOptions())
    with pytest.raises(Exception, match="run failed") as caught:
        pipeline.run().wait_until_finish()
    return str(find_run_failed(caught.value))


def test_what_cannot_be_read_fails_the_run_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "an ad"}\n' * 99)[:-9])
    (tmp_path / "old.xls").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(99))
    said = failure(f"{tmp_path}/cut*")
    assert "cut.jsonl.gz: cannot be read to its end as jsonl" in said
    # What the launcher would have said, of a thing that it did not look at.
    assert "old.xls: is an old Excel workbook (.xls); save it as" in failure(f"{tmp_path}/*.xls")
    assert f"--corpus {tmp_path}/none*: no file matches" in failure(f"{tmp_path}/none*")


def test_nothing_to_read_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one pattern"):
        ReadAds([], ReadOptions())


class Connected(Held):
    """Ads of a source that Beam has a connector for."""

    name = "connected"

    def reading(self, patterns: Sequence[str], options: ReadOptions) -> beam.PTransform:
        found = [to_ad(ad, options, Place(*patterns, "a row", "")) for ad in self.ads]
        return beam.Create(found)


def test_sources_side_by_side_and_a_connector(tmp_path: Path) -> None:
    helpers.write_jsonl(tmp_path / "a.jsonl", [{"text": "one"}, {"id": "no text"}])
    with (
        registry.registered(Connected([{"text": "two"}, {"text": " "}])),
        TestPipeline(runner=DEFAULT_RUNNER) as pipeline,
    ):
        found = pipeline | ReadAds([str(tmp_path), "connected://all"], ReadOptions())
        texts = found[ADS] | beam.FlatMap(list) | beam.Map(lambda ad: (ad.text, ad.source))
        expected = [("one", str(tmp_path / "a.jsonl")), ("two", "connected://all")]
        assert_that(texts, equal_to(expected), label="ads")
        bad = found[REJECTED] | "Bad" >> beam.Map(lambda r: r.reason)
        assert_that(bad, equal_to(["no_text", "empty_text"]), label="bad")


def test_the_graph_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    def size(files: int) -> int:
        for number in range(files):
            helpers.write_jsonl(tmp_path / f"{number}.jsonl", helpers.tiny_ads(9))
        pipeline = TestPipeline(runner=DEFAULT_RUNNER)
        _ = pipeline | ReadAds([f"{tmp_path}/*.jsonl"], ReadOptions(), 100)
        return len(pipeline.to_runner_api().SerializeToString())

    # Names of components are numbered throughout.
    assert abs(size(1) - size(99)) < 100


def test_a_dead_letter_can_be_stored_whatever_the_record_held(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id": "\\ud83d", "text": "a"}\n\xff\xfe\n')
    with TestPipeline(runner=DEFAULT_RUNNER) as pipeline:
        found = pipeline | ReadAds([str(path)], ReadOptions())
        stored = found[REJECTED] | beam.Map(
            lambda r: len(json.dumps([r.id, r.excerpt]).encode()) > 9
        )
        assert_that(stored, equal_to([True, True]))
