"""Clusters are read back as they were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.numerics import kmeans
from pipelines.numerics.calibration import Threshold
from pipelines.store import files
from pipelines.store.clusters import Clusters, centroid_file, read_clusters
from pipelines.store.facts import ClustersFacts
from pipelines.store.workspace import Manifest, Workspace
from tests import helpers


def made(space: kmeans.VectorSpace) -> Clusters:
    rng = np.random.default_rng(1)
    positive, negative = (rng.normal(size=(k, 4)).astype(np.float32) for k in (2, 3))
    count = np.array([5, 1, 7, 8, 9], dtype=np.int64)
    return Clusters(space, positive, negative, count, 1000 * count, ())


def committed(root: Path, clusters: Clusters) -> tuple[Workspace, Manifest[ClustersFacts]]:
    place = Workspace(str(root))
    attempt = place.new_attempt(1, "clusters")
    lines = (
        b'{"rank": 1, "positive": 0, "negative": 2}\n{"rank": 2, "positive": 1, "negative": 0}\n'
    )
    contents = {"centroids.npz": centroid_file(clusters), "overlaps.jsonl": lines}
    written = [
        files.write(place.root, f"{attempt}/{name}", data) for name, data in contents.items()
    ]
    facts = ClustersFacts(helpers.provenance(), Threshold(0.0, 6, 24), 2, 3, 2, 0)
    return place, Manifest.of(attempt, "h", written, 5, facts)


@pytest.mark.parametrize(
    "space",
    [kmeans.VectorSpace(None, None), kmeans.VectorSpace(np.arange(4.0), np.arange(1.0, 5.0))],
    ids=["plain", "standardised"],
)
def test_they_come_back(space: kmeans.VectorSpace, tmp_path: Path) -> None:
    clusters = made(space)
    found = read_clusters(*committed(tmp_path, clusters))
    for name in ("positive", "negative", "count", "mass"):
        np.testing.assert_array_equal(getattr(found, name), getattr(clusters, name))
    for own, held in ((found.space.mean, space.mean), (found.space.scale, space.scale)):
        assert (own is None) == (held is None)
        if own is not None and held is not None:
            np.testing.assert_array_equal(own, held)
    assert [(line["positive"], line["negative"]) for line in found.overlaps] == [(0, 2), (1, 0)]
    assert [found.size(True, 1), found.size(False, 0), found.size(False, 2)] == [1, 7, 9]


def test_ads_go_to_the_nearest_cluster_of_their_own_label() -> None:
    clusters = made(kmeans.VectorSpace(None, None))
    vectors = np.concatenate([clusters.positive, clusters.negative])
    positive = np.array([True, True, False, False, False])
    assert clusters.assign(vectors, positive).tolist() == [0, 1, 0, 1, 2]
    other = clusters.assign(vectors, ~positive)
    assert (other[:2] < 3).all() and (other[2:] < 2).all()


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    place, manifest = committed(tmp_path, made(kmeans.VectorSpace(None, None)))
    path = Path(place.path(manifest.file("centroids.npz").path))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(files.Damaged, match=r"centroids\.npz: has changed"):
        read_clusters(place, manifest)
