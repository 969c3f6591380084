"""ScoreAds: LLM-0's margin and vector for every unique ad, as Parquet blocks.

An ad that any earlier attempt of this workspace scored with the same model and prompt is taken
from there, if its text is the same to the letter.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam import pvalue
from apache_beam.ml.inference.base import RunInference

from models import letters
from models.backends.base import Labeler
from pipelines.console import metrics
from pipelines.contracts import (
    AD_SCHEMA,
    UNSCORED_SCHEMA,
    Block,
    BlockFile,
    Rejected,
    Tally,
    UniqueAd,
)
from pipelines.handlers import STAGE, LabelerHandler, ScoredBlock
from pipelines.numerics.weights import in_units, unit_of
from pipelines.store import blocks, files, storage
from pipelines.store.workspace import block_record
from pipelines.text import digest

FILES, REJECTED, UNREAD = "files", "rejected", "unread"


def to_ad_block(ads: Sequence[UniqueAd]) -> Block:
    """Pack unique ads into a block of ``UNSCORED_SCHEMA``."""
    arrays = [
        pa.array([getattr(ad, field.name) for ad in ads], field.type) for field in UNSCORED_SCHEMA
    ]
    return blocks.to_block(pa.Table.from_arrays(arrays, schema=UNSCORED_SCHEMA))


def reuse_rows(scored: pa.Table, wanted: Sequence[tuple[int, UniqueAd]]) -> pa.Table:
    """Return scored rows under the ids, weights and copies of today's corpus.

    Args:
        scored: a scored block.
        wanted: (row, ad) pairs.
    """
    ordered = sorted(wanted, key=lambda item: item[0])
    table = scored.take(pa.array([row for row, _ in ordered], pa.int64()))
    for name in AD_SCHEMA.names:
        column = pa.array([getattr(ad, name) for _, ad in ordered], AD_SCHEMA.field(name).type)
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


def unread_scripts(block: Block) -> list[tuple[str, int]]:
    """Count a block's ads whose vectors are made of their letters, by script."""
    if not block.rows:
        return []
    table = blocks.from_block(block)
    texts, stored = table.column("text").to_pylist(), blocks.vectors(table)
    made = letters.made(texts, stored.astype(np.float16))
    counts = Counter(letters.script_of(texts[row]) for row in np.flatnonzero(made))
    return sorted(counts.items())


@dataclasses.dataclass(eq=False)
class ScoreAds(beam.PTransform):
    """Score unique ads: ``PCollection[UniqueAd]`` and the corpus's tally to scored files.

    Output: a dict of ``PCollection[BlockFile]`` (``files``), ``PCollection[Rejected]``
    (``rejected``), and ``PCollection[tuple[str, int]]`` (``unread``): ads that the encoder cannot
    read, by script, a pair a block.

    Args:
        load: returns the labeler, on the worker.
        root: the workspace.
        folder: the attempt folder, relative to the workspace.
        score_key: hash of all that shapes a score (model, prompt, embedding, window).
        known: blocks scored before with the same ``score_key``.
        block_rows: ads a block; also what is lost at most when a run is killed.
        elsewhere: whether workers are other processes, which share a labeler, and may die.
        hints: Beam's resource hints for the workers that label.
    """

    load: Callable[[], Labeler]
    root: str
    folder: str
    score_key: str
    known: Sequence[BlockFile]
    block_rows: int = 1024
    elsewhere: bool = False
    hints: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.block_rows < 1:
            raise ValueError(f"ScoreAds: block_rows must be at least 1, got {self.block_rows}")

    def expand(
        self, inputs: tuple[beam.PCollection[UniqueAd], beam.PCollection[Tally]]
    ) -> dict[str, beam.PCollection]:
        """Apply the transform."""
        unique, checked = inputs
        new = unique | "WaitForCheck" >> beam.Map(_weighed, pvalue.AsSingleton(checked))
        # Each branch writes its own blocks: behind a Flatten the write is a step of its own, which
        # starts when all ads are scored, and a kill before that would lose every one of them.
        write = (self.root, self.folder, self.score_key)
        files, unread = [], []
        if self.known:
            new, reused = self._split_known(new)
            unread.append(reused | "UnreadReused" >> beam.FlatMap(unread_scripts))
            files.append(reused | "WriteReused" >> beam.FlatMap(_write, *write))
        packed = (
            new
            | "Batch" >> beam.BatchElements(self.block_rows, self.block_rows)
            | "ToBlock" >> beam.Map(to_ad_block)
        )
        if self.elsewhere:
            # Whoever scores a block again, after a worker's death, finds the same ads in it and writes
            # the same file.
            packed = packed | "StableBlocks" >> beam.Reshuffle()
        label = RunInference(LabelerHandler(self.load, self.elsewhere))
        results = packed | "Label" >> label.with_resource_hints(**self.hints)
        scored = results | "Scored" >> beam.Map(_scored)
        unread.append(scored | "UnreadScored" >> beam.FlatMap(unread_scripts))
        files.append(scored | "WriteBlock" >> beam.FlatMap(_write, *write))
        return {
            UNREAD: unread | "JoinUnread" >> beam.Flatten(),
            FILES: files | "JoinFiles" >> beam.Flatten(),
            REJECTED: results | "Unscored" >> beam.FlatMap(_rejected),
        }

    def _split_known(
        self, unique: beam.PCollection[UniqueAd]
    ) -> tuple[beam.PCollection[UniqueAd], beam.PCollection[Block]]:
        known = (
            unique.pipeline
            | "KnownBlocks" >> beam.Create(self.known)
            | "ReadKeys" >> beam.FlatMap(_read_keys, self.root)
        )
        keyed = unique | "KeyByText" >> beam.Map(lambda ad: (ad.key, ad))
        outcome = (
            {"ads": keyed, "known": known}
            | "JoinKnown" >> beam.CoGroupByKey()
            | "SplitKnown" >> beam.FlatMapTuple(_split).with_outputs("known", main="new")
        )
        reused = (
            outcome["known"]
            | "GroupByBlock" >> beam.GroupByKey()
            | "ReuseRows" >> beam.Map(_reused, self.root)
        )
        return outcome["new"], reused


def _weighed(ad: UniqueAd, tally: Tally) -> UniqueAd:
    return dataclasses.replace(ad, weight=in_units(ad.exact, unit_of(tally.weight)))


def _scored(result: ScoredBlock) -> Block:
    return result.scored


def _rejected(result: ScoredBlock) -> Iterable[Rejected]:
    return result.rejected


def _read_keys(file: BlockFile, root: str) -> Iterator[tuple[str, tuple[BlockFile, int, str]]]:
    table = blocks.read_columns(root, file, ["key", "text"])
    keys, texts = table.column("key").to_pylist(), table.column("text").to_pylist()
    for row, (key, text) in enumerate(zip(keys, texts, strict=True)):
        yield key, (file, row, digest(text))


def _split(_: str, found: dict[str, Iterable]) -> Iterator[UniqueAd | pvalue.TaggedOutput]:
    # No ad: scored once, no longer in the corpus. More than one cannot be: texts are unique.
    for ad in found["ads"]:
        text = digest(ad.text)
        # An attempt that was killed and the one after it may both hold the ad.
        matches = [(file.path, row, file) for file, row, known in found["known"] if known == text]
        if matches:
            path, row, file = min(matches, key=lambda match: match[:2])
            yield pvalue.TaggedOutput("known", (path, (file, row, ad)))
        else:
            yield ad


def _reused(item: tuple[str, Iterable[tuple[BlockFile, int, UniqueAd]]], root: str) -> Block:
    found = list(item[1])
    table = reuse_rows(blocks.read(root, found[0][0]), [(row, ad) for _, row, ad in found])
    metrics.count(STAGE, "done", table.num_rows)
    metrics.count(STAGE, "reused", table.num_rows)
    return blocks.to_block(table)


def _write(block: Block, root: str, folder: str, score_key: str) -> list[BlockFile]:
    if not block.rows:
        return []
    # Named by content: a bundle that a runner retries writes the same file again.
    file = blocks.write(root, f"{folder}/block-*.parquet", blocks.from_block(block))
    record = files.full_path(root, file).removesuffix(".parquet") + ".json"
    storage.write(record, block_record(file, score_key))
    return [file]
