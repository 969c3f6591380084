"""CommitScored: the manifest that makes a scored attempt count."""

from __future__ import annotations

import json
from collections.abc import Iterator

import apache_beam as beam
from apache_beam import pvalue

from pipelines.contracts import BlockFile, Rejected, Tally
from pipelines.errors import RunFailed
from pipelines.stages.check_corpus import check, places
from pipelines.store.facts import Provenance, ScoredFacts
from pipelines.store.workspace import Manifest, Workspace


class CommitScored(beam.PTransform):
    """Write the ``scored`` manifest once every block is written.

    Input: a tuple of scored files, ads that could not be scored, the dead-letter files, and the
    corpus's tally. Output: ``PCollection[BlockFile]``, the scored files, from the committed
    manifest.

    Args:
        root: the workspace.
        attempt: the attempt folder, relative to the workspace.
        config_hash: hash of what shaped the scores and the corpus.
        origin: provenance for the manifest.
        max_rejected_share: checked again with the ads that could not be scored.
    """

    def __init__(
        self,
        root: str,
        attempt: str,
        config_hash: str,
        origin: Provenance,
        max_rejected_share: float,
    ) -> None:
        super().__init__()
        self._commit = _Commit(root, attempt, config_hash, origin, max_rejected_share)

    def expand(
        self,
        inputs: tuple[
            beam.PCollection[BlockFile],
            beam.PCollection[Rejected],
            beam.PCollection[BlockFile],
            beam.PCollection[Tally],
        ],
    ) -> beam.PCollection[BlockFile]:
        """Apply the transform."""
        files, unscored, dead_letters, tally = inputs
        reasons = (
            unscored
            | "Reason" >> beam.Map(lambda item: (item.reason, item.records))
            | "CountReasons" >> beam.CombinePerKey(sum)
        )
        return tally | "Commit" >> beam.ParDo(
            self._commit,
            files=pvalue.AsList(files),
            reasons=pvalue.AsList(reasons),
            dead_letters=pvalue.AsList(dead_letters),
        )


def add_reasons(tally: Tally, reasons: list[tuple[str, int]]) -> Tally:
    """Add the ads that could not be scored to the tally."""
    counts = json.loads(tally.reasons)
    for reason, number in reasons:
        counts[reason] = counts.get(reason, 0) + number
    return Tally(
        records=tally.records,
        rejected=tally.rejected + sum(number for _, number in reasons),
        reasons=json.dumps(counts, sort_keys=True),
        unique=tally.unique,
        weight=tally.weight,
    )


class _Commit(beam.DoFn):
    def __init__(
        self, root: str, attempt: str, config_hash: str, origin: Provenance, share: float
    ) -> None:
        self._root, self._attempt, self._hash = root, attempt, config_hash
        self._origin, self._share = origin, share

    def process(
        self,
        tally: Tally,
        files: list[BlockFile],
        reasons: list[tuple[str, int]],
        dead_letters: list[BlockFile],
    ) -> Iterator[BlockFile]:
        total = add_reasons(tally, reasons)
        where = places(self._root, dead_letters)
        check(total, self._share, where)
        if not files:
            raise RunFailed(f"none of the {tally.unique:,} ads could be scored; see {where}")
        ordered = sorted(files, key=lambda file: file.path)
        facts = ScoredFacts(
            origin=self._origin,
            records=total.records,
            rejected=total.rejected,
            reasons=json.loads(total.reasons),
            unique=total.unique,
            weight=total.weight / 1000,
            dead_letters=tuple(sorted(file.path for file in dead_letters)),
        )
        rows = sum(file.rows for file in ordered)
        Workspace(self._root).commit(Manifest.of(self._attempt, self._hash, ordered, rows, facts))
        yield from ordered
