"""ReadAds: a corpus from any source to ads, with everything unusable in a dead-letter output."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam import pvalue

from pipelines.console import metrics
from pipelines.contracts import Ad, Rejected
from pipelines.errors import RunFailed, UsageError
from pipelines.sources import registry
from pipelines.sources.base import STAGE, Listed, Range, ReadOptions, Source

ADS, REJECTED = "ads", "rejected"
RANGE_BYTES = 64 << 20
# Ads of an element.
_BATCH = 4096


@dataclasses.dataclass(eq=False)
class ReadAds(beam.PTransform):
    """List a corpus, cut it into ranges and read these, all on the workers.

    Output: a dict of ``PCollection[list[Ad]]`` (``ads``, up to 4,096 an element: an element an ad costs a
    runner more than reading it) and ``PCollection[Rejected]`` (``rejected``). The graph holds patterns and
    settings alone. A pattern is listed by one worker, in a stream; what it names is shuffled, and looked at
    and cut by any; so are the ranges.

    Memory of a worker: 4,096 ads, and what their format reads at a time (4,096 rows of Parquet, a chunk of
    16 MiB of Cloud Storage).

    Args:
        patterns: ``--corpus`` values.
        options: which fields to read and what is too long.
        range_bytes: large files are cut into ranges of about this size.
    """

    patterns: Sequence[str]
    options: ReadOptions
    range_bytes: int = RANGE_BYTES

    def __post_init__(self) -> None:
        if not self.patterns:
            raise ValueError("ReadAds needs at least one pattern")

    def expand(self, pipeline: Any) -> dict[str, beam.PCollection]:
        """Apply the transform to a pipeline."""
        by_source: dict[str, list[str]] = {}
        for pattern in dict.fromkeys(self.patterns):
            source = registry.source_of(pattern)
            by_source.setdefault(source.name, []).append(source.everywhere(pattern))
        found = [
            pipeline | f"Read{name.capitalize()}" >> self._reading(registry.get(name), patterns)
            for name, patterns in by_source.items()
        ]
        if len(found) == 1:
            # Behind a Flatten the in-memory runner holds every ad once more.
            return {tag: found[0][tag] for tag in (ADS, REJECTED)}
        return {
            tag: [one[tag] for one in found] | f"Join{tag.capitalize()}" >> beam.Flatten()
            for tag in (ADS, REJECTED)
        }

    def _reading(self, source: Source, patterns: Sequence[str]) -> beam.PTransform:
        own = source.reading(patterns, self.options)
        if own is None:
            return _ReadRanges(source, patterns, self.options, self.range_bytes)
        batches = beam.BatchElements(_BATCH, _BATCH)
        return (
            own
            | "Batch" >> batches
            | "Sort" >> beam.FlatMap(_sorted).with_outputs(REJECTED, main=ADS)
        )


@dataclasses.dataclass(eq=False)
class _ReadRanges(beam.PTransform):
    # The source travels with the step: a worker need not have registered it.
    source: Source
    patterns: Sequence[str]
    options: ReadOptions
    range_bytes: int

    def expand(self, pipeline: Any) -> pvalue.DoOutputsTuple:
        return (
            pipeline
            | "Patterns" >> beam.Create(self.patterns, reshuffle=False)
            | "List" >> beam.FlatMap(_list, self.source)
            # Patterns may overlap; and without a shuffle one worker would look at everything.
            | "EachOnce" >> beam.GroupByKey()
            | "Cut" >> beam.FlatMap(_cut, self.source, self.options, self.range_bytes)
            # Without it the worker that cut a thing may read all of it.
            | "SpreadRanges" >> beam.Reshuffle()
            | "ReadRange"
            >> beam.FlatMap(_read, self.source, self.options).with_outputs(REJECTED, main=ADS)
        )


def _list(pattern: str, source: Source) -> Iterator[tuple[str, Listed]]:
    try:
        for item in source.list_items(pattern):
            yield item.place, item
    except UsageError as error:
        # It was there when the run began.
        raise RunFailed(error.typed) from error


def _cut(
    named: tuple[str, Iterable[Listed]], source: Source, options: ReadOptions, range_bytes: int
) -> Iterator[Range]:
    try:
        for part in source.ranges(min(named[1]), options, range_bytes):
            yield from source.cut(part, options, range_bytes)
    except UsageError as error:
        raise RunFailed(error.typed) from error


def _read(
    part: Range, source: Source, options: ReadOptions
) -> Iterator[list[Ad] | pvalue.TaggedOutput]:
    records = iter(source.read(part, options))
    while True:
        # Only the reader's own time: what happens to ads while they are yielded is not ours.
        start = time.perf_counter()
        batch = list(itertools.islice(records, _BATCH))
        metrics.count(STAGE, "msec", round(1000 * (time.perf_counter() - start)))
        if not batch:
            break
        yield from _sorted(batch)


def _sorted(batch: Sequence[Ad | Rejected]) -> Iterator[list[Ad] | pvalue.TaggedOutput]:
    ads: list[Ad] = []
    for record in batch:
        if isinstance(record, Rejected):
            metrics.count(STAGE, "rejected")
            yield pvalue.TaggedOutput(REJECTED, record)
        else:
            ads.append(record)
    metrics.count(STAGE, "records", len(batch))
    if ads:
        yield ads
