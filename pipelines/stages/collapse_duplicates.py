"""CollapseDuplicates: one ad a normalised text, with the summed weight of its copies."""

from __future__ import annotations

import dataclasses
import operator
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam import pvalue

from pipelines.console import metrics
from pipelines.contracts import UNIQUE_SCHEMA, Ad, Block, Rejected, UniqueAd
from pipelines.numerics import weights
from pipelines.store import blocks

STAGE = "CollapseDuplicates"
UNIQUE, REJECTED = "unique", "rejected"
# What a partition's ads take in their corpus, bytes: some 200,000 ads of a line, 0.2 GB in a worker.
PARTITION_BYTES = 32 << 20
# Texts kept of an id that stands for several; the rest are only counted.
_MAX_TEXTS = 16
# Ads of a block that leaves.
_BLOCK_ROWS = 32_768
_id, _key = operator.attrgetter("id"), operator.attrgetter("key")

# The texts behind an id by their keys, and the number of records whose texts were only counted.
Texts = tuple[dict[str, UniqueAd], int]


def partitions_of(corpus_bytes: int) -> int:
    """Return into how many partitions a corpus of so many bytes, unpacked, is cut."""
    return 1 + corpus_bytes // PARTITION_BYTES


def to_unique(ad: Ad) -> UniqueAd:
    """Return a record as one of the copies of its text."""
    exact = weights.exact(ad.weight)
    return UniqueAd(ad.id, ad.text, ad.source, ad.position, ad.fields, ad.key, exact, 1)


def joined(old: UniqueAd, new: UniqueAd) -> UniqueAd:
    """Join copies of one text: the smallest id represents, weights and records add up."""
    first = min(old, new, key=lambda ad: ad[:5])
    exact = weights.total((old.exact, new.exact))
    return first._replace(exact=exact, copies=old.copies + new.copies)


def merge_texts(first: Texts, second: Texts) -> Texts:
    """Join what was seen of one id, in any order: the ``_MAX_TEXTS`` texts of smallest keys are kept."""
    merged, overflow = dict(first[0]), first[1] + second[1]
    for key, ad in second[0].items():
        merged[key] = joined(merged[key], ad) if key in merged else ad
    for key in sorted(merged)[_MAX_TEXTS:]:
        overflow += merged.pop(key).copies
    return merged, overflow


def conflicts(id: str, found: Texts) -> list[Rejected]:
    """Return a rejection for each text of an id that stands for several.

    Nothing tells which of the texts is the right one, and a verdict on such an id would count
    for the wrong ad; so none of them is used.
    """
    texts, overflow = found
    distinct = f"more than {_MAX_TEXTS}" if overflow else str(len(texts))
    remedy = "ids must be unique"
    if len({ad.source for ad in texts.values()}) > 1:
        remedy += "; if each file counts its rows from the beginning, --id_field none makes ids from the texts"
    return [
        Rejected(
            id=id,
            stage=STAGE,
            reason="id_conflict",
            detail=f"the id stands for {distinct} different texts; {remedy}",
            source=ad.source,
            position=ad.position,
            excerpt=ad.text[:200],
            records=ad.copies + (overflow if index == 0 else 0),
        )
        for index, (_, ad) in enumerate(sorted(texts.items()))
    ]


def merge_ids(ads: Iterable[UniqueAd]) -> tuple[dict[str, UniqueAd], dict[str, Texts]]:
    """Join the records of each id.

    Memory: the distinct ids, and ``_MAX_TEXTS`` texts of one that stands for several.

    Returns:
        what ids of one text stand for, by id, and the texts of the others.
    """
    alone: dict[str, UniqueAd] = {}
    several: dict[str, Texts] = {}
    for ad in ads:
        id, key = ad.id, ad.key
        if id in several:
            several[id] = merge_texts(several[id], ({key: ad}, 0))
        elif (old := alone.get(id)) is None:
            alone[id] = ad
        elif old.key == key:
            alone[id] = joined(old, ad)
        else:
            several[id] = merge_texts(({old.key: alone.pop(id)}, 0), ({key: ad}, 0))
    return alone, several


def merge_copies(ads: Iterable[UniqueAd]) -> dict[str, UniqueAd]:
    """Join the copies of each text; returns them by content key. Memory: the distinct texts."""
    merged: dict[str, UniqueAd] = {}
    for ad in ads:
        old = merged.get(ad.key)
        merged[ad.key] = ad if old is None else joined(old, ad)
    return merged


def to_blocks(ads: Sequence[UniqueAd]) -> Iterator[Block]:
    """Pack ads into blocks of ``UNIQUE_SCHEMA``."""
    for start in range(0, len(ads), _BLOCK_ROWS):
        columns = zip(*ads[start : start + _BLOCK_ROWS], strict=True)
        found = dict(zip(UniqueAd._fields, columns, strict=True))
        found["weight"] = (0,) * len(found["id"])
        arrays = [pa.array(found[field.name], field.type) for field in UNIQUE_SCHEMA]
        yield blocks.to_block(pa.Table.from_arrays(arrays, schema=UNIQUE_SCHEMA))


# Ads on their way: a column an attribute. An element each would cost a runner ten times what is done to it,
# and as Arrow they would take 2 KB where a partition gets a single one.
_Columns = tuple[tuple[Any, ...], ...]


def _by_partition(
    ads: Iterable[UniqueAd], name: Callable[[UniqueAd], str], partitions: int
) -> Iterator[tuple[int, _Columns]]:
    """Part ads by a hash of their ids or keys."""
    parts: dict[int, list[UniqueAd]] = {}
    for ad in ads:
        number = zlib.crc32(name(ad).encode("utf-8", "surrogatepass")) % partitions
        parts.setdefault(number, []).append(ad)
    for number, some in parts.items():
        yield number, tuple(zip(*some, strict=True))


def _joined_again(parts: Iterable[_Columns]) -> Iterator[UniqueAd]:
    for columns in parts:
        yield from map(UniqueAd._make, zip(*columns, strict=True))


@dataclasses.dataclass(eq=False)
class CollapseDuplicates(beam.PTransform):
    """Collapse copies: ``PCollection[list[Ad]]`` to blocks of unique ads and rejected id conflicts.

    Output: a dict of ``PCollection[Block]`` of ``UNIQUE_SCHEMA`` (``unique``) and
    ``PCollection[Rejected]`` (``rejected``).

    Memory of a worker: the distinct ads of a partition, about 1 KB each.

    Args:
        corpus_ids: ids come from the corpus, so one id may stand for two texts. Content ids
            cannot, and one shuffle is saved.
        partitions: into which ads are parted, by id and by text (see :func:`partitions_of`).
    """

    corpus_ids: bool
    partitions: int = 1

    def expand(self, ads: beam.PCollection[list[Ad]]) -> dict[str, beam.PCollection]:
        """Apply the transform."""
        if self.corpus_ids:
            outcome = (
                ads
                | "ById" >> beam.FlatMap(self._by_id)
                | "GroupIds" >> beam.GroupByKey()
                | "ResolveIds"
                >> beam.FlatMapTuple(self._resolve).with_outputs(REJECTED, main=UNIQUE)
            )
            by_text, rejected = outcome[UNIQUE], outcome[REJECTED]
        else:
            by_text = ads | "ByText" >> beam.FlatMap(self._by_text)
            rejected = ads.pipeline | "NoConflicts" >> beam.Create([], reshuffle=False)
        unique = (
            by_text | "GroupTexts" >> beam.GroupByKey() | "MergeCopies" >> beam.FlatMapTuple(_merge)
        )
        return {UNIQUE: unique, REJECTED: rejected}

    def _by_id(self, ads: Sequence[Ad]) -> Iterator[tuple[int, _Columns]]:
        return _by_partition(map(to_unique, ads), _id, self.partitions)

    def _by_text(self, ads: Sequence[Ad]) -> Iterator[tuple[int, _Columns]]:
        unique = merge_copies(map(to_unique, ads)).values()
        return _by_partition(unique, _key, self.partitions)

    def _resolve(
        self, _: int, parts: Iterable[_Columns]
    ) -> Iterator[tuple[int, _Columns] | pvalue.TaggedOutput]:
        alone, several = merge_ids(_joined_again(parts))
        for id, found in several.items():
            for rejected in conflicts(id, found):
                metrics.count(STAGE, "rejected", rejected.records)
                yield pvalue.TaggedOutput(REJECTED, rejected)
        unique = merge_copies(alone.values()).values()
        yield from _by_partition(unique, _key, self.partitions)


def _merge(_: int, parts: Iterable[_Columns]) -> Iterator[Block]:
    unique = list(merge_copies(_joined_again(parts)).values())
    metrics.count(STAGE, "unique", len(unique))
    yield from to_blocks(unique)
