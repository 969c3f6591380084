"""What the launcher knows of a corpus: how much there is, whether it changed, and some of its parts.

The listing is read once, in a stream. What is held is bounded: `LOOKED_AT` things are looked at (all of
them where there are no more, else those of lowest hash), and `RANGES` of their ranges are kept.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pipelines.numerics import hashing
from pipelines.sources import registry
from pipelines.sources.base import Listed, Range, ReadOptions
from pipelines.sources.layout import PARQUET, XLSX
from pipelines.text import digest

# Things that are looked at, and ranges of them that are kept.
LOOKED_AT, RANGES = 256, 1024
# Read to tell whether a corpus changed, where its store keeps no checksums; larger ones go by their versions.
HASHED_BYTES = 8 << 30

# What packed records take unpacked, times their files.
PACKED_BY = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Survey:
    """What is known of a corpus before any worker has seen it.

    Attributes:
        things: files or tables; beyond `LOOKED_AT`, one that two patterns name counts twice.
        bytes: of all of them.
        fingerprint: 32 hex characters that change when the content does; "" where it was not asked for.
        ranges: all ranges, sorted, or the `RANGES` of lowest hash of the things that were looked at.
        complete: whether these are all.
    """

    things: int
    bytes: int
    fingerprint: str
    ranges: tuple[Range, ...]
    complete: bool

    @property
    def unpacked_bytes(self) -> int:
        """About how many bytes the records take once they are unpacked, judged by the ranges that were kept."""
        kept = sum(part.bytes for part in self.ranges)
        unpacked = sum(part.bytes * (PACKED_BY if _is_packed(part) else 1) for part in self.ranges)
        return self.bytes * unpacked // max(kept, 1)


def _is_packed(part: Range) -> bool:
    return part.format in (PARQUET, XLSX) or bool(part.layout and part.layout.packing)


def survey(
    patterns: Sequence[str], options: ReadOptions, range_bytes: int, fingerprinted: bool = False
) -> Survey:
    """Look at a corpus.

    Args:
        patterns: ``--corpus`` values.
        options: how its records will be read.
        range_bytes: as in :meth:`Source.ranges`.
        fingerprinted: whether to tell its fingerprint, for which local files are read.

    Raises:
        UsageError: a value names nothing that can be read, or one of the things that were looked at cannot.
        RunFailed: object storage does not answer.
    """
    seen = _Lowest[Listed](LOOKED_AT, lambda item: f"{item.source}\0{item.place}")
    prints = _Fingerprint()
    things = size = 0
    for item in registry.each(patterns):
        if seen.add(item):
            things, size = things + 1, size + item.bytes
            if fingerprinted:
                prints.add(item)
    kept = _Lowest[Range](RANGES, lambda part: f"{part.source}\0{part.place}\0{part.start}")
    number = sum(kept.add(part) for part in _ranges(sorted(seen.held()), options, range_bytes))
    return Survey(
        things,
        size,
        prints.hex() if fingerprinted else "",
        tuple(sorted(kept.held(), key=lambda part: (part.source, part.place, part.start))),
        things <= LOOKED_AT and number <= RANGES,
    )


def _ranges(items: Iterable[Listed], options: ReadOptions, range_bytes: int) -> Iterator[Range]:
    for item in items:
        yield from registry.get(item.source).ranges(item, options, range_bytes)


class _Lowest(Generic[T]):
    """The members of lowest hash of a stream, each once.

    Memory: `limit` members, whatever goes through.
    """

    def __init__(self, limit: int, name: Callable[[T], str]) -> None:
        self._limit, self._name = limit, name
        self._heap: list[tuple[float, str]] = []
        self._held: dict[str, T] = {}

    def add(self, member: T) -> bool:
        """Take a member in; tells whether it is new, or may be: what was put out is forgotten."""
        name = self._name(member)
        if name in self._held:
            return False
        rank = (-hashing.unit_hash(name, 0), name)
        if len(self._heap) < self._limit:
            heapq.heappush(self._heap, rank)
            self._held[name] = member
        elif rank > self._heap[0]:
            _, out = heapq.heapreplace(self._heap, rank)
            del self._held[out]
            self._held[name] = member
        return True

    def held(self) -> list[T]:
        return list(self._held.values())


class _Fingerprint:
    """A sum of hashes: the order of a listing does not count, and nothing of it is held.

    By what things hold, as long as little must be read to tell; else by the state that they are in.
    """

    def __init__(self) -> None:
        self._by_content = self._by_version = 0
        self._read = 0

    def add(self, item: Listed) -> None:
        place = (item.source, item.place, item.bytes)
        self._by_version = _added(self._by_version, (*place, item.version))
        self._read += 0 if item.content else item.bytes
        if self._read <= HASHED_BYTES:
            content = registry.get(item.source).content_of(item)
            self._by_content = _added(self._by_content, (*place, content))

    def hex(self) -> str:
        total = self._by_content if self._read <= HASHED_BYTES else self._by_version
        return f"{total:032x}"


def _added(total: int, facts: Sequence[str | int]) -> int:
    return (total + int(digest(json.dumps(facts)), 16)) % (1 << 128)
