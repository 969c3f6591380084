"""Small pools with a story, for the strategies of single ads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.config import Selection
from pipelines.numerics.calibration import Threshold
from pipelines.strategies.base import Context, Labelled, Pick, Rows
from pipelines.text import content_key


def rows_of(vectors: np.ndarray | Sequence, margins: Sequence[float] | np.ndarray, seed: int = 0):
    """Return rows of given vectors and margins."""
    keys = [content_key(f"{seed} {n}") for n in range(len(vectors))]
    return Rows(keys, np.asarray(margins, np.float64), np.asarray(vectors).astype(np.float16))


def context_of(known: Rows | None, labels: Sequence[int] = (), **selection: object) -> Context:
    """Return a context with the threshold at 0."""
    labelled = None if known is None else Labelled(known, np.asarray(labels, np.int8))
    settings = Selection(budget=5).model_copy(update=selection)
    return Context(settings, 3, "policy", Threshold(0.0, 10, 90, "prior"), 100, labelled)


def chosen(found: Sequence[Pick]) -> list[int]:
    """Return the rows of single picks."""
    return [pick.rows[0] for pick in found]


def blobs(sizes: Sequence[int], dim: int = 8, spread: float = 0.05, seed: int = 0):
    """Return unit vectors around axes, float64 (n, dim), and the axis of each."""
    rng = np.random.default_rng(seed)
    axis = np.repeat(np.arange(len(sizes)), sizes)
    vectors = np.eye(dim)[axis] + rng.normal(0, spread, (len(axis), dim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), axis
