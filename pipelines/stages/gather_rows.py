"""GatherRows: the scored rows of a few known ads, wherever they lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipelines.contracts import Block, ScoredPart
from pipelines.store import blocks, scores


def is_among(table: pa.Table, keys: Collection[str]) -> np.ndarray:
    """Return which rows' content keys are among ``keys``, bool (rows,)."""
    if not keys:
        return np.zeros(table.num_rows, dtype=bool)
    found = table.column("key").to_pylist()
    return np.fromiter((key in keys for key in found), bool, len(found))


@dataclasses.dataclass(eq=False)
class GatherRows(beam.PTransform):
    """Gather rows: ``PCollection[ScoredPart]`` to ``PCollection[Block]`` in any order.

    Args:
        root: the workspace.
        keys: content keys of the wanted ads, few enough to travel with the job.
        columns: columns wanted, ``key`` among them.
    """

    root: str
    keys: Collection[str]
    columns: Sequence[str]

    def expand(self, parts: beam.PCollection[ScoredPart]) -> beam.PCollection[Block]:
        """Apply the transform."""
        return parts | "Gather" >> beam.FlatMap(self._gather)

    def _gather(self, part: ScoredPart) -> Iterator[Block]:
        if not self.keys:
            return
        with scores.OpenPart(self.root, part) as block:
            wanted = is_among(block.columns(["key"]), self.keys)
            if wanted.any():
                yield blocks.to_block(block.rows(wanted, self.columns))
