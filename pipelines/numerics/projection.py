"""Vectors of hundreds of dimensions on a plane, for pictures: nothing is decided by them."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from pipelines.numerics.distances import as_matrix

# A row's neighbours, about; fewer rows than three times as many have fewer.
_PERPLEXITY = 30.0
# 250 of them gather the rows, the others place them; 1,000 keep as many neighbours (docs/decisions.md).
_ITERATIONS = 500
# Fewer rows than this have no neighbourhoods to keep.
_MIN_ROWS = 12
# As wide as scikit-learn's own start: the rows must be near one another to pass by one another.
_START_SPREAD = 1e-4


def pca_plane(vectors: np.ndarray) -> np.ndarray:
    """Project rows on their two directions of largest variance.

    Args:
        vectors: float (n, d), finite, n >= 1, d >= 1. Rows that are all equal lie at 0; where there
            is only one direction (one dimension, two rows) the second coordinate is 0.

    Returns:
        float32 (n, 2), the first direction first, centred on 0. The same rows in the same order give
        the same bits: a direction's sign is fixed by its largest coordinate, which is positive
        (scikit-learn's ``svd_flip``).

    Raises:
        ValueError: if there is no row or no dimension, or a value is not finite.

    Memory: 20 * n * d bytes beside the input, and 16 * d * d.
    Source: Pearson, 1901; by the covariance matrix (scikit-learn's ``covariance_eigh``), which is
    exact to about 1e-7 of the variance and does not depend on a seed.
    """
    matrix = as_matrix("vectors", vectors)
    if not matrix.size:
        raise ValueError(
            f"vectors must hold at least one row and one dimension, got {matrix.shape}"
        )
    points = np.zeros((len(matrix), 2), dtype=np.float32)
    spread = matrix.astype(np.float64) - matrix.mean(axis=0, dtype=np.float64)
    # Rounding leaves a trace of variance in equal rows; scaling it up to a picture would be a lie.
    if not np.abs(spread).max() > 1e-6 * max(1.0, float(np.abs(matrix).max())):
        return points
    n_directions = min(2, *spread.shape)
    # Threads add partial sums in an order of their own; one thread keeps the bits.
    with threadpool_limits(limits=1):
        found = PCA(n_directions, svd_solver="covariance_eigh").fit_transform(spread)
    points[:, :n_directions] = found
    return points


def neighbour_plane(vectors: np.ndarray, seed: int) -> np.ndarray:
    """Put vectors on a plane where neighbours stay neighbours; how far apart groups are means little.

    Args:
        vectors: float (n, d), finite, n >= 1.
        seed: non-negative.

    Returns:
        float32 (n, 2), centred on 0. The same rows in the same order and the same seed give the same
        bits on the same machine. Fewer than 12 rows, and rows that are all equal, stay where
        :func:`pca_plane` puts them.

    Raises:
        ValueError: if there is no row or no dimension, or a value is not finite.

    Memory: 20 * n * d bytes, and 3 kilobytes a row for its neighbours. Time: about 2 ms a row on one core.
    Source: van der Maaten and Hinton, Visualizing Data using t-SNE, JMLR 2008; started from the main
    directions (Kobak and Berens, Nature Communications 2019), so that what is far apart tends to stay so.
    """
    matrix = as_matrix("vectors", vectors)
    start = pca_plane(matrix)
    spread = float(start[:, 0].std())
    if len(matrix) < _MIN_ROWS or not spread > 0.0:
        return start
    model = TSNE(
        perplexity=min(_PERPLEXITY, (len(matrix) - 1) / 3),
        init=np.ascontiguousarray(start * np.float32(_START_SPREAD / spread)),
        max_iter=_ITERATIONS,
        random_state=seed,
        n_jobs=1,
    )
    # As in pca_plane; and threads that wait for one another on a busy machine take ten times as long.
    with threadpool_limits(limits=1):
        points = model.fit_transform(matrix.astype(np.float32))
    return np.asarray(points - points.mean(axis=0), dtype=np.float32)
