"""ChooseItems: review items from a strategy's pool of ads, and from the exploration beside it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import apache_beam as beam
import pyarrow as pa
from apache_beam import pvalue

from pipelines.console import metrics
from pipelines.contracts import Block, ReviewItem
from pipelines.errors import RunFailed
from pipelines.stages.keep_pool import rows_of
from pipelines.store import blocks
from pipelines.strategies.base import NOTHING_LEFT, Chosen, Context, Pick, RowStrategy
from pipelines.strategies.exploration import Exploration
from pipelines.strategies.items import as_shown, item_id, review_ad

STAGE = "ChooseItems"


def choose_items(
    pool: pa.Table, explored: pa.Table | None, strategy: RowStrategy, context: Context
) -> Chosen:
    """Choose review items.

    Exploration is drawn first, for its propensities must not depend on what the strategy takes; it comes
    last in the review order.

    Args:
        pool: the strategy's pool, best first.
        explored: the pool of exploration, or None where none is added.
        strategy: chooses.
        context: what it goes by.

    Raises:
        ValueError: the strategy chose an ad twice, one that is not there, or too many.
    """
    budget = context.selection.budget
    drawn: list[ReviewItem] = []
    if explored is not None:
        wanted = int(context.selection.exploration_share * budget)
        picks = Exploration().choose(rows_of(explored), wanted, context)
        drawn = _items(explored, picks, Exploration(), context)
        taken = {ad.key for item in drawn for ad in item.ads}
        keys = pool.column("key").to_pylist()
        pool = pool.filter(pa.array([key not in taken for key in keys]))
    picks = strategy.choose(rows_of(pool), budget - len(drawn), context)
    used = list(itertools.chain.from_iterable(pick.rows for pick in picks))
    if len(picks) > budget - len(drawn) or len(set(used)) < len(used):
        raise ValueError(
            f"strategy {strategy.name!r}: chose {len(picks)} items of {budget - len(drawn)} with "
            f"{len(used) - len(set(used))} ads more than once"
        )
    items = _items(pool, picks, strategy, context) + drawn
    ranked = tuple(
        ReviewItem(
            item.item_id, rank, item.source, item.ads, item.score, None, item.propensity, item.drawn
        )
        for rank, item in enumerate(items, start=1)
    )
    notes = [strategy.note(context)]
    if len(ranked) < budget:
        notes.append(_shortfall(len(ranked), strategy.name, context))
    return Chosen(ranked, pool.num_rows + len(drawn), note=". ".join(filter(None, notes)))


def _shortfall(number: int, strategy: str, context: Context) -> str:
    """Say why there are fewer items than the budget, and what would change it."""
    if context.open_ads > number:
        why = f"strategy {strategy!r} chose no more of {context.open_ads:,} unseen ads"
        why += "; choose another strategy"
    else:
        why = "no other unseen ad is left; give a newer or larger corpus"
    return f"{number:,} of {context.selection.budget:,} items: {why}"


def _items(
    table: pa.Table, picks: Sequence[Pick], strategy: RowStrategy, context: Context
) -> list[ReviewItem]:
    positive = table.column("margin").to_numpy() >= context.threshold.margin
    plain = table.drop_columns(["vector"]) if "vector" in table.column_names else table
    items = []
    for pick in picks:
        found = plain.take(pa.array(pick.rows)).to_pylist()
        ads = tuple(
            review_ad(row, "positive" if positive[place] else "negative", None)
            for place, row in zip(pick.rows, found, strict=True)
        )
        id = item_id(tuple(ad.key for ad in ads), context.guideline)
        items.append(
            ReviewItem(
                item_id=id,
                rank=0,
                source=strategy.name,
                ads=as_shown((ads[0], ads[1]), id, context.seed) if len(ads) == 2 else ads,
                score=found[0]["score"] if strategy.ranks and pick.propensity is None else None,
                propensity=pick.propensity,
                drawn=None if pick.propensity is None else ads[0].key,
            )
        )
    return items


@dataclasses.dataclass(eq=False)
class ChooseItems(beam.PTransform):
    """Choose review items in one worker.

    Input: singletons the strategy's pool, its context, and the exploration's pool where one is added.
    Output: a singleton ``PCollection[Chosen]``.

    Args:
        strategy: chooses.
    """

    strategy: RowStrategy

    def expand(self, inputs: tuple[beam.PCollection, ...]) -> beam.PCollection[Chosen]:
        """Apply the transform."""
        pool, context, *explored = inputs
        return pool | "Choose" >> beam.FlatMap(
            self._choose,
            pvalue.AsSingleton(context),
            **({"explored": pvalue.AsSingleton(explored[0])} if explored else {}),
        )

    def _choose(
        self, pool: Block, context: Context, explored: Block | None = None
    ) -> Iterator[Chosen]:
        with metrics.timed(STAGE):
            if not pool.rows:
                raise RunFailed(NOTHING_LEFT)
            beside = None if explored is None else blocks.from_block(explored)
            chosen = choose_items(blocks.from_block(pool), beside, self.strategy, context)
            if not chosen.items:
                raise RunFailed(
                    f"selection.strategy {self.strategy.name!r} chose none of {pool.rows:,} ads; "
                    "choose another strategy"
                )
            metrics.count(STAGE, "items", len(chosen.items))
            yield chosen
