"""ReadAds: a corpus from any source to ads, with everything unusable in a dead-letter output."""

from __future__ import annotations

import dataclasses
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


@dataclasses.dataclass(eq=False)
class ReadAds(beam.PTransform):
    """Read ranges of a corpus.

    Output: a tuple of ``PCollection[Ad]`` (tag ``ads``) and ``PCollection[Rejected]`` (tag
    ``rejected``).

    Args:
        ranges: what to read, from :func:`pipelines.sources.registry.plan`.
        options: which fields to read and what is too long.
    """

    ranges: Sequence[Range]
    options: ReadOptions

    def __post_init__(self) -> None:
        if not self.ranges:
            raise ValueError("ReadAds needs at least one range")

    def expand(self, pipeline: Any) -> pvalue.DoOutputsTuple:
        """Apply the transform to a pipeline."""
        # Sources travel with the step: a worker need not have registered them.
        sources = {name: registry.get(name) for name in {part.source for part in self.ranges}}
        return (
            pipeline
            | "Ranges" >> beam.Create(self.ranges, reshuffle=False)
            # Without it a runner may read all ranges in the bundle that created them.
            | "SpreadRanges" >> beam.Reshuffle()
            | "ReadRange"
            >> beam.FlatMap(_read, sources, self.options).with_outputs(REJECTED, main=ADS)
        )


def _read(
    part: Range, sources: Mapping[str, Source], options: ReadOptions
) -> Iterator[Ad | pvalue.TaggedOutput]:
    records = iter(sources[part.source].read(part, options))
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
