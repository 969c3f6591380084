"""ScoreAds: LLM-0's margin and vector for every unique ad, in the score store.

An ad that any earlier run of this workspace scored with the same model and prompt is taken from there, if
its text is the same to the letter.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam import pvalue
from apache_beam.ml.inference.base import RunInference

from models import letters
from models.backends.base import Labeler
from pipelines.console import metrics
from pipelines.contracts import (
    UNSCORED_SCHEMA,
    Block,
    Rejected,
    ScoredPart,
    Tally,
)
from pipelines.errors import RunFailed
from pipelines.handlers import STAGE, LabelerHandler, ScoredBlock
from pipelines.numerics.weights import in_units, unit_of
from pipelines.stages import cascade_ads
from pipelines.stages.cascade_ads import Cascade, CascadeAds
from pipelines.store import blocks, scores

PARTS, REJECTED, UNREAD, CASCADE = "parts", "rejected", "unread", "cascade"


def weighed(table: pa.Table, unit: int) -> pa.Table:
    """Return ads (``UNIQUE_SCHEMA``) with their weights in a unit, as ``UNSCORED_SCHEMA``."""
    exact = table.column("exact").combine_chunks().dictionary_encode()
    each = pa.array([in_units(value, unit) for value in exact.dictionary.to_pylist()], pa.int64())
    place = table.schema.get_field_index("weight")
    return table.set_column(place, "weight", each.take(exact.indices)).select(UNSCORED_SCHEMA.names)


def by_prefix(table: pa.Table, length: int) -> Iterator[tuple[str, pa.Table]]:
    """Cut rows by the first ``length`` characters of their keys."""
    if not length:
        yield "", table
        return
    prefixes = np.array([key[:length] for key in table.column("key").to_pylist()])
    for prefix in np.unique(prefixes).tolist():
        yield prefix, table.filter(pa.array(prefixes == prefix))


def unread_scripts(scored: pa.Table) -> list[str]:
    """Return the script of each ad whose vector is made of its letters, "" of the others."""
    texts = scored.column("text").to_pylist()
    made = letters.made(texts, blocks.vectors(scored))
    return [letters.script_of(text) if own else "" for text, own in zip(texts, made, strict=True)]


@dataclasses.dataclass(eq=False)
class ScoreAds(beam.PTransform):
    """Score unique ads: blocks of ``UNIQUE_SCHEMA`` and the corpus's tally to scored parts.

    Output: a dict of ``PCollection[ScoredPart]`` (``parts``), ``PCollection[Rejected]``
    (``rejected``), and ``PCollection[tuple[str, int]]`` (``unread``): ads that the encoder cannot
    read, by script; with a cascade ``cascade``, what it did (``cascade.Read``) and by which student, in three
    singletons (see :class:`CascadeAds`).

    Ads are shuffled once, to the partition of their keys; there the keys that are known are read, and
    nothing else of what was scored before. Memory of a worker: a partition's ads (``scores.PARTITION_ADS``
    of about 0.4 KB), a block's keys, and a block that is scored.

    Args:
        load: returns the labeler, on the worker.
        root: the workspace.
        attempt: the attempt folder, relative to the workspace.
        score_key: hash of all that shapes a score (model, prompt, embedding, window).
        block_rows: ads a block; also what is lost at most when a run is killed.
        elsewhere: whether workers are other processes, which share a labeler, and may die.
        hints: Beam's resource hints for the workers that label.
        partition_ads: ads of a partition, about.
        most: new ads that may be scored; with more, none is.
        how: a cascade, where not every ad is read by the model; what is foretold lies under a score key
            of its own, so that what was read counts with and without a cascade.
    """

    load: Callable[[], Labeler]
    root: str
    attempt: str
    score_key: str
    block_rows: int = 1024
    elsewhere: bool = False
    hints: Mapping[str, str] = dataclasses.field(default_factory=dict)
    partition_ads: int = scores.PARTITION_ADS
    most: int | None = None
    how: Cascade | None = None

    def __post_init__(self) -> None:
        if self.block_rows < 1:
            raise ValueError(f"ScoreAds: block_rows must be at least 1, got {self.block_rows}")

    def expand(
        self, inputs: tuple[beam.PCollection[Block], beam.PCollection[Tally]]
    ) -> dict[str, Any]:
        """Apply the transform."""
        unique, checked = inputs
        tally = pvalue.AsSingleton(checked)
        split = (
            unique
            # Takes the tally, so it waits for the check.
            | "ToPartition" >> beam.FlatMap(self._to_partition, tally)
            | "GroupPartition" >> beam.GroupByKey()
            | "SplitKnown" >> beam.FlatMapTuple(self._split).with_outputs(PARTS, UNREAD, main="new")
        )
        new = split["new"]
        if self.most is not None:
            number = (
                new
                | "RowsOfNew" >> beam.Map(lambda block: block.rows)
                | "CountNew" >> beam.CombineGlobally(sum)
            )
            # Takes the number, so that nothing is scored before all is counted.
            new = new | "WithinLimit" >> beam.Map(
                _within, pvalue.AsSingleton(number), most=self.most
            )
        if self.elsewhere:
            # Whoever scores a block again, after a worker's death, finds the same ads in it and writes
            # the same file.
            new = new | "StableBlocks" >> beam.Reshuffle()
        if self.how:
            parted = new | "Cascade" >> CascadeAds(
                self.load, self.root, self.how, self.elsewhere, self.hints
            )
            results = parted[cascade_ads.READ]
            told = parted[cascade_ads.FORETOLD] | "WriteForetold" >> beam.FlatMap(
                self._write, tally, self.how.key
            ).with_outputs(UNREAD, main=PARTS)
            others = [told]
            done = parted[cascade_ads.DONE]
        else:
            label = RunInference(LabelerHandler(self.load, self.elsewhere))
            results = new | "Label" >> label.with_resource_hints(**self.hints)
            others, done = [], ()
        scored = (
            results
            | "Scored" >> beam.Map(lambda result: result.scored)
            | "WriteBlock"
            >> beam.FlatMap(self._write, tally, self.score_key).with_outputs(UNREAD, main=PARTS)
        )
        written = [split, scored, *others]
        return {
            PARTS: [found[PARTS] for found in written] | "JoinParts" >> beam.Flatten(),
            UNREAD: [found[UNREAD] for found in written] | "JoinUnread" >> beam.Flatten(),
            REJECTED: results | "Unscored" >> beam.FlatMap(_rejected),
            **({CASCADE: done} if done else {}),
        }

    def _prefix_length(self, tally: Tally) -> int:
        return scores.prefix_length(tally.unique, self.partition_ads)

    def _to_partition(self, block: Block, tally: Tally) -> Iterator[tuple[str, Block]]:
        table = weighed(blocks.from_block(block), unit_of(tally.weight))
        for prefix, rows in by_prefix(table, self._prefix_length(tally)):
            yield prefix, blocks.to_block(rows)

    def _split(self, prefix: str, packed: Iterable[Block]) -> Iterator[Block | pvalue.TaggedOutput]:
        table = blocks.sort_by_key(blocks.concat(list(packed))).combine_chunks()
        is_new = np.ones(table.num_rows, dtype=bool)
        found = []
        unread: Counter[str] = Counter()
        # What the model said counts before what was foretold.
        for key in (self.score_key, *([self.how.key] if self.how else [])):
            there = scores.blocks_of(self.root, key, prefix)
            there = scores.compact(self.root, there, self.block_rows)
            left = np.flatnonzero(is_new)
            open_ads = table.take(pa.array(left))
            held = scores.known(self.root, there, open_ads.column("key"), open_ads.column("text"))
            for path, rows, ads, scripts in held:
                found.append((path, rows, table.take(pa.array(left[ads]))))
                is_new[left[ads]] = False
                unread.update(filter(None, scripts))
        if found:
            folder = scores.corpus_folder(self.score_key, self.attempt)
            name = f"known-{prefix or 'all'}"
            for part in scores.write_overlay(self.root, folder, name, found):
                metrics.count(STAGE, "done", part.rows)
                metrics.count(STAGE, "reused", part.rows)
                yield pvalue.TaggedOutput(PARTS, part)
        for script in sorted(unread.items()):
            yield pvalue.TaggedOutput(UNREAD, script)
        new = table.filter(pa.array(is_new))
        for start in range(0, new.num_rows, self.block_rows):
            yield blocks.to_block(new.slice(start, self.block_rows))

    def _write(
        self, packed: Block, tally: Tally, key: str
    ) -> Iterator[ScoredPart | pvalue.TaggedOutput]:
        if not packed.rows:
            return
        table = blocks.from_block(packed)
        scripts = unread_scripts(table)
        # A block is of one partition, as it came.
        prefix = table.column("key")[0].as_py()[: self._prefix_length(tally)]
        # Named by content: a bundle that a runner retries writes the same files again.
        yield scores.store(self.root, self.score_key, self.attempt, prefix, table, scripts, key)
        for script in sorted(Counter(filter(None, scripts)).items()):
            yield pvalue.TaggedOutput(UNREAD, script)


def _within(block: Block, number: int, most: int) -> Block:
    if number > most:
        raise RunFailed(
            f"{number:,} ads are new, and --max_ads and --max_cost leave {max(0, most):,}: none of them was "
            "scored; raise the limit, or give fewer files"
        )
    return block


def _rejected(result: ScoredBlock) -> Iterable[Rejected]:
    return result.rejected
