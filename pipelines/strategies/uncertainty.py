"""Uncertainty sampling: the ads nearest to the model's threshold."""

from __future__ import annotations

import numpy as np

from pipelines.strategies.base import Context, Rows, RowStrategy


class Uncertainty(RowStrategy):
    """Least confidence (Lewis and Gale, 1994), measured from the label rule's threshold.

    With two classes least confidence, smallest margin and highest entropy rank alike, so the registry
    knows them as names of this one. The threshold stands for one half, because LLM-0's probabilities are
    badly calibrated.
    """

    name = "uncertainty"
    suits = "no labels yet, and a model that is often right"

    def score(self, rows: Rows, context: Context) -> np.ndarray:
        """Return minus the distance of each margin to the threshold, log-odds."""
        return -np.abs(rows.margins - context.threshold.margin)
