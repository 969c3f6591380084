"""How much clusters of opposite labels mix, as a ranking.

In hundreds of dimensions "centroids nearer than the sum of radii" holds for almost every pair of
clusters, so it separates nothing. Three measures of mixing are ranked instead, and their normalised
ranks averaged.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

from pipelines.numerics.distances import ExactIndex, as_matrix, true_cells, within

DISTANCE_UNIT = 1e-6
_ROWS_PER_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class ClusterStats:
    """Sums over one label's k clusters; integers, so that shards add up in any order.

    Attributes:
        centroids: float32 (k, d).
        count: int64 (k,) members (distinct ads).
        distance_sum: int64 (k,) member-to-centroid distances, in units of 1e-6.
        mass: int64 (k,) corpus weight of the members, in the corpus's unit.
    """

    centroids: np.ndarray
    count: np.ndarray
    distance_sum: np.ndarray
    mass: np.ndarray

    def __post_init__(self) -> None:
        k = len(self.centroids)
        for name in ("count", "distance_sum", "mass"):
            values = getattr(self, name)
            if values.shape != (k,) or values.dtype.kind not in "iu" or (values < 0).any():
                raise ValueError(
                    f"{name} must hold {k} non-negative integers, one a centroid, got "
                    f"{values.dtype} {values.shape}"
                )


@dataclass(frozen=True, slots=True)
class Overlap:
    """A positive and a negative cluster, and how much they mix.

    Attributes:
        positive: index of the positive cluster.
        negative: index of the negative cluster.
        score: mean normalised rank of the three measures among all pairs, in (0, 1); higher mixes
            more.
        distance_ratio: centroid distance over the sum of mean member distances, >= 0; lower mixes
            more.
        nearer_share: share of both clusters' members nearer to the other's centroid than to their
            own, [0, 1].
        neighbor_count: nearest negatives of the positive cluster's sampled members that lie in the
            negative one.
        neighbor_share: that count over all of the positive cluster's neighbours, [0, 1].
        mass: corpus weight of both clusters, in the corpus's unit.
        rank_in_positive: place among the pairs of the same positive cluster, from 1.
    """

    positive: int
    negative: int
    score: float
    distance_ratio: float
    nearer_share: float
    neighbor_count: int
    neighbor_share: float
    mass: int
    rank_in_positive: int


def rank_overlaps(
    positive: ClusterStats,
    negative: ClusterStats,
    nearer: np.ndarray,
    neighbors: np.ndarray,
    *,
    per_positive: int = 3,
) -> list[Overlap]:
    """Keep each positive cluster's most mixed pairs.

    Args:
        positive: statistics of kp clusters.
        negative: statistics of kn clusters.
        nearer: int64 (kp, kn), members of either cluster nearer to the other's centroid than to
            their own (`nearer_counts` of the positives, plus the transposed one of the negatives).
        neighbors: int64 (kp, kn) from `neighbor_counts`.
        per_positive: pairs kept of each positive cluster, at least 1.

    Returns:
        Overlaps by score, highest first, then by cluster indices. Pairs with an empty cluster are
        left out.

    Raises:
        ValueError: if shapes disagree, counts are negative, or per_positive < 1.

    Memory: about 400 * kp * kn bytes.
    """
    if per_positive < 1:
        raise ValueError(f"per_positive must be at least 1 pair, got {per_positive}")
    shape = (len(positive.centroids), len(negative.centroids))
    for name, matrix in (("nearer", nearer), ("neighbors", neighbors)):
        if matrix.shape != shape or matrix.dtype.kind not in "iu" or (matrix < 0).any():
            raise ValueError(
                f"{name} must be a {shape} matrix of non-negative integer counts, got "
                f"{matrix.dtype} {matrix.shape}"
            )
    rows, columns = np.nonzero((positive.count > 0)[:, None] & (negative.count > 0)[None, :])
    if not len(rows):
        return []
    ratio = _distance_ratio(positive, negative)[rows, columns]
    members = (positive.count[:, None] + negative.count[None, :])[rows, columns]
    nearer_share = nearer[rows, columns] / members
    found = neighbors.sum(axis=1)
    neighbor_share = neighbors[rows, columns] / np.maximum(found, 1)[rows]
    score = (_normal_rank(-ratio) + _normal_rank(nearer_share) + _normal_rank(neighbor_share)) / 3
    mass = (positive.mass[:, None] + negative.mass[None, :])[rows, columns]
    seen: dict[int, int] = {}
    overlaps = []
    for i in np.lexsort((columns, rows, -score)):
        row = int(rows[i])
        seen[row] = seen.get(row, 0) + 1
        if seen[row] > per_positive:
            continue
        overlaps.append(
            Overlap(
                positive=row,
                negative=int(columns[i]),
                score=float(score[i]),
                distance_ratio=float(ratio[i]),
                nearer_share=float(nearer_share[i]),
                neighbor_count=int(neighbors[row, columns[i]]),
                neighbor_share=float(neighbor_share[i]),
                mass=int(mass[i]),
                rank_in_positive=seen[row],
            )
        )
    return overlaps


def nearer_counts(
    vectors: np.ndarray,
    labels: np.ndarray,
    own_distance: np.ndarray,
    other_centroids: np.ndarray,
    n_clusters: int,
) -> np.ndarray:
    """Count a block's members that are nearer to a cluster of the other label than to their own.

    Blocks add up to the corpus's counts in any order, and a row's part is the same in any block.

    Args:
        vectors: float32 (n, d) members.
        labels: int (n,) own clusters, in [0, n_clusters).
        own_distance: float32 (n,) distances to the own centroid, as `kmeans.assign` gives them.
        other_centroids: float32 (k_other, d) of the opposite label.
        n_clusters: clusters of the members' own label.

    Returns:
        int64 (n_clusters, k_other): members of cluster i strictly nearer to other centroid j.

    Raises:
        ValueError: if shapes disagree, a label is out of range or a value is not finite.

    Memory: 4096 * 30 * k_other bytes, and 8 * n_clusters * k_other.
    """
    others = as_matrix("other_centroids", other_centroids)
    matrix = as_matrix("vectors", vectors, others.shape[1])
    clusters = _check_labels("labels", labels, len(matrix), n_clusters)
    own = np.asarray(own_distance, dtype=np.float32)
    if own.shape != (len(matrix),) or not (own >= 0).all():
        raise ValueError(
            f"own_distance must hold {len(matrix)} distances >= 0, one a vector, got shape "
            f"{own.shape}"
        )
    # The largest float32 below the own distance makes "within" mean strictly nearer.
    limit = np.nextafter(own, np.float32(-1.0))
    counts = np.zeros(n_clusters * len(others), dtype=np.int64)
    for start in range(0, len(matrix), _ROWS_PER_CHUNK):
        chunk = slice(start, start + _ROWS_PER_CHUNK)
        # A member that lies on its centroid cannot be nearer to another.
        nearer = within(matrix[chunk], others, np.maximum(limit[chunk], 0.0))
        nearer &= (own[chunk] > 0.0)[:, None]
        rows, columns = true_cells(nearer)
        cells = clusters[chunk][rows] * len(others) + columns
        counts += np.bincount(cells, minlength=len(counts))
    return counts.reshape(n_clusters, len(others))


def neighbor_counts(
    pos_vectors: np.ndarray,
    pos_labels: np.ndarray,
    neg_vectors: np.ndarray,
    neg_labels: np.ndarray,
    shape: tuple[int, int],
    m: int,
    threads: int = 1,
) -> np.ndarray:
    """Count where the nearest negatives of sampled positives lie, by exact search.

    Args:
        pos_vectors: float32 (p, d) sampled positives.
        pos_labels: int (p,) their clusters, in [0, kp).
        neg_vectors: float32 (n, d) sampled negatives, in a canonical order: equal distances go to
            the lower row.
        neg_labels: int (n,) their clusters, in [0, kn).
        shape: (kp, kn).
        m: neighbours of each positive, at least 1; all negatives when there are fewer.
        threads: blocks of positives that are searched side by side.

    Returns:
        int64 (kp, kn); its sum is p * min(m, n).

    Raises:
        ValueError: if shapes disagree, a label is out of range, m < 1 or a value is not finite.

    Memory: as `distances.nearest`, about 130 MB, with n * (4 * d + 40) and 8 * p * m bytes.
    """
    n_positive, n_negative = shape
    own = _check_labels("pos_labels", pos_labels, len(pos_vectors), n_positive)
    other = _check_labels("neg_labels", neg_labels, len(neg_vectors), n_negative)
    indices, _ = ExactIndex(neg_vectors).search(pos_vectors, m, threads)
    cells = own[:, None] * n_negative + other[indices]
    counts = np.bincount(cells.ravel(), minlength=n_positive * n_negative)
    return counts.astype(np.int64).reshape(n_positive, n_negative)


def _distance_ratio(positive: ClusterStats, negative: ClusterStats) -> np.ndarray:
    def radius(stats: ClusterStats) -> np.ndarray:
        return stats.distance_sum * DISTANCE_UNIT / np.maximum(stats.count, 1)

    distance = cdist(positive.centroids.astype(np.float64), negative.centroids.astype(np.float64))
    # Two clusters without extent get the finest radius the sums can tell: a finite ratio.
    return distance / np.maximum(
        radius(positive)[:, None] + radius(negative)[None, :], DISTANCE_UNIT
    )


def _normal_rank(values: np.ndarray) -> np.ndarray:
    # Middle of the tied ranks, so that equal pairs score equally and a lone pair scores one half.
    return (rankdata(values, method="average") - 0.5) / len(values)


def _check_labels(name: str, labels: np.ndarray, n_rows: int, n_clusters: int) -> np.ndarray:
    values = np.asarray(labels)
    if values.shape != (n_rows,) or (n_rows and values.dtype.kind not in "iu"):
        raise ValueError(
            f"{name} must hold {n_rows} integers, one a vector, got {values.dtype} {values.shape}"
        )
    if n_rows and (values.min() < 0 or values.max() >= n_clusters):
        raise ValueError(
            f"{name} must lie in [0, {n_clusters}), got {values.min()} to {values.max()}: are "
            "these the other label's clusters?"
        )
    return values.astype(np.int64)
