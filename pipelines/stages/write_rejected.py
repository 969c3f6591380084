"""WriteRejected: the dead-letter output, JSON lines a person can read."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Iterator

import apache_beam as beam

from pipelines.contracts import BlockFile, Rejected
from pipelines.store import files

# Letters of a file: what a worker holds of them.
_FILE_ROWS = 100_000


def to_lines(rejected: Iterable[Rejected]) -> bytes:
    """Return rejected records as sorted JSON lines."""
    return b"".join(sorted(files.json_lines(rejected).splitlines(keepends=True)))


@dataclasses.dataclass(eq=False)
class WriteRejected(beam.PTransform):
    """Write ``PCollection[Rejected]`` as ``<folder>/rejected-<name>-<shard>-<hash>.jsonl``.

    Output: ``PCollection[BlockFile]``, one a file written; none when nothing was rejected. A shard of more
    than ``file_rows`` letters goes on in ``…-<shard>-1-<hash>.jsonl``.

    Memory of a worker: ``file_rows`` letters, about 1 KB each.

    Args:
        root: the workspace.
        folder: the attempt folder, relative to the workspace.
        name: which part of the pipeline rejected.
        shards: parts that are written side by side.
        file_rows: letters of a file at most.
    """

    root: str
    folder: str
    name: str
    shards: int = 1
    file_rows: int = _FILE_ROWS

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
            | "WriteShard" >> beam.FlatMapTuple(self._write)
        )

    def _write(self, shard: int, rejected: Iterable[Rejected]) -> Iterator[BlockFile]:
        letters = iter(rejected)
        for number in itertools.count():
            rows = list(itertools.islice(letters, self.file_rows))
            if not rows:
                return
            more = f"-{number}" if number else ""
            # Its manifest lists the path alone: the name tells whether it is still what was written.
            path = f"{self.folder}/rejected-{self.name}-{shard:05d}{more}-*.jsonl"
            yield files.write(self.root, path, to_lines(rows), len(rows))


def _shard(item: Rejected, shards: int) -> int:
    where = f"{item.source}\0{item.position}\0{item.id}".encode()
    return int.from_bytes(hashlib.blake2b(where, digest_size=8).digest(), "big") % shards
