"""Cluster, then pick: the most typical ad of each part of the corpus that nobody was asked about."""

from __future__ import annotations

import numpy as np

from pipelines.numerics import kmeans
from pipelines.numerics.distances import ExactIndex
from pipelines.strategies.base import Context, Need, Pick, Rows
from pipelines.strategies.sampled import Sampled, picks

_NEIGHBORS = 20
# As the authors have it: more clusters than this are too small to have a typical member.
_MOST_CLUSTERS = 500


class Clusters(Sampled):
    """TypiClust (Hacohen, Dekel and Weinshall, ICML 2022) on a uniform sample of the corpus.

    As many clusters as there are labels and items to choose; those that hold a labelled ad are covered, and of
    the largest others the most typical ad is asked about. Blind to what the model says; made for few labels.
    """

    name = "clusters"
    suits = "no labels yet, and a model that seems to guess: one typical ad of each kind"
    needs = frozenset({Need.VECTORS, Need.LABELS})

    def choose(self, pool: Rows, budget: int, context: Context) -> list[Pick]:
        """Choose by :func:`typical`."""
        if not (budget and len(pool)):
            return []
        vectors = context.project(pool)
        known, _ = context.known(vectors.shape[1])
        both = np.concatenate([vectors, known])
        centroids = kmeans.fit_kmeans(both, min(len(known) + budget, _MOST_CLUSTERS), context.seed)
        cluster, _ = kmeans.assign(both, centroids)
        return picks(typical(vectors, cluster[: len(pool)], cluster[len(pool) :], budget))


def typical(
    vectors: np.ndarray, cluster: np.ndarray, covered: np.ndarray, wanted: int
) -> np.ndarray:
    """Choose the most typical row of each cluster, the largest uncovered cluster first.

    Typical is what lies near its neighbours: the inverse of the mean distance to the 20 nearest of its
    cluster. Once every cluster has given a row, the largest gives its next, covered ones too.

    Args:
        vectors: float32 (n, dim).
        cluster: int (n,).
        covered: int (c,), clusters in which labelled ads lie.
        wanted: rows to choose.

    Returns:
        int64 (min(wanted, n),) rows in order of choice; ties go to the lower cluster and row.

    Memory: of ``ExactIndex`` for the largest cluster.
    """
    order = np.argsort(cluster, kind="stable")
    starts = np.flatnonzero(np.diff(cluster[order], prepend=-1))
    queues = []
    for members in np.split(order, starts[1:]):
        number = int(cluster[members[0]])
        spread = np.zeros(len(members))
        if len(members) > 1:
            near = ExactIndex(vectors[members]).search(vectors[members], _NEIGHBORS + 1)[1]
            # The nearest is the row itself, or a copy of it.
            spread = near[:, 1:].mean(axis=1, dtype=np.float64)
        queues.append((number in covered, -len(members), number, spread, members))
    queues.sort(key=lambda queue: queue[:3])
    turns = []
    for place, (is_covered, _, _, spread, members) in enumerate(queues):
        for turn, row in enumerate(members[np.argsort(spread, kind="stable")].tolist()):
            # A covered cluster has had its first turn.
            turns.append((turn + is_covered, place, row))
    return np.array([row for _, _, row in sorted(turns)[:wanted]], dtype=np.int64)
