"""Core-set: ads that lie farthest from all that were asked about."""

from __future__ import annotations

import numpy as np

from pipelines.numerics.distances import nearest, squared_norms
from pipelines.numerics.threads import one_blas_thread
from pipelines.strategies.base import Context, Need, Pick, Rows
from pipelines.strategies.sampled import Sampled, picks


class CoreSet(Sampled):
    """k-center greedy (Sener and Savarese, ICLR 2018) on a uniform sample of the corpus.

    Blind to what the model says: it covers the corpus, outliers first. Without labels it begins at an ad
    drawn at random.
    """

    name = "core-set"
    suits = "a corpus of many kinds, all of which should be seen"
    needs = frozenset({Need.VECTORS, Need.LABELS})

    def choose(self, pool: Rows, budget: int, context: Context) -> list[Pick]:
        """Choose by :func:`k_center`."""
        vectors = context.project(pool)
        return picks(k_center(vectors, context.known(vectors.shape[1])[0], budget))


def k_center(vectors: np.ndarray, known: np.ndarray, wanted: int) -> np.ndarray:
    """Choose, again and again, the row that is farthest from all chosen and known ones.

    Args:
        vectors: float32 (n, dim).
        known: float32 (m, dim), m may be 0: then row 0 comes first.
        wanted: rows to choose.

    Returns:
        int64 (min(wanted, n),) rows in order of choice; ties go to the lower row. At most twice the best
        covering radius there is (Gonzalez, 1985).

    Memory: 8 * n * dim bytes. Time: (wanted + m) * n * dim.
    """
    wide, sq = vectors.astype(np.float64), squared_norms(vectors)
    far = np.full(len(wide), np.inf)
    if len(known):
        far = np.square(nearest(vectors, known, 1)[1][:, 0].astype(np.float64))
    chosen = np.empty(min(wanted, len(wide)), dtype=np.int64)
    # Several threads add partial sums in an order of their own.
    with one_blas_thread():
        for place in range(len(chosen)):
            row = chosen[place] = int(far.argmax())
            away = sq - 2.0 * (wide @ wide[row]) + sq[row]
            np.minimum(far, np.maximum(away, 0.0), out=far)
            far[row] = -1.0
    return chosen
