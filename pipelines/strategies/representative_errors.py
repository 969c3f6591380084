"""Representative errors: ads that the model calls otherwise than most of their cluster."""

from __future__ import annotations

import numpy as np

from pipelines.numerics import kmeans
from pipelines.strategies.base import Context, Need, Pick, Rows
from pipelines.strategies.sampled import Sampled, picks, seats


class RepresentativeErrors(Sampled):
    """REAL (Chen and others, ECML PKDD 2023) on a uniform sample of the corpus.

    A minority in a cluster is a likely error; clusters get seats by how likely and how many theirs are, and
    errors of a cluster are drawn at random, so that they represent it. Needs no label.
    """

    name = "representative-errors"
    suits = "no labels yet, a model that is often right, and errors within clusters"
    needs = frozenset({Need.VECTORS})

    def choose(self, pool: Rows, budget: int, context: Context) -> list[Pick]:
        """Choose by :func:`minorities`, in about sqrt(n / 2) clusters."""
        if not len(pool):
            return []
        vectors = context.project(pool)
        centroids = kmeans.fit_kmeans(vectors, kmeans.auto_k(len(vectors)), context.seed)
        cluster, _ = kmeans.assign(vectors, centroids)
        return picks(minorities(context.positive(pool.margins), cluster, budget))


def minorities(positive: np.ndarray, cluster: np.ndarray, wanted: int) -> np.ndarray:
    """Choose rows that are called otherwise than the majority of their cluster.

    A row's probability of error is one less what it gives its cluster's majority label. Clusters share the
    seats by the sum of it over their minority; a minority larger than its seats gives its first rows. Seats
    that are left go to the likeliest errors anywhere.

    Args:
        positive: float64 (n,), probability of positive; rows in random order.
        cluster: int (n,).
        wanted: rows to choose.

    Returns:
        int64 (min(wanted, n),) rows, clusters with most errors first.
    """
    called = positive >= 0.5
    sizes = np.bincount(cluster)
    positives = np.bincount(cluster, weights=called)
    majority = positives > sizes - positives
    error = np.where(majority[cluster], 1.0 - positive, positive)
    minor = called != majority[cluster]
    mass = np.bincount(cluster, weights=np.where(minor, error, 0.0))
    given = seats(mass, wanted)
    found = [
        np.flatnonzero(minor & (cluster == number))[: given[number]]
        for number in np.argsort(-mass, kind="stable")
    ]
    chosen = np.concatenate([np.empty(0, dtype=np.int64), *found])[:wanted]
    rest = np.setdiff1d(np.argsort(-error, kind="stable"), chosen, assume_unique=True)
    return np.concatenate([chosen, rest[: wanted - len(chosen)]])
