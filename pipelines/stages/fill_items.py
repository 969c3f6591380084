"""FillItems: what people see of the ads that were chosen, read where it lies."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import apache_beam as beam
import numpy as np
from apache_beam import pvalue

from pipelines.console import metrics
from pipelines.contracts import AD_SCHEMA, Block, ScoredPart
from pipelines.store import blocks, scores
from pipelines.strategies.base import Chosen
from pipelines.strategies.items import read

STAGE = "FillItems"
# Block number -> rows of it, ascending.
Places = Mapping[int, Sequence[int]]
_COLUMNS = (*AD_SCHEMA.names, "margin", "truncated")


@dataclasses.dataclass(eq=False)
class FillItems(beam.PTransform):
    """Put the ads' texts into chosen items.

    Input: ``PCollection[ScoredPart]``, and singletons ``PCollection[Chosen]``, whose ads are known by key
    alone, and ``PCollection[Places]``, where these ads stand. Output: a singleton ``PCollection[Chosen]``.

    Memory: the chosen ads, two an item of the budget. Blocks without one are not opened.

    Args:
        root: the workspace.
    """

    root: str

    def expand(
        self,
        inputs: tuple[
            beam.PCollection[ScoredPart], beam.PCollection[Chosen], beam.PCollection[Places]
        ],
    ) -> beam.PCollection[Chosen]:
        """Apply the transform."""
        parts, chosen, places = inputs
        rows = parts | "ReadChosen" >> beam.FlatMap(self._read, pvalue.AsSingleton(places))
        return chosen | "Fill" >> beam.Map(_fill, pvalue.AsList(rows))

    def _read(self, part: ScoredPart, places: Places) -> Iterator[Block]:
        rows = places.get(scores.number_of(part))
        if rows:
            with metrics.timed(STAGE), scores.OpenPart(self.root, part) as block:
                wanted = np.zeros(part.rows, dtype=bool)
                wanted[list(rows)] = True
                yield blocks.to_block(block.rows(wanted, _COLUMNS))


def _fill(chosen: Chosen, found: list[Block]) -> Chosen:
    with metrics.timed(STAGE):
        rows = {row["key"]: row for block in found for row in blocks.from_block(block).to_pylist()}
        return dataclasses.replace(chosen, items=tuple(read(chosen.items, rows)))
