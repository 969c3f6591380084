"""KeepPool: the ads that a strategy scores highest, scored where they are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam import pvalue

from pipelines.console import metrics
from pipelines.contracts import AD_SCHEMA, Block, ScoredPart
from pipelines.numerics.calibration import Threshold
from pipelines.store import blocks, scores
from pipelines.store.shown import Shown
from pipelines.strategies.base import Context, Labelled, Need, Plan, Rows, RowStrategy

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


def labelled_of(found: Sequence[Block], plan: Plan) -> Labelled | None:
    """Return the labelled ads that are in the corpus, sorted by key; None where there are none."""
    if not found:
        return None
    rows = rows_of(blocks.sort_by_key(blocks.concat(found)))
    return Labelled(rows, np.array([plan.labels[key] for key in rows.keys], dtype=np.int8))


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

    Input: ``PCollection[ScoredPart]``, singletons threshold and number of open ads, and the rows of
    labelled ads (``PCollection[Block]``, from ``GatherRows``). Output: a singleton
    ``PCollection[Block]``, best first, with a ``score`` column; no rows where no ad is open.

    Memory of the merging worker: at most eleven blocks' best, ``strategy.pool_rows`` rows of about 1 KB
    and their vectors each, and what they join to. Nothing is shuffled but pools.

    Args:
        root: the workspace.
        strategy: scores.
        plan: what it goes by.
        shown: ads that experts have seen; they are left out.
    """

    root: str
    strategy: RowStrategy
    plan: Plan
    shown: Shown

    def __post_init__(self) -> None:
        self._wanted = self.strategy.pool_rows(self.plan.selection)
        if self._wanted < 1:
            raise ValueError(f"strategy {self.strategy.name!r}: a pool of {self._wanted} rows")

    def expand(
        self,
        inputs: tuple[
            beam.PCollection[ScoredPart],
            beam.PCollection[Threshold],
            beam.PCollection[int],
            beam.PCollection[Block],
        ],
    ) -> beam.PCollection[Block]:
        """Apply the transform."""
        parts, threshold, open_ads, labelled = inputs
        return (
            parts
            | "ScoreRows"
            >> beam.FlatMap(
                self._score,
                threshold=pvalue.AsSingleton(threshold),
                open_ads=pvalue.AsSingleton(open_ads),
                labelled=pvalue.AsList(labelled),
            )
            | "KeepBest" >> beam.CombineGlobally(best_of, self._wanted)
        )

    def _score(
        self, part: ScoredPart, threshold: Threshold, open_ads: int, labelled: list[Block]
    ) -> Iterator[Block]:
        with metrics.timed(STAGE):
            table = scores.read_columns(self.root, part, columns_of(self.strategy))
            if self.shown:
                table = table.filter(pa.array(~self.shown.among(table.column("key"))))
            if table.num_rows:
                context = self.plan.at(threshold, open_ads, labelled_of(labelled, self.plan))
                scored = score_rows(table, self.strategy, context)
                metrics.count(STAGE, "ads", scored.num_rows)
                yield blocks.to_block(best([scored], self._wanted))
