"""Relevance sampling: the ads that are most probably positive."""

from __future__ import annotations

import numpy as np

from pipelines.strategies.base import Context, Rows, RowStrategy


class Relevance(RowStrategy):
    """Lewis and Gale's other way (1994, section 3): label what the model holds most probably positive.

    A round that finds positives where next to none are known; it says little of where the border lies.
    """

    name = "relevance"
    suits = "next to no positive labels, to find some; then another strategy"
    finds_positives = True

    def score(self, rows: Rows, context: Context) -> np.ndarray:
        """Return each margin, log-odds."""
        return np.asarray(rows.margins, dtype=np.float64)
