"""ReadAds: a corpus from any source to ads, with everything unusable in a dead-letter output."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam import pvalue

from pipelines.console import metrics
from pipelines.contracts import Ad, Rejected
from pipelines.sources import registry
from pipelines.sources.base import STAGE, Range, ReadOptions, Source

ADS, REJECTED = "ads", "rejected"


class ReadAds(beam.PTransform):
    """Read ranges of a corpus.

    Output: a tuple of ``PCollection[Ad]`` (tag ``ads``) and ``PCollection[Rejected]`` (tag
    ``rejected``).

    Args:
        ranges: what to read, from :func:`pipelines.sources.registry.plan`.
        options: which fields to read and what is too long.
    """

    def __init__(self, ranges: Sequence[Range], options: ReadOptions) -> None:
        super().__init__()
        if not ranges:
            raise ValueError("ReadAds needs at least one range")
        self._ranges = list(ranges)
        # Sources travel with the step: a worker need not have registered them.
        sources = {name: registry.get(name) for name in {part.source for part in ranges}}
        self._read = _ReadRange(sources, options)

    def expand(self, pipeline: Any) -> pvalue.DoOutputsTuple:
        """Apply the transform to a pipeline."""
        return (
            pipeline
            | "Ranges" >> beam.Create(self._ranges, reshuffle=False)
            # Without it a runner may read all ranges in the bundle that created them.
            | "SpreadRanges" >> beam.Reshuffle()
            | "ReadRange" >> beam.ParDo(self._read).with_outputs(REJECTED, main=ADS)
        )


class _ReadRange(beam.DoFn):
    def __init__(self, sources: Mapping[str, Source], options: ReadOptions) -> None:
        self._sources, self._options = sources, options

    def process(self, part: Range) -> Iterator[Ad | pvalue.TaggedOutput]:
        records = iter(self._sources[part.source].read(part, self._options))
        busy = 0.0
        while True:
            # Only the reader's own time: what happens to a record while it is yielded is not ours.
            start = time.perf_counter()
            record = next(records, None)
            busy += time.perf_counter() - start
            if record is None:
                break
            metrics.count(STAGE, "records")
            if isinstance(record, Rejected):
                metrics.count(STAGE, "rejected")
                yield pvalue.TaggedOutput(REJECTED, record)
            else:
                yield record
        metrics.count(STAGE, "msec", round(1000 * busy))
