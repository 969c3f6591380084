"""BADGE: ads that would move the head far, and each in another direction."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from pipelines.numerics.distances import squared_norms
from pipelines.numerics.threads import one_blas_thread
from pipelines.strategies.base import Context
from pipelines.strategies.heads import BatchOfHeads


class Badge(BatchOfHeads):
    """Batch active learning by diverse gradient embeddings (Ash and others, ICLR 2020).

    An ad's gradient embedding is the head's gradient at the label that the head itself gives; k-means++
    draws a batch of them, on a uniform sample of the corpus.
    """

    name = "badge"
    suits = "some labels of each class, a large budget a round: doubtful ads that differ"

    def batch(self, vectors: np.ndarray, budget: int, context: Context) -> np.ndarray:
        """Draw by :func:`k_means_plus_plus`."""
        share = expit(self.margins(vectors, context)[:, 0])
        draws = np.random.default_rng(context.seed).random(min(budget, len(vectors)))
        return k_means_plus_plus(vectors, share - (share >= 0.5), draws)


def k_means_plus_plus(vectors: np.ndarray, scale: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Draw rows of a scaled matrix, each with a probability by its squared distance to those drawn.

    Args:
        vectors: float32 (n, dim).
        scale: float64 (n,); a row of the matrix is ``scale[i] * vectors[i]``.
        draws: float64 (r,) uniform in [0, 1), r <= n; one a row to draw. The first row is the longest one,
            as in the authors' code.

    Returns:
        int64 (r,) distinct rows in the order drawn. Where all that are left equal some that were drawn, the
        next is drawn uniformly.

    Memory: 16 * n * dim bytes. Time: r * n * dim.
    Source: Arthur and Vassilvitskii, k-means++, SODA 2007.
    """
    wide = vectors.astype(np.float64) * scale[:, None]
    sq = squared_norms(wide)
    near = np.full(len(wide), np.inf)
    left = np.ones(len(wide), dtype=bool)
    drawn = np.empty(len(draws), dtype=np.int64)
    with one_blas_thread():
        for place, draw in enumerate(draws):
            odds = near if place else sq
            if not odds.any():
                odds = left.astype(np.float64)
            total = np.cumsum(odds)
            first = place == 0 and sq.any()
            row = odds.argmax() if first else np.searchsorted(total / total[-1], draw, "right")
            drawn[place] = row
            away = sq - 2.0 * (wide @ wide[row]) + sq[row]
            np.minimum(near, np.maximum(away, 0.0), out=near)
            near[row], left[row] = 0.0, False
    return drawn
