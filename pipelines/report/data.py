"""What a round's report is drawn from: manifests, review items, clusters and scored blocks.

The one place of the report that knows how they lie in a workspace. Kappas are those that ``train``
wrote down; where it has not seen all verdicts, the standing counts them, and nothing else reads any.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.config import Task
from pipelines.contracts import BlockFile, ReviewItem
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs.status import standing
from pipelines.numerics import calibration, hashing, kmeans
from pipelines.numerics.hashing import below, sample_limit
from pipelines.numerics.projection import Plane, pca_plane
from pipelines.report.words import word
from pipelines.store import blocks
from pipelines.store.clusters import read_clusters
from pipelines.store.facts import ClustersFacts, PairsFacts, ScoredFacts
from pipelines.store.workspace import Manifest, Workspace

LABELS = ("positive", "negative")
PROJECTIONS = ("pca", "umap")
_UMAP_NEIGHBORS = 15

# Takes unit vectors (n, d) and a seed.
Projector = Callable[[np.ndarray, int], Plane]


@dataclass(frozen=True, slots=True)
class Sample:
    """The ads on the maps, and the scores of all ads.

    Attributes:
        histogram: int64 (N_BINS,), of all ads.
        ads: how many they are.
        positives: how many of them are called positive.
        threshold: margin from which an ad is called so.
        points: float32 (n, 2).
        positive: bool (n,).
        cluster: int32 (n,), within the row's own label; 0 where the round has no clusters.
        items: rows of each item's ads.
        overlaps: (positive cluster, negative cluster) of the cluster pairs searched, best first.
        explained: share of the vectors' variance on the plane; None where there is no such share.
    """

    histogram: np.ndarray
    ads: int
    positives: int
    threshold: float
    points: np.ndarray
    positive: np.ndarray
    cluster: np.ndarray
    items: tuple[tuple[int, ...], ...]
    overlaps: tuple[tuple[int, int], ...]
    explained: float | None

    @property
    def extent(self) -> str:
        """How many ads the maps are drawn on, in words."""
        if len(self.points) == self.ads:
            return f"drawn on all {self.ads:,} ads"
        return f"drawn on {len(self.points):,} of {self.ads:,} ads"


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a round's report may show.

    Attributes:
        workspace: where it comes from.
        known: all rounds that can be shown.
        pairs: manifest of the items, whatever chose them.
        clusters: manifest of the clusters that they come from; None if there are none.
        scored: manifest of the scored ads; None if it, or a block of it, is gone.
        items: what experts are asked about, in review order.
        stand: where all rounds stand, as :func:`standing` returns it.
        sample: the ads on the maps; None when clusters or scored ads are gone.
    """

    workspace: Workspace
    known: tuple[int, ...]
    pairs: Manifest[PairsFacts]
    clusters: Manifest[ClustersFacts] | None
    scored: Manifest[ScoredFacts] | None
    items: tuple[ReviewItem, ...]
    stand: Mapping[str, Any]
    sample: Sample | None = None

    @property
    def number(self) -> int:
        """The round."""
        return self.pairs.round

    @property
    def task(self) -> Task:
        """The task as the round was mined with."""
        return self.pairs.facts.origin.task

    @property
    def names(self) -> dict[str, str]:
        """What the task called ``positive`` and ``negative``, safe to show."""
        return {label: word(name) for label, name in self.task.labels.model_dump().items()}

    @property
    def explored(self) -> list[bool]:
        """Which items were drawn at random, to measure, whatever the strategy is."""
        return [item.source == "exploration" for item in self.items]

    @property
    def comparable(self) -> list[Mapping[str, Any]]:
        """Rounds of the same version of the policy, oldest first."""
        return [e for e in self.stand["rounds"] if e["task_version"] == self.task.version]

    @property
    def evaluation(self) -> Mapping[str, Any] | None:
        """The newest evaluation of these rounds: it has every model on the same ads."""
        found = (e["model"]["evaluation"] for e in reversed(self.comparable) if e["model"])
        return next(found, None)

    def noun(self, count: int = 2) -> str:
        """Return what the items are: pairs, ads, or both."""
        sizes = frozenset(len(item.ads) for item in self.items)
        one = {frozenset({1}): "ad", frozenset({1, 2}): "item"}.get(sizes, "pair")
        return one if count == 1 else f"{one}s"


def with_sample(found: Evidence, project: Projector, wanted: int) -> Evidence:
    """Return the evidence with the ads on the maps, or without them where they cannot be drawn.

    Args:
        found: from :func:`read_round`.
        project: from :func:`projector`.
        wanted: ads to draw at most; those of the round's items are always among them.

    Raises:
        RunFailed: something in the workspace is damaged.

    Memory: about 26 bytes a dimension of each of ``wanted`` ads, and one scored block at a time.
    """
    if not found.scored or (found.pairs.facts.boundary and not found.clusters):
        return found
    return dataclasses.replace(found, sample=_draw_sample(found, project, wanted))


def read_round(workspace: Workspace, wanted: int | None) -> Evidence:
    """Read what a round's manifests say, and its items.

    Args:
        workspace: the workspace.
        wanted: the round, or None for the newest that can be shown.

    Raises:
        UsageError: nothing was mined, or no such round.
        RunFailed: something in the workspace is damaged.
    """
    pairs = workspace.pairs_of(wanted)
    return Evidence(
        workspace=workspace,
        known=tuple(workspace.pairs.by_round()),
        pairs=pairs,
        # Not the newest: a run that was killed may have left clusters whose pairs never came.
        clusters=workspace.clusters.find(pairs.round, pairs.config_hash),
        scored=workspace.scored_of(pairs),
        items=tuple(workspace.read_items(pairs)),
        stand=standing(workspace).to_json(),
    )


def projector(name: str) -> Projector:
    """Return what puts unit vectors on a plane; before anything is read, for UMAP may be missing.

    Raises:
        UsageError: it is not installed.
    """
    if name == "pca":
        return lambda vectors, _: pca_plane(vectors)
    try:
        umap: Any = importlib.import_module("umap")
    except ImportError as error:
        raise UsageError(
            f"--projection umap: {error}; `pip install umap-learn`, or leave it out for PCA"
        ) from error

    def project(vectors: np.ndarray, seed: int) -> Plane:
        # UMAP's graph needs more rows than neighbours, and its spectral start some more.
        if len(vectors) <= _UMAP_NEIGHBORS:
            return Plane(pca_plane(vectors).points, None)
        # From PCA's plane: a spectral start throws small groups of alike ads far away, and the rest is
        # then one dot. One job: with several, a seed does not fix the result.
        model = umap.UMAP(n_neighbors=_UMAP_NEIGHBORS, init="pca", random_state=seed, n_jobs=1)
        return Plane(np.asarray(model.fit_transform(vectors), dtype=np.float32), None)

    return project


def _draw_sample(found: Evidence, project: Projector, wanted: int) -> Sample:
    workspace, scored, seed = found.workspace, found.scored, found.task.seed
    assert scored is not None
    always = frozenset(ad.key for item in found.items for ad in item.ads)
    histogram, table = _gather(workspace, scored, always, wanted, seed)
    row = {key: place for place, key in enumerate(table.column("key").to_pylist())}
    lost = sorted(always - row.keys())
    if lost:
        raise RunFailed(
            f"{workspace.path(scored.attempt)}: an ad of round {found.number}'s pairs (key "
            f"{lost[0]}) is not among its scored ads; the corpus was changed in the middle of the "
            "round: mine it again"
        )
    threshold = found.pairs.facts.threshold
    positive = table.column("margin").to_numpy() >= np.float32(threshold.margin)
    clusters = read_clusters(workspace, found.clusters) if found.clusters else None
    space = clusters.space if clusters else kmeans.VectorSpace(None, None)
    vectors = kmeans.project(space, blocks.vectors(table))
    cluster = np.zeros(len(vectors), dtype=np.int32)
    if clusters:
        cluster = clusters.assign(vectors, positive)
    overlaps = clusters.overlaps if clusters else ()
    plane = project(vectors, seed)
    return Sample(
        histogram=histogram,
        ads=scored.rows,
        positives=threshold.n_positive,
        threshold=threshold.margin,
        points=plane.points,
        positive=positive,
        cluster=cluster,
        items=tuple(tuple(row[ad.key] for ad in item.ads) for item in found.items),
        overlaps=tuple((line["positive"], line["negative"]) for line in overlaps),
        explained=plane.explained,
    )


def _gather(
    workspace: Workspace,
    scored: Manifest[ScoredFacts],
    always: frozenset[str],
    wanted: int,
    seed: int,
) -> tuple[np.ndarray, pa.Table]:
    """Read all blocks once: the exact histogram, and a hash sample with the rows of ``always``.

    Returns:
        int64 (N_BINS,) and a table of key, margin and vector, sorted by key; at most ``wanted``
        rows, more only where ``always`` alone are more.
    """
    histogram = np.zeros(calibration.N_BINS, dtype=np.int64)
    limit = sample_limit(wanted, scored.rows)
    kept = []
    for file in scored.files:
        table = _read_scores(workspace, file)
        histogram += calibration.margin_histogram(table.column("margin").to_numpy())
        keys = table.column("key").to_pylist()
        asked = np.fromiter((key in always for key in keys), bool, len(keys))
        near = below(hashing.ranks(keys, seed), limit)
        kept.append(table.filter(pa.array(asked | near)))
    joined = pa.concat_tables(kept).combine_chunks()
    keys = joined.column("key").to_pylist()
    others = np.fromiter((key not in always for key in keys), bool, len(keys))
    # The ads of the items first, the rest by rank.
    order = np.lexsort((hashing.ranks(keys, seed), others))
    rows = order[: max(wanted, len(keys) - int(others.sum()))]
    return histogram, blocks.sort_by_key(joined.take(pa.array(rows)).combine_chunks())


def _read_scores(workspace: Workspace, file: BlockFile) -> pa.Table:
    try:
        return blocks.read_columns(workspace.root, file, ["key", "margin", "vector"])
    except RunFailed as error:
        raise RunFailed(f"{error.message} (by `scout mine`; then report again)") from error
