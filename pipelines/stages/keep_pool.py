"""KeepPool: the ads that a strategy scores highest, scored where they are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam import pvalue

from pipelines.config import Selection
from pipelines.console import metrics
from pipelines.contracts import AD_SCHEMA, Block, ScoredPart
from pipelines.store import blocks, scores
from pipelines.store.shown import Shown
from pipelines.strategies.base import Context, Need, Rows, RowStrategy

STAGE = "KeepPool"


def columns_of(strategy: RowStrategy) -> list[str]:
    """Return the columns of a scored block that a strategy and its review items need."""
    vector = ["vector"] if Need.VECTORS in strategy.needs else []
    return [*AD_SCHEMA.names, "margin", "truncated", *vector]


def rows_of(table: pa.Table) -> Rows:
    """Return scored rows as the arrays that strategies take."""
    names = table.column_names
    return Rows(
        keys=table.column("key").to_pylist(),
        margins=table.column("margin").to_numpy().astype(np.float64),
        vectors=blocks.vectors(table) if "vector" in names else None,
        scores=table.column("score").to_numpy() if "score" in names else None,
    )


def score_rows(table: pa.Table, strategy: RowStrategy, context: Context) -> pa.Table:
    """Return scored rows with the strategy's ``score`` column.

    Raises:
        ValueError: the strategy gave no finite score for each row.
    """
    scores = np.asarray(strategy.score(rows_of(table), context), dtype=np.float64)
    if scores.shape != (table.num_rows,) or not np.isfinite(scores).all():
        raise ValueError(
            f"strategy {strategy.name!r}: score must give {table.num_rows} finite numbers, got shape "
            f"{scores.shape} with {np.count_nonzero(~np.isfinite(scores))} that are not finite"
        )
    return table.append_column("score", pa.array(scores))


def best(tables: Iterable[pa.Table], wanted: int) -> pa.Table:
    """Return the ``wanted`` rows of the highest scores, best first, ties by key."""
    joined = pa.concat_tables(list(tables))
    order = [("score", "descending"), ("key", "ascending")]
    return joined.sort_by(order).slice(0, wanted).combine_chunks()


def best_of(found: Iterable[Block], wanted: int) -> Block:
    """Join blocks of :func:`best` rows; no rows of none."""
    tables = [blocks.from_block(block) for block in found if block.rows]
    return blocks.to_block(best(tables, wanted)) if tables else Block(0, b"")


@dataclasses.dataclass(eq=False)
class KeepPool(beam.PTransform):
    """Score all open ads and keep the best.

    Input: ``PCollection[ScoredPart]`` and a singleton ``PCollection[Context]`` (``MakeContext``). Output: a
    singleton ``PCollection[Block]``, best first, with a ``score`` column; no rows where no ad is open.

    Memory of the merging worker: at most eleven blocks' best, ``strategy.pool_rows`` rows of about 1 KB
    and their vectors each, and what they join to. Nothing is shuffled but pools.

    Args:
        root: the workspace.
        strategy: scores.
        selection: of the task, which says how many are kept.
        shown: ads that experts have seen; they are left out.
    """

    root: str
    strategy: RowStrategy
    selection: Selection
    shown: Shown

    def __post_init__(self) -> None:
        self._wanted = self.strategy.pool_rows(self.selection)
        if self._wanted < 1:
            raise ValueError(f"strategy {self.strategy.name!r}: a pool of {self._wanted} rows")

    def expand(
        self, inputs: tuple[beam.PCollection[ScoredPart], beam.PCollection[Context]]
    ) -> beam.PCollection[Block]:
        """Apply the transform."""
        parts, context = inputs
        return (
            parts
            | "ScoreRows" >> beam.FlatMap(self._score, pvalue.AsSingleton(context))
            | "KeepBest" >> beam.CombineGlobally(best_of, self._wanted)
        )

    def _score(self, part: ScoredPart, context: Context) -> Iterator[Block]:
        with metrics.timed(STAGE):
            table = scores.read_columns(self.root, part, columns_of(self.strategy))
            if self.shown:
                table = table.filter(pa.array(~self.shown.among(table.column("key"))))
            if table.num_rows:
                scored = score_rows(table, self.strategy, context)
                metrics.count(STAGE, "ads", scored.num_rows)
                high = scored.column("score").to_numpy() >= self.strategy.floor(context)
                yield blocks.to_block(best([scored.filter(pa.array(high))], self._wanted))
