"""CommitScored: the manifest that makes a scored attempt count."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator

import apache_beam as beam
from apache_beam import pvalue

from pipelines.contracts import BlockFile, Rejected, ScoredPart, Tally
from pipelines.errors import RunFailed
from pipelines.numerics import weights
from pipelines.numerics.cascade import Read, measure_miss
from pipelines.stages.cascade_ads import Cascade
from pipelines.stages.check_corpus import Why, add_reasons, check, join_whys, places, why
from pipelines.store import scores, students
from pipelines.store.facts import CascadeFacts, Provenance, ScoredFacts
from pipelines.store.workspace import Manifest, Workspace


@dataclasses.dataclass(eq=False)
class CommitScored(beam.PTransform):
    """Write the ``scored`` manifest once every block is written.

    Input: a tuple of scored parts, ads that could not be scored, the dead-letter files, unread ads by
    script, and the corpus's tally; of a cascade also what it did and by which student. Output: ``PCollection[BlockFile]``, the files of parts that the committed
    manifest lists: ``shards`` of them, however large the corpus.

    Memory of a worker: a shard's parts, 0.4 KB each.

    Args:
        root: the workspace.
        attempt: the attempt folder, relative to the workspace.
        config_hash: hash of what shaped the scores and the corpus.
        origin: provenance for the manifest.
        max_rejected_share: checked again with the ads that could not be scored.
        shards: files of parts.
        how: a cascade by which the ads were scored, or None.
    """

    root: str
    attempt: str
    config_hash: str
    origin: Provenance
    max_rejected_share: float
    shards: int = 1
    how: Cascade | None = None

    def expand(
        self,
        inputs: tuple[
            beam.PCollection[ScoredPart],
            beam.PCollection[Rejected],
            beam.PCollection[BlockFile],
            beam.PCollection[tuple[str, int]],
            beam.PCollection[Tally],
            *tuple[beam.PCollection, ...],
        ],
    ) -> beam.PCollection[BlockFile]:
        """Apply the transform."""
        parts, unscored, dead_letters, unread, tally, *done = inputs
        files = (
            parts
            | "KeyByShard" >> beam.Map(lambda part, n: (_shard(part, n), part), self.shards)
            | "GroupShards" >> beam.GroupByKey()
            | "WriteParts" >> beam.MapTuple(self._write)
        )
        reasons = (
            unscored
            | "Reason" >> beam.Map(lambda item: (item.reason, why(item)))
            | "CountReasons" >> beam.CombinePerKey(join_whys)
        )
        return tally | "Commit" >> beam.FlatMap(
            self._commit,
            files=pvalue.AsList(files),
            reasons=pvalue.AsList(reasons),
            dead_letters=pvalue.AsList(dead_letters),
            unread=pvalue.AsDict(unread | "CountUnread" >> beam.CombinePerKey(sum)),
            **dict(zip(("done", "student", "pilot"), map(pvalue.AsSingleton, done), strict=False)),
        )

    def _write(self, shard: int, parts: Iterable[ScoredPart]) -> BlockFile:
        return scores.write_parts(self.root, self.attempt, shard, list(parts))

    def _commit(
        self,
        tally: Tally,
        files: list[BlockFile],
        reasons: list[tuple[str, Why]],
        dead_letters: list[BlockFile],
        unread: dict[str, int],
        done: Read | None = None,
        student: str = "",
        pilot: int = 0,
    ) -> Iterator[BlockFile]:
        total = add_reasons(tally, reasons)
        where = places(self.root, dead_letters)
        check(total, self.max_rejected_share, where)
        if not files:
            raise RunFailed(f"none of the {tally.unique:,} ads could be scored; see {where}")
        ordered = sorted(files, key=lambda file: file.path)
        facts = ScoredFacts(
            origin=self.origin,
            records=total.records,
            rejected=total.rejected,
            reasons=json.loads(total.reasons),
            examples=json.loads(total.examples),
            weight_unit=weights.unit_of(total.weight),
            unread=dict(sorted(unread.items())),
            unique=total.unique,
            weight=float(total.weight),
            dead_letters=tuple(sorted(file.path for file in dead_letters)),
            cascade=self._cascade(done, student, pilot) if done else None,
        )
        rows = sum(file.rows for file in ordered)
        Workspace(self.root).commit(
            Manifest.of(self.attempt, self.config_hash, ordered, rows, facts)
        )
        yield from ordered

    def _cascade(self, done: Read, student: str, pilot: int) -> CascadeFacts:
        assert self.how is not None
        how = self.how
        held = students.read(self.root, student) if student else None
        explored = int(done.explored.sum())
        share = how.share if how.share is not None or held is None else held.share(how.kept)
        return CascadeFacts(
            student=student,
            by=how.by,
            correlation=held.correlation if held else None,
            share=share if held else None,
            kept=how.kept,
            read=pilot + int(done.above.sum()) + explored,
            foretold=done.below - explored,
            miss=measure_miss(done, how.prior) if held and done.above.sum() + done.below else None,
        )


def _shard(part: ScoredPart, shards: int) -> int:
    found = hashlib.blake2b(f"{part.block}\0{part.overlay}".encode(), digest_size=8).digest()
    return int.from_bytes(found, "big") % shards
