"""Single ads for what pairs leave of a budget: a round asks as much as it was told to."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa

from pipelines.contracts import ReviewItem
from pipelines.strategies.base import Chosen, Context, PairPool
from pipelines.strategies.items import item_id, named_ad
from pipelines.strategies.uncertainty import Uncertainty


def fill(chosen: Chosen, pool: PairPool, context: Context) -> Chosen:
    """Add the unseen ads nearest to the threshold until the budget is used; say why, where any are.

    Pairs run out where few unseen ads have one of the labels, where no clusters overlap, or where all
    that are near are copies of one another; without new labels the next round would find as few.
    The ads are those of the coverage sample: of a corpus that is larger, nearest among
    ``selection.coverage_sample_rows`` or three times the budget.

    Args:
        chosen: what the strategy chose.
        pool: what it chose from.
        context: what it goes by.
    """
    budget = context.selection.budget
    missing = budget - len(chosen.items)
    if missing <= 0:
        return chosen
    shown = set(pool.shown.column("key").to_pylist()) if pool.shown is not None else set()
    asked = {ad.key for item in chosen.items for ad in item.ads} | shown
    keys = np.asarray(pool.sample.column("key").to_pylist(), dtype=object)
    unseen = np.array([key not in asked for key in keys], dtype=bool)
    open_rows = np.array([key not in shown for key in keys], dtype=bool)
    rows = np.flatnonzero(unseen)
    distance = np.abs(pool.sample.column("margin").to_numpy()[rows] - context.threshold.margin)
    # Ties by key, which is a hash: where a model tells no ads apart, a draw.
    nearest = rows[np.lexsort((keys[rows].astype(str), distance))][:missing]
    singles = _items(pool.sample.take(pa.array(nearest)), context)
    drawn = sum(item.propensity is not None for item in chosen.items)
    place = len(chosen.items) - drawn
    # What is drawn comes last, as ever.
    items = [*chosen.items[:place], *singles, *chosen.items[place:]]
    ranked = tuple(dataclasses.replace(item, rank=n) for n, item in enumerate(items, start=1))
    alone = len(singles) + sum(len(item.ads) == 1 for item in chosen.items)
    note = _note(len(ranked) - alone, alone, len(singles), _open_ads(pool, open_rows), context)
    return dataclasses.replace(chosen, items=ranked, note=note)


def _items(table: pa.Table, context: Context) -> list[ReviewItem]:
    items = []
    for row in table.select(["key", "margin", "positive", "cluster"]).to_pylist():
        label = "positive" if row["positive"] else "negative"
        ad = named_ad(row["key"], label, row["cluster"], row["margin"])
        items.append(
            ReviewItem(
                item_id=item_id((ad.key,), context.guideline),
                rank=0,
                source=Uncertainty.name,
                ads=(ad,),
                score=-abs(ad.margin - context.threshold.margin),
            )
        )
    return items


def _open_ads(pool: PairPool, open_rows: np.ndarray) -> tuple[int, int]:
    """Return about how many unseen ads the model calls positive and negative."""
    positive = pool.sample.column("positive").to_numpy(zero_copy_only=False)
    scale = pool.population / max(pool.sample.num_rows, 1)
    return tuple(round(int((open_rows & side).sum()) * scale) for side in (positive, ~positive))


def _note(pairs: int, alone: int, nearest: int, open_ads: tuple[int, int], context: Context) -> str:
    """Say what was done, why, and what would change it."""
    budget, (positive, negative) = context.selection.budget, open_ads
    rarer, side = min((positive, "positive"), (negative, "negative"))
    if context.threshold.source == "none":
        why = "the trained model gives all ads the same score, and the single ads are drawn"
        cure = "`scout train` learns anew from their labels"
    elif rarer < 2 * budget:
        why = (
            f"of the ads that experts have not seen the model calls {rarer:,} {side}, and an ad is "
            "shown once"
        )
        by_prior = context.threshold.source in ("prior", "bounded")
        cure = f"a {'higher' if side == 'positive' else 'lower'} prior gives more pairs"
        cure = cure if by_prior else "more labels move the threshold"
    else:
        why = "near the threshold no more ads of opposite labels lie near each other"
        cure = "raise search.neighbors or selection.band for more pairs"
    done = f"{pairs:,} of {budget:,} items are pairs"
    if alone:
        done += f", {alone:,} single ads ({nearest:,} nearest to the threshold, the others drawn)"
    note = f"{done}: {why}; {cure}"
    if pairs + alone < budget:
        note += (
            f". {budget - pairs - alone:,} items are missing: no unseen ad is left; give a newer or "
            "larger corpus"
        )
    return note
