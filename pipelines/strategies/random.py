"""Random sampling: every ad with the same probability."""

from __future__ import annotations

import numpy as np

from pipelines.numerics import hashing
from pipelines.strategies.base import Context, Pick, Rows, RowStrategy


def uniform_scores(rows: Rows, seed: int) -> np.ndarray:
    """Return float64 (n,) scores in an order drawn by hash: the highest n are a uniform sample."""
    return -hashing.ranks(list(rows.keys), seed).astype(np.float64)


class Random(RowStrategy):
    """The baseline of every comparison, and the sample from which a corpus can be estimated."""

    name = "random"
    draws = True

    def score(self, rows: Rows, context: Context) -> np.ndarray:
        """Return minus each ad's place in an order drawn by hash."""
        return uniform_scores(rows, context.seed + 1)

    def choose(self, pool: Rows, budget: int, context: Context) -> list[Pick]:
        """Take the first ads of that order, each with the same propensity."""
        wanted = min(budget, len(pool))
        propensity = float(f"{wanted / context.open_ads:.6g}") if wanted else None
        return [Pick((row,), propensity) for row in range(wanted)]
