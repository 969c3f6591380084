"""What the launcher knows of a corpus: bounded, and the same in any order."""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.contracts import Ad, Rejected
from pipelines.errors import UsageError
from pipelines.sources import registry, survey
from pipelines.sources.base import Listed, Range, ReadOptions, Source


class Endless(Source):
    """``endless://N``: N things of a byte, listed in any order; what is looked at is noted."""

    name = "endless"

    def __init__(self) -> None:
        self.looked: list[str] = []
        self.contents: dict[str, str] = {}

    def list_items(self, pattern: str) -> Iterator[Listed]:
        order = list(range(int(pattern.rpartition("/")[2])))
        random.shuffle(order)
        for number in order:
            yield Listed(self.name, f"thing {number}", 1, "v", self.contents.get(str(number), "c"))

    def ranges(self, item: Listed, options: ReadOptions, range_bytes: int) -> Iterator[Range]:
        self.looked.append(item.place)
        if item.place == "thing 3":
            raise UsageError("thing 3: is no thing")
        for number in range(20):
            yield Range(self.name, item.place, "", number, number + 1, 1)

    def read(self, part: Range, options: ReadOptions) -> Iterator[Ad | Rejected]:
        raise AssertionError("a survey lists and cuts, it reads no record")


@pytest.fixture
def source() -> Iterator[Endless]:
    endless = Endless()
    with registry.registered(endless):
        yield endless


def look(*patterns: str) -> survey.Survey:
    return survey.survey(patterns, ReadOptions(), 1, fingerprinted=True)


def test_all_of_a_small_corpus(source: Endless) -> None:
    found = look("endless://x/3")
    assert (found.things, found.bytes, found.complete, len(found.ranges)) == (3, 3, True, 60)
    assert found.ranges == tuple(sorted(found.ranges, key=lambda p: (p.place, p.start)))
    with pytest.raises(UsageError, match="thing 3: is no thing"):
        look("endless://x/4")


def test_of_a_large_corpus_a_bounded_sample(
    source: Endless, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "LOOKED_AT", 10)
    monkeypatch.setattr(survey, "RANGES", 50)
    found = look("endless://x/2000")
    assert (found.things, found.bytes, found.complete, len(found.ranges)) == (2000, 2000, False, 50)
    looked = set(source.looked)
    assert len(looked) == len(source.looked) == 10
    # Drawn from all of it, whatever the order of the listing, by names alone.
    assert max(int(place.split()[1]) for place in looked) > 1000
    assert look("endless://x/2000") == found
    assert set(source.looked) == looked
    assert look("endless://x/2000").fingerprint != look("endless://x/1999").fingerprint
    source.contents["1999"] = "changed"
    assert look("endless://x/2000").fingerprint != found.fingerprint


def test_a_thing_that_two_patterns_name_counts_once(source: Endless) -> None:
    assert look("endless://x/3", "endless://y/2") == look("endless://x/3")


def test_what_a_corpus_takes_unpacked(tmp_path: Path) -> None:
    lines = b'{"text": "an ad"}\n' * 100
    (tmp_path / "a.jsonl").write_bytes(lines)
    options, everything = ReadOptions(), str(tmp_path)
    assert survey.survey([everything], options, 1 << 20).unpacked_bytes == len(lines)
    packed = gzip.compress(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(packed)
    found = survey.survey([everything], options, 1 << 20)
    assert found.unpacked_bytes == len(lines) + survey.PACKED_BY * len(packed)
