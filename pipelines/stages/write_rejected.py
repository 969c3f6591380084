"""WriteRejected: the dead-letter output, JSON lines a person can read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator

import apache_beam as beam

from pipelines.contracts import BlockFile, Rejected
from pipelines.store import files


def to_lines(rejected: Iterable[Rejected]) -> bytes:
    """Return rejected records as sorted JSON lines."""
    lines = [json.dumps(dataclasses.asdict(item), ensure_ascii=False) for item in rejected]
    return "".join(f"{line}\n" for line in sorted(lines)).encode()


class WriteRejected(beam.PTransform):
    """Write ``PCollection[Rejected]`` as ``<folder>/rejected-<name>-<shard>.jsonl``.

    Output: ``PCollection[BlockFile]``, one a file written; none when nothing was rejected.

    Args:
        root: the workspace.
        folder: the attempt folder, relative to the workspace.
        name: which part of the pipeline rejected.
        shards: number of files.
    """

    def __init__(self, root: str, folder: str, name: str, shards: int = 1) -> None:
        super().__init__()
        if shards < 1:
            raise ValueError(f"WriteRejected: shards must be at least 1, got {shards}")
        self._root, self._folder, self._name, self._shards = root, folder, name, shards

    def expand(self, rejected: beam.PCollection[Rejected]) -> beam.PCollection[BlockFile]:
        """Apply the transform."""
        shards = self._shards
        return (
            rejected
            | "KeyByShard" >> beam.Map(lambda item: (_shard(item, shards), item))
            | "GroupShards" >> beam.GroupByKey()
            | "WriteShard" >> beam.ParDo(_Write(self._root, self._folder, self._name))
        )


def _shard(item: Rejected, shards: int) -> int:
    where = f"{item.source}\0{item.position}\0{item.id}".encode()
    return int.from_bytes(hashlib.blake2b(where, digest_size=8).digest(), "big") % shards


class _Write(beam.DoFn):
    def __init__(self, root: str, folder: str, name: str) -> None:
        self._root, self._folder, self._name = root, folder, name

    def process(self, item: tuple[int, Iterable[Rejected]]) -> Iterator[BlockFile]:
        shard, rejected = item
        rows = list(rejected)
        path = f"{self._folder}/rejected-{self._name}-{shard:05d}.jsonl"
        yield files.write(self._root, path, to_lines(rows), len(rows))
