"""Strategies that ask by what heads on the vectors say, trained on the experts' labels so far."""

from __future__ import annotations

import abc
import functools
from typing import ClassVar

import numpy as np

from models.training.learners import fit_head
from pipelines.config import Selection
from pipelines.numerics.acquisition import linear_margins
from pipelines.strategies.base import Context, Need, Pick, Rows, RowStrategy
from pipelines.strategies.sampled import picks, sample_rows, uniform_floor, uniform_scores
from pipelines.strategies.uncertainty import Uncertainty

# Of each class; a head of one label of a class is a vector between two ads.
LEAST_LABELS = 2
# The literature agrees on no size, and two or three work (Settles, 2009, section 3.2); ten give finer votes.
MEMBERS = 10


class OfHeads(RowStrategy):
    """Needs labels of both classes; until there are two of each it asks as uncertainty sampling does.

    A head is the one that ``training.learner: head`` trains, on the labels of the fine-tuning half. It is
    fitted anew in every worker, in milliseconds, and the same everywhere.
    """

    needs = frozenset({Need.VECTORS, Need.LABELS})
    members: ClassVar[int] = 0

    def score(self, rows: Rows, context: Context) -> np.ndarray:
        """Return what :meth:`value` gives; while labels are wanting, minus the distance to the threshold."""
        if self.note(context):
            return Uncertainty().score(rows, context)
        return self.value(rows, context)

    @abc.abstractmethod
    def value(self, rows: Rows, context: Context) -> np.ndarray:
        """Return float64 (n,): how much each ad is worth, by the heads; as in :meth:`score`."""

    def note(self, context: Context) -> str:
        """Say that labels are wanting."""
        labels = np.empty(0) if context.labelled is None else context.labelled.labels
        rarer = min(int((labels == label).sum()) for label in (0, 1))
        if rarer >= LEAST_LABELS:
            return ""
        return (
            f"strategy {self.name!r} learns from {LEAST_LABELS} labels of each class at least, and of the "
            f"rarer one there are {rarer}: this round asks about the ads nearest to the threshold"
        )

    def margins(self, vectors: np.ndarray, context: Context) -> np.ndarray:
        """Return what each head says of unit vectors, log-odds, float64 (n, heads)."""
        known, labels = context.known(vectors.shape[1])
        kernels, biases = _fitted(
            known.tobytes(), labels.tobytes(), known.shape[1], self.members, context.seed
        )
        return linear_margins(vectors, kernels, biases)


class BatchOfHeads(OfHeads):
    """Chooses a batch by heads, from a uniform sample of the ads that experts have not seen."""

    ranks = False

    def pool_rows(self, selection: Selection) -> int:
        """Return the size of the sample."""
        return sample_rows(selection)

    def value(self, rows: Rows, context: Context) -> np.ndarray:
        """Return minus each ad's place in an order drawn by hash."""
        return uniform_scores(rows, context.seed + 1)

    def floor(self, context: Context) -> float:
        """Return where the sample ends; while labels are wanting, no floor."""
        if self.note(context):
            return super().floor(context)
        return uniform_floor(self.pool_rows(context.selection), context)

    def choose(self, pool: Rows, budget: int, context: Context) -> list[Pick]:
        """Take what :meth:`batch` gives; while labels are wanting, the best."""
        if self.note(context):
            return super().choose(pool, budget, context)
        return picks(self.batch(context.project(pool), budget, context))

    @abc.abstractmethod
    def batch(self, vectors: np.ndarray, budget: int, context: Context) -> np.ndarray:
        """Return int64 (at most budget,) rows of the pool's unit vectors, float32 (n, dim)."""


# Blocks are scored one after the other with the same labels.
@functools.lru_cache(maxsize=4)
def _fitted(
    vectors: bytes, labels: bytes, dim: int, members: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    return ensemble(
        np.frombuffer(vectors, np.float32).reshape(-1, dim),
        np.frombuffer(labels, np.int8),
        members,
        seed,
    )


def ensemble(
    vectors: np.ndarray, labels: np.ndarray, members: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fit heads on bootstrap replicates of each class; or, of no members, one head on all labels.

    Args:
        vectors: float32 (n, dim), in the order of their keys.
        labels: int8 (n,), both classes.
        members: heads, at least 0.
        seed: of the replicates.

    Returns:
        float32 (heads, dim) kernels and float64 (heads,) biases.

    Source: query by bagging (Abe and Mamitsuka, ICML 1998).
    """
    rng = np.random.default_rng(seed)
    every = np.arange(len(labels))
    rows = [every] if not members else []
    for _ in range(members):
        rows.append(np.concatenate([rng.choice(own, len(own)) for own in _classes(labels)]))
    heads = [fit_head(vectors[drawn], labels[drawn]) for drawn in rows]
    return np.stack([kernel for kernel, _ in heads]), np.array([bias for _, bias in heads])


def _classes(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
