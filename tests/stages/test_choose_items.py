"""Review items from pools of ads, exploration beside them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipelines.config import Selection
from pipelines.numerics.calibration import Threshold
from pipelines.stages.choose_items import choose_items
from pipelines.stages.keep_pool import best, score_rows
from pipelines.strategies.base import Context, Pick, Rows, RowStrategy
from pipelines.strategies.exploration import Exploration
from pipelines.strategies.random import Random
from pipelines.strategies.uncertainty import Uncertainty
from tests.stages.test_keep_pool import scored

WHOLE = scored(200)


class Couples(RowStrategy):
    """The best beside the worst of the pool."""

    name = "couples"

    def score(self, rows: Rows, context: Context) -> np.ndarray:
        return rows.margins

    def choose(self, pool: Rows, budget: int, context: Context) -> list[Pick]:
        return [Pick((row, len(pool) - 1 - row)) for row in range(budget)]


class Greedy(Couples):
    """Takes more than there is room for, or one ad twice."""

    name = "greedy"

    def choose(self, pool: Rows, budget: int, context: Context) -> list[Pick]:
        return [Pick((0,))] * (budget + 1)


def context(**changes: float) -> Context:
    selection = Selection(budget=20, coverage_sample_rows=100).model_copy(update=changes)
    return Context(selection, 0, "policy", Threshold(0.25, 70, 130, "prior"), 200)


def pool(strategy: RowStrategy, at: Context, rows: int | None = None) -> pa.Table:
    return best([score_rows(WHOLE, strategy, at)], rows or strategy.pool_rows(at.selection))


def test_single_ads_are_in_the_order_of_their_scores() -> None:
    at = context()
    chosen = choose_items(pool(Uncertainty(), at), None, Uncertainty(), at)
    assert [item.rank for item in chosen.items] == list(range(1, 21))
    scores = [item.score for item in chosen.items]
    assert scores == sorted(scores, reverse=True)
    for item in chosen.items:
        [ad] = item.ads
        assert (ad.label == "positive") == (ad.margin >= 0.25)
        assert item.source == "uncertainty" and item.item_id.startswith("item_")
        assert (item.propensity, item.drawn, item.overlap, ad.cluster) == (None, None, None, None)
    assert chosen.coverage is None and chosen.candidates == 20


def test_exploration_takes_its_share_and_no_ad_comes_twice() -> None:
    at = context(exploration_share=0.25)
    chosen = choose_items(pool(Uncertainty(), at), pool(Exploration(), at), Uncertainty(), at)
    sources = [item.source for item in chosen.items]
    assert sources == ["uncertainty"] * 15 + ["exploration"] * 5
    assert all(
        (item.propensity is not None) == (item.source == "exploration") for item in chosen.items
    )
    assert all(item.drawn in (None, item.ads[0].key) for item in chosen.items)
    keys = [ad.key for item in chosen.items for ad in item.ads]
    assert len(set(keys)) == 20
    # What exploration draws does not depend on the strategy.
    other = choose_items(pool(Random(), at), pool(Exploration(), at), Random(), at)
    drawn = [
        [i.item_id for i in found.items if i.source == "exploration"] for found in (chosen, other)
    ]
    assert drawn[0] == drawn[1]


def test_what_exploration_drew_the_strategy_does_not_take() -> None:
    at = context(exploration_share=0.25)
    own = pool(Uncertainty(), at)
    # Exploration has nothing to draw from but the ads that the strategy wants, too.
    beside = best([score_rows(own.drop_columns(["score"]), Exploration(), at)], 20)
    chosen = choose_items(own, beside, Uncertainty(), at)
    keys = [ad.key for item in chosen.items for ad in item.ads]
    assert sorted(keys) == sorted(own.column("key").to_pylist())


def test_two_ads_stand_beside_each_other() -> None:
    at = context(budget=5)
    chosen = choose_items(pool(Couples(), at, 30), None, Couples(), at)
    assert [len(item.ads) for item in chosen.items] == [2] * 5
    assert all(item.item_id.startswith("pair_") for item in chosen.items)
    first_left = [item.ads[0].margin > item.ads[1].margin for item in chosen.items]
    assert len(set(first_left)) == 2, "sides are drawn"


def test_a_strategy_that_breaks_the_contract_is_named() -> None:
    at = context()
    with pytest.raises(
        ValueError, match="strategy 'greedy': chose 21 items of 20 with 20 ads more"
    ):
        choose_items(pool(Greedy(), at), None, Greedy(), at)
