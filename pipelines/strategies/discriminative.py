"""Discriminative active learning: ads that can be told from those that were asked about."""

from __future__ import annotations

import math

import numpy as np

from models.training.fit import logistic
from pipelines.numerics.acquisition import linear_margins
from pipelines.strategies.base import Context, Need, Pick, Rows
from pipelines.strategies.sampled import Sampled, picks

# A batch is chosen in so many parts: an ad is told from those of the parts before, too.
_PARTS = 10
# Ads without a label that the classifier learns from, for each one with.
_OPEN_FOR_EACH = 10


class Discriminative(Sampled):
    """DAL (Gissin and Shalev-Shwartz, 2019) on a uniform sample of the corpus.

    A logistic regression learns labelled from unlabelled; what it is surest is unlabelled is asked about, in
    ten parts. Blind to what the model says. Without labels the first part is drawn at random.
    """

    name = "discriminative"
    suits = "a first set of labels that is unlike the corpus"
    needs = frozenset({Need.VECTORS, Need.LABELS})

    def choose(self, pool: Rows, budget: int, context: Context) -> list[Pick]:
        """Choose by :func:`told_apart`."""
        vectors = context.project(pool)
        return picks(told_apart(vectors, context.known(vectors.shape[1])[0], budget))


def told_apart(
    vectors: np.ndarray,
    known: np.ndarray,
    wanted: int,
    parts: int = _PARTS,
    open_for_each: float = _OPEN_FOR_EACH,
) -> np.ndarray:
    """Choose rows that a classifier is surest are not known, part by part.

    Args:
        vectors: float32 (n, dim), rows in random order.
        known: float32 (m, dim), m may be 0: then the first part is the first rows.
        wanted: rows to choose.
        parts: the classifier is trained anew after each.
        open_for_each: it learns from so many of the first rows for each known one.

    Returns:
        int64 (min(wanted, n),) rows in order of choice; ties go to the lower row.

    Memory: 8 * dim bytes a row that is learnt from, a few times, and 4 * dim a row of the pool.
    """
    wanted = min(wanted, len(vectors))
    left = np.arange(len(vectors))
    chosen = np.empty(0, dtype=np.int64)
    step = max(1, math.ceil(wanted / parts))
    while len(chosen) < wanted:
        take = min(step, wanted - len(chosen))
        asked = np.concatenate([known, vectors[chosen]])
        first = np.arange(take)
        if len(asked) and take < len(left):
            learnt = left[: int(min(len(left), open_for_each * len(asked)))]
            both = np.concatenate([vectors[learnt], asked]).astype(np.float64)
            model = logistic(both, (np.arange(len(both)) < len(learnt)).astype(np.int8))
            sure = linear_margins(vectors[left], model.coef_, model.intercept_)[:, 0]
            first = np.argsort(-sure, kind="stable")[:take]
        chosen = np.concatenate([chosen, left[first]])
        left = np.delete(left, first)
    return chosen
