"""Strategies that choose a batch from a uniform sample of the ads that experts have not seen."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pipelines.config import Selection
from pipelines.numerics import hashing
from pipelines.strategies.base import Context, Pick, Rows, RowStrategy


def uniform_scores(rows: Rows, seed: int) -> np.ndarray:
    """Return float64 (n,) scores in an order drawn by hash: the highest n are a uniform sample."""
    return -hashing.ranks(list(rows.keys), seed).astype(np.float64)


def sample_rows(selection: Selection) -> int:
    """Return how many ads a sample of the corpus has."""
    return max(selection.coverage_sample_rows, selection.budget)


def uniform_floor(wanted: int, context: Context) -> float:
    """Return a score that the ``wanted`` best of :func:`uniform_scores` surely reach."""
    return -hashing.sample_limit(wanted, context.open_ads) * 2.0**64


class Sampled(RowStrategy):
    """A batch depends on all ads at once, which no ad's own score can say; a sample stands for them.

    The pool is in an order drawn by hash, so its first rows are a uniform sample again.
    """

    ranks: ClassVar[bool] = False

    def score(self, rows: Rows, context: Context) -> np.ndarray:
        """Return minus each ad's place in an order drawn by hash."""
        return uniform_scores(rows, context.seed + 1)

    def pool_rows(self, selection: Selection) -> int:
        """Return the size of the sample."""
        return sample_rows(selection)

    def floor(self, context: Context) -> float:
        """Return :func:`uniform_floor`."""
        return uniform_floor(self.pool_rows(context.selection), context)


def picks(rows: np.ndarray) -> list[Pick]:
    """Return single ads, in their order."""
    return [Pick((row,)) for row in rows.tolist()]


def seats(mass: np.ndarray, wanted: int) -> np.ndarray:
    """Share seats out by mass, int64 like ``mass``; what rounding leaves goes to the largest, one each.

    Args:
        mass: float or int (g,), at least 0; where all are 0 nobody gets a seat.
        wanted: seats.
    """
    if not mass.any():
        return np.zeros(len(mass), dtype=np.int64)
    found = (mass / mass.sum() * wanted).astype(np.int64)
    found[np.argsort(-mass, kind="stable")[: wanted - int(found.sum())]] += 1
    return found
