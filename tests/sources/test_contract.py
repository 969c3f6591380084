"""What every source promises, and one of thirty lines that the main job reads like any other.

A source that is registered without a corpus in ``CORPORA`` fails here.
"""

from __future__ import annotations

import contextlib
import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from pipelines.contracts import Ad, Rejected
from pipelines.errors import UsageError
from pipelines.jobs.running import DEFAULT_RUNNER
from pipelines.sources import registry
from pipelines.sources.base import STAGE, Listed, Range, ReadOptions, Source
from pipelines.sources.records import Place, to_ad
from pipelines.sources.survey import survey
from pipelines.stages.read_ads import ADS as READ
from pipelines.stages.read_ads import REJECTED, ReadAds
from pipelines.text import digest
from tests import helpers
from tests.sources import parts, records, write


class Held(Source):
    """``held://NAME``: ads that this process holds."""

    name = "held"

    def __init__(self, ads: list[dict[str, Any]]) -> None:
        self.ads = ads

    def list_items(self, pattern: str) -> list[Listed]:
        lines = [json.dumps(ad) for ad in self.ads]
        return [Listed(self.name, pattern, sum(map(len, lines)), digest("".join(lines)))]

    def ranges(self, item: Listed, options: ReadOptions, range_bytes: int) -> list[Range]:
        step = max(1, len(self.ads) * range_bytes // max(1, item.bytes))
        return [
            Range(
                self.name,
                item.place,
                "",
                start,
                start + step,
                sum(len(json.dumps(ad)) for ad in self.ads[start : start + step]),
            )
            for start in range(0, len(self.ads), step)
        ]

    def read(self, part: Range, options: ReadOptions) -> Iterator[Ad | Rejected]:
        for number, ad in enumerate(self.ads[part.start : part.stop], start=part.start):
            yield to_ad(ad, options, Place(part.place, f"row {number}", json.dumps(ad)))


@dataclass(frozen=True)
class Corpus:
    """A small corpus of one source: what names it, and what changes one ad of it."""

    patterns: list[str]
    change: Callable[[], Any]


ADS = [*helpers.tiny_ads(20), {"id": "no text"}, {"text": "no id"}, {"id": "blank", "text": " "}]


@contextlib.contextmanager
def _files(folder: Path) -> Iterator[Corpus]:
    for name in ("a.jsonl", "b.jsonl.gz", "c.csv", "d.tsv", "e.parquet", "f.ndjson.bz2"):
        rows = [{"id": ad.get("id"), "text": ad.get("text")} for ad in ADS]
        write(folder / name, [{**row, "id": f"{name}{n}"} for n, row in enumerate(rows)])
    text = folder / "g.txt"
    text.write_bytes("\ufeffone\r\n\n two \ncaf\udce9\n".encode(errors="surrogateescape"))
    yield Corpus([f"{folder}/*"], lambda: text.write_bytes(b"another\n"))


@contextlib.contextmanager
def _held(_: Path) -> Iterator[Corpus]:
    source = Held(list(ADS))
    with registry.registered(source):
        yield Corpus(["held://all"], lambda: source.ads.append({"text": "new"}))


@contextlib.contextmanager
def _bq(_: Path) -> Iterator[Corpus]:
    from tests.bigquery_server import Table, served

    with served() as fake:
        table = Table([("id", "STRING"), ("text", "STRING")], list(ADS))
        fake.tables |= {"project.shop.ads": table, "project.shop.more": table}

        def change() -> None:
            table.rows.append({"text": "new"})
            table.modified += 1

        yield Corpus(["bq://project.shop.ads", "bq://project.shop.more"], change)


CORPORA: dict[str, Callable[[Path], AbstractContextManager[Corpus]]] = {
    "files": _files,
    "bq": _bq,
    "held": _held,
}


@pytest.fixture(params=[*registry.names(), "held"])
def corpus(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Corpus]:
    with CORPORA[request.param](tmp_path) as found:
        yield found


def fingerprint(corpus: Corpus) -> str:
    return survey(corpus.patterns, ReadOptions(), 1 << 30, fingerprinted=True).fingerprint


def test_each_thing_is_seen_once(corpus: Corpus) -> None:
    listed = list(registry.each(corpus.patterns))
    assert len({(item.source, item.place) for item in listed}) == len(listed) > 0
    once = survey(corpus.patterns, ReadOptions(), 100)
    assert (once.things, once.bytes) == (len(listed), sum(item.bytes for item in listed))
    assert once.complete
    assert survey(corpus.patterns * 2, ReadOptions(), 100) == once


@pytest.mark.parametrize("range_bytes", [1, 40, 700])
def test_ranges_hold_each_record_once(corpus: Corpus, range_bytes: int) -> None:
    def content(found: list[Ad | Rejected]) -> list[tuple[str, ...]]:
        return sorted((r.source, r.id, getattr(r, "text", ""), type(r).__name__) for r in found)

    whole = records(corpus.patterns)
    assert content(records(corpus.patterns, range_bytes=range_bytes)) == content(whole)
    assert len(whole) >= len(ADS)


def test_every_record_is_an_ad_or_a_rejection_with_its_place(corpus: Corpus) -> None:
    found = records(corpus.patterns)
    assert {type(record) for record in found} == {Ad, Rejected}
    assert len({(record.source, record.position) for record in found}) == len(found)
    for record in found:
        assert record.source and record.position
        if isinstance(record, Rejected):
            assert record.stage == STAGE and record.reason and record.detail
            assert record.records == 1
        else:
            assert record.id and record.text and record.weight == 1.0


def test_the_same_corpus_is_the_same_ads(corpus: Corpus) -> None:
    assert records(corpus.patterns) == records(corpus.patterns)


def test_the_fingerprint_goes_with_the_content(corpus: Corpus) -> None:
    before = fingerprint(corpus)
    assert before == fingerprint(corpus)
    corpus.change()
    assert before != fingerprint(corpus)


@pytest.mark.parametrize("range_bytes", [1, 40, 1 << 30])
def test_bytes_add_up(corpus: Corpus, range_bytes: int) -> None:
    costs: dict[str, int] = {}
    for part in parts(corpus.patterns, range_bytes=range_bytes):
        costs[part.place] = costs.get(part.place, 0) + part.bytes
    assert costs == {item.place: item.bytes for item in registry.each(corpus.patterns)}
    assert min(costs.values()) > 0


def test_ranges_and_sources_travel(corpus: Corpus) -> None:
    for part in parts(corpus.patterns, range_bytes=100):
        assert pickle.loads(pickle.dumps(part)) == part
        assert len(pickle.dumps(part)) < 1000
        source = pickle.loads(pickle.dumps(registry.get(part.source)))
        there = list(source.read(part, ReadOptions()))
        assert there == list(registry.get(part.source).read(part, ReadOptions()))
        assert source.everywhere(part.place) == part.place


def test_workers_read_the_same(corpus: Corpus) -> None:
    pipeline = TestPipeline(runner=DEFAULT_RUNNER)
    found = pipeline | ReadAds(corpus.patterns, ReadOptions(), 100)
    expected = records(corpus.patterns, range_bytes=100)
    ads = found[READ] | beam.FlatMap(list)
    for tag, there, kind in ((READ, ads, Ad), (REJECTED, found[REJECTED], Rejected)):
        wanted = [record for record in expected if isinstance(record, kind)]
        assert_that(there, equal_to(wanted), label=tag)
    pipeline.run().wait_until_finish()


def test_the_main_job_reads_any_source(tmp_path: Path) -> None:
    ads, task = helpers.tiny_ads(), helpers.write_task(tmp_path)
    of_file = helpers.run(task, helpers.write_jsonl(tmp_path / "a.jsonl", ads), tmp_path / "w")
    source = Held(list(ads))
    with registry.registered(source):
        mined = helpers.run(task, "held://spring", tmp_path / "v", range_bytes=500)
        assert helpers.pairs_bytes(mined) == helpers.pairs_bytes(of_file)
        assert helpers.run(task, "held://spring", tmp_path / "v").scored_now == 0
        source.ads.append({"id": "new", "text": "A winner for your museum"})
        source.ads.append({"id": "no text"})
        again = helpers.run(task, "held://spring", tmp_path / "v", max_rejected_share=0.1)
        assert again.scored_now == 1
        letters = [Path(name).read_text() for name in again.dead_letters]
        [letter] = map(json.loads, "".join(letters).splitlines())
        assert (letter["source"], letter["position"]) == ("held://spring", f"row {len(ads) + 1}")


def test_two_sources_in_one_corpus(tmp_path: Path) -> None:
    path = helpers.write_jsonl(tmp_path / "a.jsonl", helpers.tiny_ads(5))
    with registry.registered(Held([{"text": "an ad"}])):
        found = parts(["held://b", str(path), "held://a"])
    assert [part.place for part in found] == [str(path), "held://a", "held://b"]


def test_names_of_sources() -> None:
    with (
        pytest.raises(ValueError, match="there is a source 'held' already"),
        registry.registered(Held([])),
        registry.registered(Held([])),
    ):
        pass
    assert "held" not in registry.names()
    with pytest.raises(UsageError, match="no file matches"):
        survey(["held"], ReadOptions(), 1)
