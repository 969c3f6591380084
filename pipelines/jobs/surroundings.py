"""What lies around an ad in a scored corpus: its rank, its cluster, its neighbours, its possible partners."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.errors import UsageError
from pipelines.jobs.explained import Neighbor
from pipelines.jobs.find_ad import Round
from pipelines.jobs.mine import label_rule
from pipelines.numerics import calibration, distances, kmeans
from pipelines.numerics.calibration import Band
from pipelines.stages.find_opposite_pairs import is_exhaustive
from pipelines.stages.gather_rows import is_among
from pipelines.stages.label_ads import choose_band
from pipelines.store import blocks, scores
from pipelines.store.clusters import Clusters, read_clusters
from pipelines.store.facts import ModelFacts
from pipelines.store.workspace import Manifest, Workspace
from pipelines.strategies import registry
from pipelines.strategies.base import Plan, Rows, RowStrategy, Strategy
from pipelines.verdicts.rows import NEGATIVE, POSITIVE

NEIGHBORS = 3
_COLUMNS = ("key", "id", "text", "margin", "vector")


@dataclass(frozen=True, slots=True)
class Near:
    """Another ad, and its Euclidean distance; ordered by that, then by key."""

    distance: float
    key: str
    id: str
    text: str
    margin: float


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What lies around an ad.

    Attributes:
        positive: its predicted label.
        rank: 1 more than the ads of a higher margin.
        band: margins within which pairs are looked for; of a strategy without pairs of no meaning.
        clusters: of the round, or None.
        cluster: its own, within its label.
        searched: whether pairs of that were looked for: of all in a band that is searched each with each,
            else of those that are part of a cluster pair that mixes.
        near: ``positive`` and ``negative`` -> nearest ads that the model calls so.
        asked: nearest ad of those that experts saw before or that the round shows; None without any.
        partners: nearest ads that it could be paired with, nearest first.
        place: of a strategy that scores ads by their margin alone: place among the unseen ones, from 1.
    """

    positive: bool
    rank: int
    band: Band
    clusters: Clusters | None
    cluster: int
    searched: bool
    near: Mapping[str, tuple[Neighbor, ...]]
    asked: Near | None
    partners: tuple[Near, ...]
    place: int | None


def look_around(
    workspace: Workspace,
    place: Round,
    model: Manifest[ModelFacts] | None,
    row: pa.Table,
    advance: Callable[[], None],
) -> Surroundings:
    """Read a round's blocks twice: margins, then vectors, one block at a time.

    Args:
        workspace: the workspace.
        place: the round.
        model: what scored it; None for LLM-0.
        row: the ad as a scored row.
        advance: called once a block of the second reading.

    Raises:
        RunFailed: something in the workspace is damaged.
    """
    pairs, facts = place.pairs, place.pairs.facts
    task, threshold = facts.origin.task, facts.threshold
    key, margin = row.column("key")[0].as_py(), float(row.column("margin")[0].as_py())
    positive = margin >= threshold.margin
    shown = workspace.shown_keys(pairs.round)
    items = {ad.key: item.item_id for item in workspace.read_items(pairs) for ad in item.ads}
    histogram, open_ads, ahead = _margins(workspace, place, shown, key, margin)
    band = choose_band(open_ads, threshold, label_rule(task, model))
    sizes = calibration.band_sizes(open_ads, threshold, band)
    whole = is_exhaustive(*sizes, task.search.exhaustive_rows)

    manifest = workspace.clusters.find(pairs.round, pairs.config_hash)
    clusters = read_clusters(workspace, manifest) if manifest else None
    space = clusters.space if clusters else kmeans.VectorSpace(None, None)
    own = kmeans.project(space, blocks.vectors(row))
    cluster, others = 0, frozenset[int]()
    if clusters:
        cluster = int(clusters.assign(own, np.array([positive]))[0])
        sides = (POSITIVE, NEGATIVE) if positive else (NEGATIVE, POSITIVE)
        mine = (line for line in clusters.overlaps if line[sides[0]] == cluster)
        others = frozenset(line[sides[1]] for line in mine)

    near: dict[bool, list[Near]] = {True: [], False: []}
    asked: list[Near] = []
    partners: list[Near] = []
    for part in scores.parts_of(workspace, place.scored):
        table = scores.read_columns(workspace.root, part, _COLUMNS)
        vectors = kmeans.project(space, blocks.vectors(table))
        nothing = np.zeros(table.num_rows, dtype=np.int64)
        away = distances.row_distances(vectors, own, np.arange(table.num_rows), nothing)
        margins = table.column("margin").to_numpy()
        called = margins >= np.float32(threshold.margin)
        keys = table.column("key").to_pylist()
        another = np.array([found != key for found in keys], dtype=bool)
        met = is_among(table, shown)
        for side, found in near.items():
            near[side] = _nearest(table, away, another & (called == side), found, NEIGHBORS)
        seen = met | np.array([found in items for found in keys], dtype=bool)
        asked = _nearest(table, away, another & seen, asked, 1)
        if clusters and (whole or others):
            could = another & ~met & (called != positive) & band.holds(margins)
            members = np.flatnonzero(could)
            if len(members) and not whole:
                at = clusters.assign(vectors[members], called[members])
                could[members] = np.isin(at, list(others))
            partners = _nearest(table, away, could, partners, NEIGHBORS)
        advance()
    names = {POSITIVE: True, NEGATIVE: False}
    return Surroundings(
        positive=positive,
        rank=1 + int(histogram[_bins_above(margin)].sum()),
        band=band,
        clusters=clusters,
        cluster=cluster,
        searched=whole or bool(others),
        near={name: tuple(_told(n, items) for n in near[side]) for name, side in names.items()},
        asked=asked[0] if asked else None,
        partners=tuple(partners),
        place=ahead,
    )


def _margins(
    workspace: Workspace, place: Round, shown: frozenset[str], key: str, margin: float
) -> tuple[np.ndarray, np.ndarray, int | None]:
    """Return the histograms of all margins and of the unseen ads', and the ad's place by the strategy."""
    facts = place.pairs.facts
    task = facts.origin.task
    strategy = _strategy(task.selection.strategy)
    ranks = isinstance(strategy, RowStrategy) and not strategy.needs
    every = np.zeros(calibration.N_BINS, dtype=np.int64)
    unseen = np.zeros(calibration.N_BINS, dtype=np.int64)
    plan = Plan(task.selection, task.seed, task.guideline())
    ahead = 0

    def scored(keys: list[str], margins: np.ndarray) -> np.ndarray:
        assert isinstance(strategy, RowStrategy)
        context = plan.at(facts.threshold, len(keys))
        return strategy.score(Rows(keys, margins.astype(np.float64)), context)

    own = scored([key], np.array([margin]))[0] if ranks else 0.0
    for part in scores.parts_of(workspace, place.scored):
        table = scores.read_columns(workspace.root, part, ["key", "margin"])
        margins = table.column("margin").to_numpy()
        left = ~is_among(table, shown)
        every += calibration.margin_histogram(margins)
        unseen += calibration.margin_histogram(margins[left])
        if ranks and left.any():
            keys = table.filter(pa.array(left)).column("key").to_pylist()
            ahead += int((scored(keys, margins[left]) > own).sum())
    return every, unseen, 1 + ahead if ranks else None


def _strategy(name: str) -> Strategy | None:
    try:
        return registry.create(name)
    except UsageError:
        # One of somebody's own, which this process does not know.
        return None


def _bins_above(margin: float) -> slice:
    [own] = np.flatnonzero(calibration.margin_histogram(np.array([margin], dtype=np.float32)))
    return slice(int(own) + 1, None)


def _nearest(
    table: pa.Table, away: np.ndarray, wanted: np.ndarray, before: Iterable[Near], number: int
) -> list[Near]:
    """Return the nearest of some rows and of what was found before."""
    rows = np.flatnonzero(wanted)
    rows = rows[np.argsort(away[rows], kind="stable")[: 2 * number]]
    names = ("key", "id", "text", "margin")
    found = (
        Near(float(away[row]), *(table.column(name)[row].as_py() for name in names))
        for row in rows.tolist()
    )
    return heapq.nsmallest(number, [*before, *found], key=lambda near: (near.distance, near.key))


def _told(near: Near, items: Mapping[str, str]) -> Neighbor:
    return Neighbor(
        id=near.id,
        text=near.text,
        distance=round(near.distance, 6),
        probability=round(float(calibration.probability(near.margin)), 6),
        item_id=items.get(near.key, ""),
    )
