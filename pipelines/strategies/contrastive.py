"""Contrastive active learning: ads that the model reads unlike the labelled ads next to them."""

from __future__ import annotations

import numpy as np

from pipelines.numerics.acquisition import mean_divergence
from pipelines.numerics.distances import nearest_set
from pipelines.strategies.base import Context, Need, Rows, RowStrategy
from pipelines.strategies.uncertainty import Uncertainty

_NEIGHBORS = 10


class Contrastive(RowStrategy):
    """CAL (Margatina and others, EMNLP 2021): neighbours in space that differ in what is predicted.

    The mean divergence of the probabilities of an ad's ten nearest labelled ads from its own, by the model
    that labels the corpus. Before the first labels there are no neighbours, and it asks as uncertainty
    sampling does.
    """

    name = "contrastive"
    suits = "some labels of each class, and errors that come in kinds"
    needs = frozenset({Need.VECTORS, Need.LABELS})

    def score(self, rows: Rows, context: Context) -> np.ndarray:
        """Return the mean Kullback-Leibler divergence, nats."""
        if context.labelled is None:
            return Uncertainty().score(rows, context)
        known = context.project(context.labelled.rows)
        near = nearest_set(context.project(rows), known, min(_NEIGHBORS, len(known)))
        neighbours = context.positive(context.labelled.rows.margins)[near]
        return mean_divergence(neighbours, context.positive(rows.margins))

    def note(self, context: Context) -> str:
        """Say that there are no labels yet."""
        if context.labelled is not None:
            return ""
        return (
            f"strategy {self.name!r} compares with labelled ads, and there are none: this round asks about "
            "the ads nearest to the threshold"
        )
