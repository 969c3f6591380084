"""GatherRows: the scored rows of a few known ads, wherever they lie."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines.contracts import Block, BlockFile
from pipelines.store import blocks


def is_among(table: pa.Table, keys: Collection[str]) -> np.ndarray:
    """Return which rows' content keys are among ``keys``, bool (rows,)."""
    found = table.column("key").to_pylist()
    return np.fromiter((key in keys for key in found), bool, len(found))


class GatherRows(beam.PTransform):
    """Gather rows: ``PCollection[BlockFile]`` to ``PCollection[Block]`` in any order.

    Args:
        root: the workspace.
        keys: content keys of the wanted ads, few enough to travel with the job.
        columns: columns wanted, ``key`` among them.
    """

    def __init__(self, root: str, keys: Collection[str], columns: Sequence[str]) -> None:
        super().__init__()
        self._gather = _Gather(root, frozenset(keys), tuple(columns))

    def expand(self, files: beam.PCollection[BlockFile]) -> beam.PCollection[Block]:
        """Apply the transform."""
        return files | "Gather" >> beam.ParDo(self._gather)


class _Gather(beam.DoFn):
    def __init__(self, root: str, keys: frozenset[str], columns: tuple[str, ...]) -> None:
        self._root, self._keys, self._columns = root, keys, columns

    def process(self, file: BlockFile) -> Iterator[Block]:
        if not self._keys:
            return
        with blocks.OpenBlock(self._root, file) as block:
            wanted = is_among(block.columns(["key"]), self._keys)
            if wanted.any():
                yield blocks.to_block(block.rows(wanted, self._columns))
