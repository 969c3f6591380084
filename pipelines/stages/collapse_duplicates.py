"""CollapseDuplicates: one ad a normalised text, with the summed weight of its copies."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import apache_beam as beam
from apache_beam import pvalue

from pipelines.console import metrics
from pipelines.contracts import Ad, Rejected, UniqueAd
from pipelines.numerics import weights

STAGE = "CollapseDuplicates"
UNIQUE, REJECTED = "unique", "rejected"
# Texts kept of an id that stands for several; the rest are only counted.
_MAX_TEXTS = 16

# key -> (text, source, position, fields, exact weight, records); tuples, for one stands for
# every ad that is shuffled, and encodes seven times as fast as a record.
_Texts = dict[str, tuple[str, str, str, str, str, int]]


def merge_texts(accumulators: Iterable[tuple[_Texts, int]]) -> tuple[_Texts, int]:
    """Join what several workers saw of one id.

    Returns:
        the texts by content key (the ``_MAX_TEXTS`` smallest keys), and the number of records
        whose texts were only counted.
    """
    merged: _Texts = {}
    overflow = 0
    for texts, dropped in accumulators:
        overflow += dropped
        for key, new in texts.items():
            old = merged.get(key)
            if old:
                new = (*min(old[:4], new[:4]), weights.total((old[4], new[4])), old[5] + new[5])
            merged[key] = new
    for key in sorted(merged)[_MAX_TEXTS:]:
        overflow += merged.pop(key)[5]
    return merged, overflow


def resolve_id(id: str, texts: _Texts, overflow: int) -> list[UniqueAd | Rejected]:
    """Return the ad behind an id, or a rejection for each text when it stands for several.

    Nothing tells which of the texts is the right one, and a verdict on such an id would count
    for the wrong ad; so none of them is used.
    """
    if len(texts) == 1 and not overflow:
        [(key, (text, source, position, fields, weight, records))] = texts.items()
        return [UniqueAd(id, key, text, 0, records, source, position, fields, weight)]
    distinct = f"more than {_MAX_TEXTS}" if overflow else str(len(texts))
    files = {source for _, source, *_ in texts.values()}
    remedy = "ids must be unique"
    if len(files) > 1:
        remedy += "; if each file counts its rows from the beginning, --id_field none makes ids from the texts"
    return [
        Rejected(
            id=id,
            stage=STAGE,
            reason="id_conflict",
            detail=f"the id stands for {distinct} different texts; {remedy}",
            source=source,
            position=position,
            excerpt=text[:200],
            records=records + (overflow if index == 0 else 0),
        )
        for index, (_, (text, source, position, _, _, records)) in enumerate(sorted(texts.items()))
    ]


def merge_copies(copies: Iterable[UniqueAd]) -> UniqueAd:
    """Join the copies of one text: smallest id represents, weights and copies add up."""
    copies = list(copies)
    if not copies:
        raise ValueError("merge_copies needs at least one ad")
    first = min(copies, key=_order)
    if len(copies) == 1:
        return first
    exact = weights.total(ad.exact for ad in copies)
    return dataclasses.replace(first, exact=exact, copies=sum(ad.copies for ad in copies))


def _order(ad: UniqueAd) -> tuple[str, ...]:
    return ad.id, ad.text, ad.source, ad.position, ad.fields


@dataclasses.dataclass(eq=False)
class CollapseDuplicates(beam.PTransform):
    """Collapse copies: ``PCollection[Ad]`` to unique ads and rejected id conflicts.

    Output: a tuple of ``PCollection[UniqueAd]`` (tag ``unique``) and ``PCollection[Rejected]``
    (tag ``rejected``).

    Args:
        corpus_ids: ids come from the corpus, so one id may stand for two texts. Content ids
            cannot, and one shuffle is saved.
    """

    corpus_ids: bool

    def expand(self, ads: beam.PCollection[Ad]) -> dict[str, beam.PCollection]:
        """Apply the transform."""
        if self.corpus_ids:
            outcome = (
                ads
                | "KeyById" >> beam.Map(_keyed)
                | "TextsPerId" >> beam.CombinePerKey(merge_texts)
                | "ResolveId" >> beam.FlatMapTuple(_resolve).with_outputs(REJECTED, main=UNIQUE)
            )
            first, rejected = outcome[UNIQUE], outcome[REJECTED]
        else:
            first = ads | "ToUnique" >> beam.Map(_to_unique)
            rejected = ads.pipeline | "NoConflicts" >> beam.Create([], reshuffle=False)
        unique = (
            first
            | "KeyByText" >> beam.Map(lambda ad: (ad.key, ad))
            | "MergeCopies" >> beam.CombinePerKey(merge_copies)
            | "CountUnique" >> beam.Map(_counted)
        )
        return {UNIQUE: unique, REJECTED: rejected}


def _to_unique(ad: Ad) -> UniqueAd:
    exact = weights.exact(ad.weight)
    return UniqueAd(ad.id, ad.key, ad.text, 0, 1, ad.source, ad.position, ad.fields, exact)


def _counted(item: tuple[str, UniqueAd]) -> UniqueAd:
    metrics.count(STAGE, "unique")
    return item[1]


def _keyed(ad: Ad) -> tuple[str, tuple[_Texts, int]]:
    weight = weights.exact(ad.weight)
    return ad.id, ({ad.key: (ad.text, ad.source, ad.position, ad.fields, weight, 1)}, 0)


def _resolve(id: str, found: tuple[_Texts, int]) -> Iterator[UniqueAd | pvalue.TaggedOutput]:
    for outcome in resolve_id(id, *found):
        if isinstance(outcome, Rejected):
            metrics.count(STAGE, "rejected", outcome.records)
            yield pvalue.TaggedOutput(REJECTED, outcome)
        else:
            yield outcome
