"""JoinNights: the scored ads of several dates as one corpus; what came on two of them is one ad."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam import pvalue

from pipelines.console import metrics
from pipelines.contracts import Block, ScoredPart
from pipelines.stages.score_ads import by_prefix
from pipelines.store import blocks, scores

STAGE = "JoinNights"
PARTS, UNREAD = "parts", "unread"
# Of what a night says of an ad.
_COLUMNS = ["key", "id", "fields", "weight", "copies", "script"]


@dataclasses.dataclass(frozen=True, slots=True)
class NightPart:
    """Ads of one date.

    Attributes:
        part: the ads.
        place: of the date among those that are joined, the later the larger.
        unit: power of ten of their weights' unit.
    """

    part: ScoredPart
    place: int
    unit: int


@dataclasses.dataclass(eq=False)
class JoinNights(beam.PTransform):
    """Join dates: ``PCollection[NightPart]`` to scored parts, each ad once.

    Of an ad that came on several dates weights and copies add up; id, fields and spelling are those of the
    last one. Texts and vectors stay where they are: what is shuffled is 0.2 KB an ad and date.

    Output: a dict of ``PCollection[ScoredPart]`` (``parts``) and ``PCollection[tuple[str, int]]``
    (``unread``), ads that the encoder cannot read, by script. Memory of a worker: a partition's ads.

    Args:
        root: the workspace.
        folder: of the overlay that is written, from ``scores.corpus_folder``.
        unit: power of ten of the joined weights' unit, none finer than that of any date.
        prefix_length: hex digits of the keys by which ads are partitioned.
    """

    root: str
    folder: str
    unit: int
    prefix_length: int

    def expand(self, parts: beam.PCollection[NightPart]) -> dict[str, beam.PCollection]:
        """Apply the transform."""
        joined = (
            parts
            | "ReadAds" >> beam.FlatMap(self._read)
            | "GroupAds" >> beam.GroupByKey()
            | "Join" >> beam.FlatMapTuple(self._join).with_outputs(UNREAD, main=PARTS)
        )
        return {PARTS: joined[PARTS], UNREAD: joined[UNREAD]}

    def _read(self, night: NightPart) -> Iterator[tuple[str, Block]]:
        with metrics.timed(STAGE), scores.OpenPart(self.root, night.part) as opened:
            table, rows = opened.columns(_COLUMNS), opened.places()
        if night.unit != self.unit:
            weights = np.rint(table.column("weight").to_numpy() / 10.0 ** (self.unit - night.unit))
            place = table.schema.get_field_index("weight")
            table = table.set_column(place, "weight", pa.array(weights.astype(np.int64)))
        number = len(rows)
        table = (
            table.append_column("row", pa.array(rows.astype(np.int64)))
            .append_column("night", pa.array(np.full(number, night.place, dtype=np.int64)))
            .append_column("block", pa.array([night.part.block] * number, pa.string()))
        )
        for prefix, own in by_prefix(table.combine_chunks(), self.prefix_length):
            yield prefix, blocks.to_block(own)

    def _join(
        self, prefix: str, packed: Iterable[Block]
    ) -> Iterator[ScoredPart | pvalue.TaggedOutput]:
        with metrics.timed(STAGE):
            ads = last_of_each(blocks.concat(list(packed)))
            block = ads.column("block").to_numpy(zero_copy_only=False)
            found = []
            for name in sorted(set(block)):
                own = ads.filter(pa.array(block == name))
                found.append((name, own.column("row").to_numpy(), own))
            yield from scores.write_overlay(
                self.root, self.folder, f"joined-{prefix or 'all'}", found
            )
        scripts = Counter(filter(None, ads.column("script").to_pylist()))
        for script in sorted(scripts.items()):
            yield pvalue.TaggedOutput(UNREAD, script)


def last_of_each(ads: pa.Table) -> pa.Table:
    """Return each key once, as its last night has it, with the weights and copies of all of them."""
    order: Sequence[tuple[str, str]] = [
        ("key", "ascending"),
        ("night", "descending"),
        ("block", "ascending"),
        ("row", "ascending"),
    ]
    ads = ads.sort_by(list(order)).combine_chunks()
    keys = ads.column("key").to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    first = ads.take(pa.array(starts))
    for name in ("weight", "copies"):
        place = first.schema.get_field_index(name)
        total = np.add.reduceat(ads.column(name).to_numpy(), starts)
        first = first.set_column(place, ads.schema.field(place), pa.array(total))
    return first
