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
from pipelines.stages.check_corpus import Why, add_reasons, check, join_whys, places, why
from pipelines.store import scores
from pipelines.store.facts import Provenance, ScoredFacts
from pipelines.store.workspace import Manifest, Workspace


@dataclasses.dataclass(eq=False)
class CommitScored(beam.PTransform):
    """Write the ``scored`` manifest once every block is written.

    Input: a tuple of scored parts, ads that could not be scored, the dead-letter files, unread ads by
    script, and the corpus's tally. Output: ``PCollection[BlockFile]``, the files of parts that the committed
    manifest lists: ``shards`` of them, however large the corpus.

    Memory of a worker: a shard's parts, 0.4 KB each.

    Args:
        root: the workspace.
        attempt: the attempt folder, relative to the workspace.
        config_hash: hash of what shaped the scores and the corpus.
        origin: provenance for the manifest.
        max_rejected_share: checked again with the ads that could not be scored.
        shards: files of parts.
    """

    root: str
    attempt: str
    config_hash: str
    origin: Provenance
    max_rejected_share: float
    shards: int = 1

    def expand(
        self,
        inputs: tuple[
            beam.PCollection[ScoredPart],
            beam.PCollection[Rejected],
            beam.PCollection[BlockFile],
            beam.PCollection[tuple[str, int]],
            beam.PCollection[Tally],
        ],
    ) -> beam.PCollection[BlockFile]:
        """Apply the transform."""
        parts, unscored, dead_letters, unread, tally = inputs
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
        )
        rows = sum(file.rows for file in ordered)
        Workspace(self.root).commit(
            Manifest.of(self.attempt, self.config_hash, ordered, rows, facts)
        )
        yield from ordered


def _shard(part: ScoredPart, shards: int) -> int:
    found = hashlib.blake2b(f"{part.block}\0{part.overlay}".encode(), digest_size=8).digest()
    return int.from_bytes(found, "big") % shards
