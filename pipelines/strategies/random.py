"""Random sampling: every ad with the same probability."""

from __future__ import annotations

from pipelines.config import Selection
from pipelines.strategies.base import Context, Pick, Rows
from pipelines.strategies.sampled import Sampled


class Random(Sampled):
    """The baseline of every comparison, and the sample from which a corpus can be estimated."""

    name = "random"
    suits = "a corpus to be estimated, or a model that seems to guess"
    draws = True

    def pool_rows(self, selection: Selection) -> int:
        """Return the budget."""
        return selection.budget

    def choose(self, pool: Rows, budget: int, context: Context) -> list[Pick]:
        """Take the first ads of that order, each with the same propensity."""
        wanted = min(budget, len(pool))
        propensity = float(f"{wanted / context.open_ads:.6g}") if wanted else None
        return [Pick((row,), propensity) for row in range(wanted)]
