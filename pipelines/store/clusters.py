"""A round's clusters as they lie in a workspace: centroids, sizes, and which of them overlap."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.numerics import kmeans
from pipelines.store import files
from pipelines.store.facts import ClustersFacts
from pipelines.store.workspace import Manifest, Workspace


@dataclass(frozen=True, slots=True)
class Clusters:
    """Clusters of both predicted labels in one space.

    Attributes:
        space: maps raw vectors to unit vectors.
        positive, negative: float32 (kp, dim) and (kn, dim) centroids.
        count: int64 (kp + kn,), ads of each, the positive ones first.
        mass: int64 (kp + kn,), their weight in thousandths.
        overlaps: the cluster pairs that mix most, best first, as ``overlaps.jsonl`` has them.
    """

    space: kmeans.VectorSpace
    positive: np.ndarray
    negative: np.ndarray
    count: np.ndarray
    mass: np.ndarray
    overlaps: tuple[Mapping[str, Any], ...]

    def of(self, positive: bool) -> np.ndarray:
        """Return one label's centroids."""
        return self.positive if positive else self.negative

    def assign(self, vectors: np.ndarray, positive: np.ndarray) -> np.ndarray:
        """Return the cluster within its own label of each ad, int32 (n,).

        Args:
            vectors: float32 (n, dim) in the clusters' space.
            positive: bool (n,), the predicted labels.
        """
        found = np.zeros(len(vectors), dtype=np.int32)
        for side in (True, False):
            members = np.flatnonzero(positive == side)
            if len(members):
                found[members] = kmeans.assign(vectors[members], self.of(side))[0]
        return found

    def size(self, positive: bool, cluster: int) -> int:
        """Return how many ads a cluster holds."""
        return int(self.count[cluster if positive else len(self.positive) + cluster])


def centroid_file(clusters: Clusters) -> bytes:
    """Return all but the overlaps as a NumPy ``.npz`` (no pickle inside)."""
    none = np.zeros(0, dtype=np.float64)
    space = clusters.space
    sink = io.BytesIO()
    np.savez(
        sink,
        positive=clusters.positive,
        negative=clusters.negative,
        mean=none if space.mean is None else space.mean,
        scale=none if space.scale is None else space.scale,
        count=clusters.count,
        mass=clusters.mass,
    )
    return sink.getvalue()


def read_clusters(workspace: Workspace, manifest: Manifest[ClustersFacts]) -> Clusters:
    """Read what a ``clusters`` attempt holds.

    Raises:
        Damaged: a file of it is gone or has changed.
    """
    data = files.read(workspace.root, manifest.file("centroids.npz"))
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        mean, scale = found["mean"], found["scale"]
        space = kmeans.VectorSpace(mean, scale) if mean.size else kmeans.VectorSpace(None, None)
        held = Clusters(
            space, found["positive"], found["negative"], found["count"], found["mass"], ()
        )
    lines = files.read(workspace.root, manifest.file("overlaps.jsonl")).splitlines()
    return dataclasses.replace(held, overlaps=tuple(map(json.loads, lines)))
