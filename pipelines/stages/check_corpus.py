"""CheckCorpus: stops a run whose corpus is empty or mostly unusable, before it costs anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam import pvalue

from pipelines.contracts import Ad, BlockFile, Rejected, Tally, UniqueAd
from pipelines.errors import RunFailed
from pipelines.store import storage

# Sums are 64-bit integers in thousandths; what is left is room for rounding.
_MAX_WEIGHT = 2**62


def check(tally: Tally, max_rejected_share: float, where: str) -> None:
    """Refuse a corpus.

    Args:
        tally: what was read.
        max_rejected_share: largest share of records that may be rejected, 0 to 1.
        where: the dead-letter files, for the message.

    Raises:
        RunFailed: no records, no usable records, or too many rejected ones.
    """
    if tally.records == 0:
        raise RunFailed("the corpus holds no records: every file is empty")
    reasons = json.loads(tally.reasons)
    counts = ", ".join(
        f"{reason} {number:,}" for reason, number in sorted(reasons.items(), key=lambda i: -i[1])
    )
    share = tally.rejected / tally.records
    if tally.unique == 0:
        raise RunFailed(f"none of the {tally.records:,} records is usable: {counts}; see {where}")
    if share > max_rejected_share:
        raise RunFailed(
            f"{tally.rejected:,} of {tally.records:,} records ({share:.1%}) were rejected, more "
            f"than --max_rejected_share {max_rejected_share:g}: {counts}; see {where}"
        )


def places(root: str, files: list[BlockFile]) -> str:
    """Return where the dead letters lie, for a message."""
    paths = sorted(storage.join(root, *file.path.split("/")) for file in files)
    return ", ".join(paths[:3]) + (" ..." if len(paths) > 3 else "") or "the log"


class CheckCorpus(beam.PTransform):
    """Count what was read, and fail the run where it cannot go on.

    Input: a tuple of ads, unique ads, rejected records, and the dead-letter files already
    written (so that a failed run leaves them behind). Output: a singleton
    ``PCollection[Tally]``; what takes it as a side input waits for the check.

    Args:
        root: the workspace, for the message.
        max_rejected_share: largest share of records that may be rejected, 0 to 1.
    """

    def __init__(self, root: str, max_rejected_share: float) -> None:
        super().__init__()
        if not 0 <= max_rejected_share <= 1:
            raise ValueError(f"max_rejected_share must be 0 to 1, got {max_rejected_share}")
        self._root, self._share = root, max_rejected_share

    def expand(
        self,
        inputs: tuple[
            beam.PCollection[Ad],
            beam.PCollection[UniqueAd],
            beam.PCollection[Rejected],
            beam.PCollection[Rejected],
            beam.PCollection[BlockFile],
        ],
    ) -> beam.PCollection[Tally]:
        """Apply the transform to (ads, unique, unreadable, conflicting, dead-letter files)."""
        ads, unique, unreadable, conflicting, files = inputs
        read = ads | "CountAds" >> beam.combiners.Count.Globally()
        size = unique | "MeasureUnique" >> beam.CombineGlobally(_CountAndWeight())
        reasons = (
            (unreadable, conflicting)
            | "JoinRejected" >> beam.Flatten()
            | "Reason" >> beam.Map(lambda item: ((item.stage, item.reason), item.records))
            | "CountReasons" >> beam.CombinePerKey(sum)
        )
        return (
            ads.pipeline
            | "One" >> beam.Create([None], reshuffle=False)
            | "Check"
            >> beam.ParDo(
                _Check(self._root, self._share),
                read=pvalue.AsSingleton(read),
                size=pvalue.AsSingleton(size),
                reasons=pvalue.AsList(reasons),
                files=pvalue.AsList(files),
            )
        )


class _CountAndWeight(beam.CombineFn):
    def create_accumulator(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        return 0, 0

    def add_input(
        self, total: tuple[int, int], ad: UniqueAd, *args: Any, **kwargs: Any
    ) -> tuple[int, int]:
        return total[0] + 1, total[1] + ad.weight

    def merge_accumulators(self, totals: Any, *args: Any, **kwargs: Any) -> tuple[int, int]:
        pairs = list(totals)
        return sum(count for count, _ in pairs), sum(weight for _, weight in pairs)

    def extract_output(self, total: tuple[int, int], *args: Any, **kwargs: Any) -> tuple[int, int]:
        return total


class _Check(beam.DoFn):
    def __init__(self, root: str, share: float) -> None:
        self._root, self._share = root, share

    def process(
        self,
        _: None,
        read: int,
        size: tuple[int, int],
        reasons: list[tuple[tuple[str, str], int]],
        files: list[BlockFile],
    ) -> Iterator[Tally]:
        if size[1] > _MAX_WEIGHT:
            raise RunFailed(
                f"the ads' weights add up to {size[1] / 1000:.3g}, at most {_MAX_WEIGHT / 1000:.3g} "
                "is possible; give a --weight_field in larger units"
            )
        counts: dict[str, int] = {}
        unreadable = rejected = 0
        for (stage, reason), number in reasons:
            counts[reason] = counts.get(reason, 0) + number
            rejected += number
            unreadable += number if stage == "ReadAds" else 0
        tally = Tally(
            records=read + unreadable,
            rejected=rejected,
            reasons=json.dumps(counts, sort_keys=True),
            unique=size[0],
            weight=size[1],
        )
        check(tally, self._share, places(self._root, files))
        yield tally
