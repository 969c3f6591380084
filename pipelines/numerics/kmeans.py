"""k-means on unit vectors: the space, a fit on a sample, an assignment shards cannot change."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.cluster import MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from pipelines.numerics.distances import (
    as_matrix,
    distinct_rows,
    nearest,
    rank_distances,
    row_order,
    squared_norms,
)
from pipelines.numerics.threads import in_order, one_blas_thread

MAX_CLUSTERS = 512
_ROWS_PER_CHUNK = 4096
# What float64 makes of so many rows stays in a core's cache.
_ROWS_PER_PROJECTION = 512
_MIN_CLUSTER_ROWS = 4
_BATCH_ROWS = 1024
_INIT_ROWS_PER_CLUSTER = 20
_MAX_LLOYD_STEPS = 20
# A further full step that gains less than this share of the inertia is not worth its seconds.
_LLOYD_TOLERANCE = 5e-4


@dataclass(frozen=True, slots=True)
class VectorSpace:
    """The space clusters are found in: unit vectors, standardised per dimension first or not.

    Attributes:
        mean: float64 (d,) subtracted first; None for unit vectors only.
        scale: float64 (d,) divided by next, positive; None exactly when `mean` is.
    """

    mean: np.ndarray | None
    scale: np.ndarray | None


def fit_space(
    samples: Sequence[np.ndarray], populations: Sequence[int], standardize: bool
) -> VectorSpace:
    """Fit the per-dimension mean and standard deviation of a mixture of classes.

    Classes are sampled at different rates, so each class's sample moments count by the class's
    population.

    Args:
        samples: one float matrix (n_i, d) a class, rows in a canonical order (by key): float64 sums
            depend on the order of rows in the last bits.
        populations: how many ads each class has, >= 0; a class of none is left out.
        standardize: False gives unit vectors only (a sentence encoder's space is isotropic enough
            already; an LLM's hidden state is not: a few dimensions carry most of its length).

    Returns:
        The space. A dimension without variance gets scale 1.

    Raises:
        ValueError: if counts and samples disagree, all classes are empty, or a sample is not
            finite.

    Memory: 4096 * d * 24 bytes.
    """
    if not standardize:
        return VectorSpace(None, None)
    if len(samples) != len(populations):
        raise ValueError(
            f"populations must give one count a sample, got {len(populations)} for "
            f"{len(samples)} samples"
        )
    weights, moments = [], []
    for number, (sample, population) in enumerate(zip(samples, populations, strict=True)):
        if population < 0 or (population and not len(sample)):
            raise ValueError(
                f"class {number} has a population of {population} and a sample of {len(sample)} "
                "rows: a class with ads needs a sample of them"
            )
        if population:
            weights.append(population)
            moments.append(_moments(as_matrix(f"samples[{number}]", sample)))
    if not weights:
        raise ValueError("all classes are empty, got no vector to fit a space on")
    if len({len(mean) for mean, _ in moments}) > 1:
        raise ValueError("samples must share one dimension: both must come from the same encoder")
    share = np.asarray(weights, dtype=np.float64) / sum(weights)
    means = np.stack([mean for mean, _ in moments])
    mean = (share[:, None] * means).sum(axis=0)
    spread = np.stack([variance for _, variance in moments]) + np.square(means - mean)
    scale = np.sqrt((share[:, None] * spread).sum(axis=0))
    # A deviation below float32 resolution is rounding noise; dividing by it would blow it up.
    scale[scale <= 1e-7 * np.abs(mean)] = 1.0
    return VectorSpace(mean, scale)


def project(space: VectorSpace, vectors: np.ndarray) -> np.ndarray:
    """Bring vectors into the space.

    Args:
        space: from `fit_space`.
        vectors: float (n, d), finite; float16 is welcome.

    Returns:
        float32 (n, d) unit rows, each computed from its own row alone. A row of length zero becomes
        the first axis: a fixed unit vector, never NaN.

    Raises:
        ValueError: if a vector is not finite or has another dimension than the space.

    Memory: the result, and 512 * d * 24 bytes.
    """
    n_dims = None if space.mean is None else len(space.mean)
    given = np.asarray(vectors)
    if given.ndim != 2 or given.shape[1] < 1:
        as_matrix("vectors", given, n_dims)
    out = np.empty(given.shape, dtype=np.float32)
    for start in range(0, len(given), _ROWS_PER_PROJECTION):
        part = given[start : start + _ROWS_PER_PROJECTION]
        # Half floats are floats already; everything else is rounded to them first.
        exact = part if part.dtype == np.float16 else part.astype(np.float32)
        block: np.ndarray = exact.astype(np.float64)
        if part.shape[1] != (n_dims or part.shape[1]) or not np.isfinite(block).all():
            as_matrix("vectors", given, n_dims)
        if space.mean is not None and space.scale is not None:
            block -= space.mean
            block /= space.scale
        length = np.sqrt(np.square(block).sum(axis=1))
        zero = length == 0.0
        length[zero] = 1.0
        block /= length[:, None]
        block[zero, 0] = 1.0
        out[start : start + _ROWS_PER_PROJECTION] = block
    return out


def auto_k(n: int) -> int:
    """Choose the clusters for n rows: about sqrt(n / 2), in [1, 512], of at least 4 rows each.

    Raises:
        ValueError: if n is negative.
    """
    if n < 0:
        raise ValueError(f"n must be a number of rows, got {n}")
    return max(1, min(round(math.sqrt(n / 2)), MAX_CLUSTERS, n // _MIN_CLUSTER_ROWS))


def fit_kmeans(vectors: np.ndarray, k: int, seed: int, threads: int = 1) -> np.ndarray:
    """Fit centroids: mini-batch k-means, then full Lloyd steps on the same rows.

    Mini-batch k-means alone stays about 1% above full Lloyd and depends on luck; a few full steps
    from its centroids close the gap at a fraction of full Lloyd's time.

    Args:
        vectors: float32 (n, d), finite, n >= 1; their order does not matter.
        k: clusters wanted, at least 1.
        seed: non-negative; the same rows, k and seed give the same bits, whatever the number of
            threads (another processor or BLAS build may round differently).
        threads: chunks of rows that are compared side by side.

    Returns:
        float32 (k', d) distinct centroids, largest cluster first. k' <= min(k, distinct rows):
        clusters that end up empty are dropped.

    Raises:
        ValueError: if there is no vector, k < 1 or a vector is not finite.

    Memory: n * (8 * d + 40) bytes to order the rows and for the ordered copy, plus 4096 *
    (16 * d + 4 * k) a step (measured: 317 MB at 100,000 x 384, k = 224).
    Source: Sculley, Web-scale k-means clustering, WWW 2010; Lloyd, 1982.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1 cluster, got {k}")
    matrix = as_matrix("vectors", vectors)
    if not len(matrix):
        raise ValueError("vectors must hold at least one row to cluster, got 0")
    matrix = matrix[row_order(matrix)]
    distinct, _ = distinct_rows(matrix)
    if k >= len(distinct):
        return _largest_first(matrix, matrix[distinct], threads)
    # Threads add partial sums in an order of their own; one thread keeps the bits.
    with threadpool_limits(limits=1):
        centroids = _minibatch(matrix, k, seed)
    with one_blas_thread():
        length_sq = float(squared_norms(matrix).sum())
        previous = math.inf
        for _ in range(_MAX_LLOYD_STEPS):
            centroids, shorter = _lloyd_step(matrix, centroids, threads)
            inertia = length_sq + shorter
            if inertia >= previous * (1.0 - _LLOYD_TOLERANCE):
                break
            previous = inertia
        return _largest_first(matrix, centroids, threads)


def assign(
    vectors: np.ndarray, centroids: np.ndarray, rows_per_chunk: int = _ROWS_PER_CHUNK
) -> tuple[np.ndarray, np.ndarray]:
    """Assign each row to its nearest centroid.

    Guarantee: a row's label and distance are a function of that row and the centroids alone, bit
    for bit, whatever the other rows, the chunk size, the number of threads or the BLAS; see
    `distances.nearest`.

    Args:
        vectors: float (n, d), finite.
        centroids: float32 (k, d), k >= 1.
        rows_per_chunk: rows compared at once.

    Returns:
        labels int32 (n,) and Euclidean distances float32 (n,); ties go to the lower index.

    Raises:
        ValueError: if there is no centroid, or dimensions differ, or a value is not finite.

    Memory: rows_per_chunk * (9 * k + 24 * d) bytes beside inputs and outputs.
    """
    centers = as_matrix("centroids", centroids)
    if not len(centers):
        raise ValueError("centroids must hold at least one row, got 0")
    if rows_per_chunk < 1:
        raise ValueError(f"rows_per_chunk must be at least 1, got {rows_per_chunk}")
    matrix = as_matrix("vectors", vectors, centers.shape[1])
    block_bytes = 4 * rows_per_chunk * len(centers)
    labels, distances = nearest(matrix, centers, 1, block_bytes=block_bytes)
    return labels[:, 0], distances[:, 0]


def inertia(vectors: np.ndarray, centroids: np.ndarray) -> float:
    """Sum the squared distances of rows to their nearest centroid, in float64."""
    _, distances = assign(vectors, centroids)
    return float(np.square(distances.astype(np.float64)).sum())


def _moments(sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    def mean_of(power: int, center: np.ndarray) -> np.ndarray:
        total = np.zeros(sample.shape[1], dtype=np.float64)
        for start in range(0, len(sample), _ROWS_PER_CHUNK):
            block = sample[start : start + _ROWS_PER_CHUNK].astype(np.float64) - center
            total += (block**power).sum(axis=0)
        return total / len(sample)

    # Centring on a member first keeps the mean of a constant dimension exact.
    origin = sample[0].astype(np.float64)
    mean = origin + mean_of(1, origin)
    return mean, mean_of(2, mean)


def _minibatch(matrix: np.ndarray, k: int, seed: int) -> np.ndarray:
    model = MiniBatchKMeans(
        n_clusters=k,
        init="k-means++",
        n_init=1,
        batch_size=_BATCH_ROWS,
        init_size=min(len(matrix), max(3 * _BATCH_ROWS, _INIT_ROWS_PER_CLUSTER * k)),
        compute_labels=False,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(matrix)
    return np.ascontiguousarray(model.cluster_centers_, dtype=np.float32)


def _lloyd_step(
    matrix: np.ndarray, centroids: np.ndarray, threads: int
) -> tuple[np.ndarray, float]:
    """Move centroids to their rows' means, dropping empty ones.

    Returns:
        the centroids, and the inertia before less the rows' squared norms.
    """
    k, n_dims = centroids.shape
    sums = np.zeros((k, n_dims), dtype=np.float64)
    counts = np.zeros(k, dtype=np.int64)
    total = 0.0
    for start, labels, squared in _approximate_labels(matrix, centroids, threads):
        rows = matrix[start : start + len(labels)].astype(np.float64)
        members = sparse.csr_array(
            (np.ones(len(rows)), (labels, np.arange(len(rows)))), shape=(k, len(rows))
        )
        sums += members @ rows
        counts += np.bincount(labels, minlength=k)
        total += float(squared.astype(np.float64).sum())
    used = counts > 0
    return (sums[used] / counts[used, None]).astype(np.float32), total


def _largest_first(matrix: np.ndarray, centroids: np.ndarray, threads: int) -> np.ndarray:
    centroids = centroids[distinct_rows(centroids)[0]]
    counts = np.zeros(len(centroids), dtype=np.int64)
    for _, labels, _ in _approximate_labels(matrix, centroids, threads):
        counts += np.bincount(labels, minlength=len(centroids))
    by_content = row_order(centroids)
    order = by_content[np.argsort(-counts[by_content], kind="stable")]
    return np.ascontiguousarray(centroids[order[counts[order] > 0]])


def _approximate_labels(
    matrix: np.ndarray, centroids: np.ndarray, threads: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield of each chunk its first row, and its rows' nearest centroids and `rank_distances` to them."""
    centers_sq = squared_norms(centroids)

    def nearest_of(start: int) -> tuple[int, np.ndarray, np.ndarray]:
        chunk = matrix[start : start + _ROWS_PER_CHUNK]
        approximate = rank_distances(chunk, centroids, centers_sq)
        labels = approximate.argmin(axis=1)
        return start, labels, approximate[np.arange(len(chunk)), labels]

    # In order, so that sums are added alike on any number of threads.
    yield from in_order(nearest_of, range(0, len(matrix), _ROWS_PER_CHUNK), threads)
