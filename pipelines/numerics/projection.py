"""Vectors of hundreds of dimensions on a plane, for pictures: nothing is decided by them."""

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from pipelines.numerics.distances import as_matrix


@dataclass(frozen=True, slots=True)
class Plane:
    """Rows on a plane: that of their two main directions, or another one.

    Attributes:
        points: float32 (n, 2), the first direction first, centred on 0.
        shares: of the rows' variance, what each direction holds, in [0, 1]; None where a direction
            holds no such share.
    """

    points: np.ndarray
    shares: tuple[float, float] | None

    @property
    def explained(self) -> float | None:
        """Share of the rows' variance that the plane holds, in [0, 1], where there is one."""
        return min(1.0, sum(self.shares)) if self.shares is not None else None


def pca_plane(vectors: np.ndarray) -> Plane:
    """Project rows on their two directions of largest variance.

    Args:
        vectors: float (n, d), finite, n >= 1, d >= 1. Rows that are all equal lie at 0; where there
            is only one direction (one dimension, two rows) the second coordinate is 0.

    Returns:
        The plane. The same rows in the same order give the same bits: a direction's sign is fixed
        by its largest coordinate, which is positive (scikit-learn's ``svd_flip``).

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
        return Plane(points, (0.0, 0.0))
    n_directions = min(2, *spread.shape)
    # Threads add partial sums in an order of their own; one thread keeps the bits.
    with threadpool_limits(limits=1):
        model = PCA(n_directions, svd_solver="covariance_eigh").fit(spread)
        found = model.transform(spread)
    points[:, :n_directions] = found
    held = np.zeros(2)
    held[:n_directions] = np.clip(model.explained_variance_ratio_, 0.0, 1.0)
    return Plane(points, (float(held[0]), float(held[1])))
