"""WriteRejected: the dead-letter output, JSON lines a person can read."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable

import apache_beam as beam

from pipelines.contracts import BlockFile, Rejected
from pipelines.store import files


def to_lines(rejected: Iterable[Rejected]) -> bytes:
    """Return rejected records as sorted JSON lines."""
    return b"".join(sorted(files.json_lines(rejected).splitlines(keepends=True)))


@dataclasses.dataclass(eq=False)
class WriteRejected(beam.PTransform):
    """Write ``PCollection[Rejected]`` as ``<folder>/rejected-<name>-<shard>.jsonl``.

    Output: ``PCollection[BlockFile]``, one a file written; none when nothing was rejected.

    Args:
        root: the workspace.
        folder: the attempt folder, relative to the workspace.
        name: which part of the pipeline rejected.
        shards: number of files.
    """

    root: str
    folder: str
    name: str
    shards: int = 1

    def __post_init__(self) -> None:
        if self.shards < 1:
            raise ValueError(f"WriteRejected: shards must be at least 1, got {self.shards}")

    def expand(self, rejected: beam.PCollection[Rejected]) -> beam.PCollection[BlockFile]:
        """Apply the transform."""
        return (
            rejected
            | "KeyByShard"
            >> beam.Map(lambda item, shards: (_shard(item, shards), item), self.shards)
            | "GroupShards" >> beam.GroupByKey()
            | "WriteShard" >> beam.MapTuple(self._write)
        )

    def _write(self, shard: int, rejected: Iterable[Rejected]) -> BlockFile:
        rows = list(rejected)
        path = f"{self.folder}/rejected-{self.name}-{shard:05d}.jsonl"
        return files.write(self.root, path, to_lines(rows), len(rows))


def _shard(item: Rejected, shards: int) -> int:
    where = f"{item.source}\0{item.position}\0{item.id}".encode()
    return int.from_bytes(hashlib.blake2b(where, digest_size=8).digest(), "big") % shards
