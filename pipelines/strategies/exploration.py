"""Exploration: ads drawn from every part of the score range, with known propensities."""

from __future__ import annotations

from pipelines.config import Selection
from pipelines.numerics import strata
from pipelines.numerics.calibration import ENOUGH_LABELS
from pipelines.strategies.base import Context, Pick, Rows
from pipelines.strategies.sampled import Sampled

STRATA = 5


def explored_share(selection: Selection, labels: int) -> float:
    """Return the share of a round's items that is drawn at random.

    It falls in a line from ``first_round_share`` to ``exploration_share`` as evidence grows: before
    experts have labelled ads, nothing says whether the model ranks at all.

    Args:
        selection: the task's section.
        labels: labels of the rarer class so far, at least 0.
    """
    lacking = max(0.0, 1.0 - labels / ENOUGH_LABELS)
    beyond = max(0.0, selection.first_round_share - selection.exploration_share)
    return selection.exploration_share + beyond * lacking


class Exploration(Sampled):
    """Equal draws from five equal-sized strata of the score (stratified sampling, Neyman 1934).

    What no ranking would show is shown with a known probability: it finds what the model is sure of and
    wrong about, and lets the corpus be estimated. The strata are cut on a uniform sample of
    ``selection.coverage_sample_rows`` ads.
    """

    name = "exploration"
    suits = "a corpus to be estimated from every part of the score"
    draws = True

    def choose(self, pool: Rows, budget: int, context: Context) -> list[Pick]:
        """Draw from the strata; an ad's propensity is its chance to be sampled and then drawn."""
        drawn, propensities = strata.stratified_exploration(
            pool.margins, pool.keys, budget, STRATA, context.seed
        )
        sampled = len(pool) / context.open_ads if len(pool) else 0.0
        return [
            Pick((row,), float(f"{propensity * sampled:.6g}"))
            for row, propensity in zip(drawn.tolist(), propensities.tolist(), strict=True)
        ]
