"""CheckCorpus: stops a run whose corpus is empty or mostly unusable, before it costs anything."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence

import apache_beam as beam
from apache_beam import pvalue

from pipelines.contracts import Ad, Block, BlockFile, Rejected, Tally
from pipelines.errors import RunFailed
from pipelines.numerics import weights
from pipelines.sources.base import STAGE as READ_ADS
from pipelines.store import blocks, files

# Ads, their exact weight, and the names of their fields.
_Size = tuple[int, str, frozenset[str]]
NO_RECORDS = "the corpus holds no records: every file is empty"


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
        raise RunFailed(NO_RECORDS)
    reasons, examples = json.loads(tally.reasons), json.loads(tally.examples)
    counts = ", ".join(
        f"{reason} {number:,} (first {examples.get(reason, 'unknown')})"
        for reason, number in sorted(reasons.items(), key=lambda i: -i[1])
    )
    share = tally.rejected / tally.records
    if tally.unique == 0:
        raise RunFailed(f"none of the {tally.records:,} records is usable: {counts}; see {where}")
    if share > max_rejected_share:
        raise RunFailed(
            f"{tally.rejected:,} of {tally.records:,} records ({share:.1%}) were rejected, more "
            f"than --max_rejected_share {max_rejected_share:g}: {counts}; see {where}"
        )


# Records rejected for a reason, and the first of them: what sorts it, and a sentence.
Why = tuple[int, tuple[str, int, str], str]


def why(item: Rejected) -> Why:
    """Return a rejection as what :func:`join_whys` adds up."""
    return item.records, item.place(), item.example()


def join_whys(found: Iterable[Why]) -> Why:
    """Add up rejections for one reason, in any order."""
    found = list(found)
    if not found:
        return 0, ("", 0, ""), ""
    _, first, example = min(found, key=lambda one: one[1:])
    return sum(records for records, *_ in found), first, example


def add_reasons(tally: Tally, found: Sequence[tuple[str, Why]]) -> Tally:
    """Return a tally with more rejections, which come by reason."""
    counts, examples = json.loads(tally.reasons), json.loads(tally.examples)
    for reason, (records, _, example) in sorted(found):
        counts[reason] = counts.get(reason, 0) + records
        examples.setdefault(reason, example)
    return dataclasses.replace(
        tally,
        rejected=tally.rejected + sum(records for _, (records, _, _) in found),
        reasons=json.dumps(counts, sort_keys=True),
        examples=json.dumps(examples, sort_keys=True),
    )


def places(root: str, letters: list[BlockFile]) -> str:
    """Return where the dead letters lie, for a message."""
    paths = sorted(files.full_path(root, file) for file in letters)
    return ", ".join(paths[:3]) + (" ..." if len(paths) > 3 else "") or "the log"


@dataclasses.dataclass(eq=False)
class CheckCorpus(beam.PTransform):
    """Count what was read, and fail the run where it cannot go on.

    Input: a tuple of ads, unique ads, rejected records, and the dead-letter files already
    written (so that a failed run leaves them behind). Output: a singleton
    ``PCollection[Tally]``; what takes it as a side input waits for the check.

    Args:
        root: the workspace, for the message.
        max_rejected_share: largest share of records that may be rejected, 0 to 1.
        fields: names of the ads' fields. One that no ad has is a mistake in the task file.
    """

    root: str
    max_rejected_share: float
    fields: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.max_rejected_share <= 1:
            raise ValueError(f"max_rejected_share must be 0 to 1, got {self.max_rejected_share}")

    def expand(
        self,
        inputs: tuple[
            beam.PCollection[list[Ad]],
            beam.PCollection[Block],
            beam.PCollection[Rejected],
            beam.PCollection[Rejected],
            beam.PCollection[BlockFile],
        ],
    ) -> beam.PCollection[Tally]:
        """Apply the transform to (ads, unique, unreadable, conflicting, dead-letter files)."""
        ads, unique, unreadable, conflicting, files = inputs
        read = ads | "CountAds" >> beam.Map(len) | "SumAds" >> beam.CombineGlobally(sum)
        size = (
            unique
            | "MeasureUnique" >> beam.Map(_measure, bool(self.fields))
            | "SumSizes" >> beam.CombineGlobally(_added)
        )
        reasons = (
            (unreadable, conflicting)
            | "JoinRejected" >> beam.Flatten()
            | "Reason" >> beam.Map(lambda item: ((item.stage, item.reason), why(item)))
            | "CountReasons" >> beam.CombinePerKey(join_whys)
        )
        return (
            ads.pipeline
            | "One" >> beam.Create([None], reshuffle=False)
            | "Check"
            >> beam.Map(
                self._check,
                read=pvalue.AsSingleton(read),
                size=pvalue.AsSingleton(size),
                reasons=pvalue.AsList(reasons),
                files=pvalue.AsList(files),
            )
        )

    def _check(
        self,
        _: None,
        read: int,
        size: _Size,
        reasons: list[tuple[tuple[str, str], Why]],
        files: list[BlockFile],
    ) -> Tally:
        unique, weight, seen = size
        unreadable = sum(records for (stage, _), (records, *_) in reasons if stage == READ_ADS)
        read_tally = Tally(read + unreadable, 0, "{}", "{}", unique, weight)
        tally = add_reasons(read_tally, [(reason, found) for (_, reason), found in reasons])
        check(tally, self.max_rejected_share, places(self.root, files))
        for name in self.fields:
            if name not in seen:
                raise RunFailed(
                    f"ad.fields: none of the {unique:,} distinct ads has the field {name!r}; mend "
                    "its path in the task file, or take it out"
                )
        return tally


def _measure(block: Block, has_fields: bool) -> _Size:
    table = blocks.from_block(block)
    names: set[str] = set()
    if has_fields:
        for shown in table.column("fields").unique().to_pylist():
            names.update(name for name, _ in json.loads(shown))
    return table.num_rows, weights.total(table.column("exact").to_pylist()), frozenset(names)


def _added(sizes: Iterable[_Size]) -> _Size:
    ads, exact, names = 0, weights.total(()), frozenset[str]()
    for more_ads, more_exact, more_names in sizes:
        ads, exact = ads + more_ads, weights.total((exact, more_exact))
        names |= more_names
    return ads, exact, names
