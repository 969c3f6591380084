"""k-means on unit vectors: the space, a fit on a sample, an assignment shards cannot change."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.cluster import kmeans_plusplus
from threadpoolctl import threadpool_limits

from pipelines.numerics.distances import (
    as_matrix,
    differ_from_before,
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
_INIT_ROWS_PER_CLUSTER = 10
# Fewer rows of a cluster say too little of where its middle is.
_ROWS_PER_CLUSTER = 50
_MAX_LLOYD_STEPS = 20
# A further full step that gains less than this share of the inertia is not worth its seconds.
_LLOYD_TOLERANCE = 1e-3


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
    """Fit centroids: k-means++ on a few rows, then Lloyd's steps on more and more of them.

    A step on a quarter of the rows costs a quarter, and brings the centroids nearly as far as long as
    they are far from where they belong; the last steps take all.

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

    Memory: 50 * n bytes, and 8 * k * d + 4096 * (12 * d + 8 * k) for each thread (measured: 100 MB
    at 100,000 x 384, k = 447, two threads).
    Source: Arthur and Vassilvitskii, k-means++, SODA 2007; Lloyd, 1982.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1 cluster, got {k}")
    matrix = as_matrix("vectors", vectors)
    if not len(matrix):
        raise ValueError("vectors must hold at least one row to cluster, got 0")
    # By content, lowest bits first: every n-th row is as good as a draw.
    order = row_order(matrix)
    few = _few_distinct(matrix, order, k)
    centroids = _initial(matrix, order, k, seed) if few is None else few
    step = 1
    while len(matrix) // (4 * step) >= _ROWS_PER_CLUSTER * k:
        step *= 4
    with one_blas_thread():
        lengths = squared_norms(matrix)
        while True:
            centroids, counts = _lloyd(matrix, order[::step], lengths, centroids, threads)
            if step == 1:
                return _largest_first(centroids, counts)
            step //= 4


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


def _few_distinct(matrix: np.ndarray, order: np.ndarray, k: int) -> np.ndarray | None:
    """Return the distinct rows of an ordered matrix, or None where there are more than k."""
    found: list[np.ndarray] = []
    for start in range(0, len(order), _ROWS_PER_CHUNK):
        rows = matrix[order[start : start + _ROWS_PER_CHUNK]]
        new = differ_from_before(rows)
        new[0] = not found or bool((rows[0] != found[-1][-1]).any())
        if new.any():
            found.append(rows[new])
        if sum(map(len, found)) > k:
            return None
    return np.concatenate(found)


def _initial(matrix: np.ndarray, order: np.ndarray, k: int, seed: int) -> np.ndarray:
    rows = matrix[order[:: max(1, len(order) // (_INIT_ROWS_PER_CLUSTER * k))]]
    # Threads add partial sums in an order of their own; one thread keeps the bits.
    with threadpool_limits(limits=1):
        found, _ = kmeans_plusplus(rows, k, random_state=seed)
    return np.ascontiguousarray(found, dtype=np.float32)


def _lloyd(
    matrix: np.ndarray,
    order: np.ndarray,
    lengths: np.ndarray,
    centroids: np.ndarray,
    threads: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Move centroids to their rows' means until that gains little; they and how many rows each has.

    Equal and empty ones are dropped.

    Args:
        matrix: float32 (n, d).
        order: int64 (m,), the rows to take, in a canonical order.
        lengths: float64 (n,), the squared norms of all.
        centroids: float32 (k, d).
        threads: chunks that are compared side by side.
    """
    length = float(lengths[order].sum())
    previous = math.inf
    for _ in range(_MAX_LLOYD_STEPS):
        centroids = centroids[distinct_rows(centroids)[0]]
        means, counts, shorter = _means(matrix, order, centroids, threads)
        used = counts > 0
        inertia = length + shorter
        if used.all() and inertia >= previous * (1.0 - _LLOYD_TOLERANCE):
            break
        # The last move of all would gain as little, and leave the counts to be taken anew.
        centroids, previous = means[used], inertia
    return centroids, counts


def _means(
    matrix: np.ndarray, order: np.ndarray, centroids: np.ndarray, threads: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Compare rows with all centroids.

    Returns:
        float32 (k, d) means of each centroid's rows (of none: no number); their int64 counts; the inertia
        less the rows' squared norms.
    """
    k, n_dims = centroids.shape
    centers_sq = squared_norms(centroids)

    def compared(start: int) -> tuple[np.ndarray, np.ndarray, float]:
        rows = matrix[order[start : start + _ROWS_PER_CHUNK]]
        approximate = rank_distances(rows, centroids, centers_sq)
        labels = approximate.argmin(axis=1)
        each = np.arange(len(rows))
        members = sparse.csr_array((np.ones(len(rows)), (labels, each)), shape=(k, len(rows)))
        total = float(approximate[each, labels].astype(np.float64).sum())
        return members @ rows.astype(np.float64), np.bincount(labels, minlength=k), total

    sums = np.zeros((k, n_dims), dtype=np.float64)
    counts = np.zeros(k, dtype=np.int64)
    shorter = 0.0
    # In order, so that sums are added alike on any number of threads.
    for part, number, total in in_order(compared, range(0, len(order), _ROWS_PER_CHUNK), threads):
        sums += part
        counts += number
        shorter += total
    with np.errstate(invalid="ignore"):
        return (sums / counts[:, None]).astype(np.float32), counts, shorter


def _largest_first(centroids: np.ndarray, counts: np.ndarray) -> np.ndarray:
    by_content = row_order(centroids)
    return np.ascontiguousarray(
        centroids[by_content[np.argsort(-counts[by_content], kind="stable")]]
    )
