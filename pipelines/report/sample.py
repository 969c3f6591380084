"""The ads that a report is drawn from: a bounded sample, its themes, and those of it on the map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts import ReviewItem, ScoredPart
from pipelines.errors import RunFailed
from pipelines.numerics import calibration, hashing, kmeans
from pipelines.numerics.hashing import below, sample_limit
from pipelines.numerics.projection import neighbour_plane
from pipelines.report.themes import TEXT_CHARS, group_themes
from pipelines.store import blocks
from pipelines.store.clusters import read_clusters
from pipelines.store.facts import ClustersFacts, PairsFacts, ScoredFacts
from pipelines.store.scores import parts_of, read_columns
from pipelines.store.workspace import Manifest, Workspace

# What a neighbour-preserving plane takes under ten seconds for.
MAP_ADS = 3_000
# Of a cluster that is shown closely so many ads are on the map, whatever the draw says.
_CLOSE_ADS = 100
# A theme needs no more of a cluster's ads.
_THEME_ADS = 60
_WORDS, _EXAMPLES = 5, 3
# More names than this on a map are in each other's way.
_AREAS = 12
# Ads that begin alike are one example, not two.
_SAME_START = 32
# Overlaps that are named; of them so many are shown closely.
NAMED, CLOSE = 10, 3


@dataclass(frozen=True, slots=True)
class Theme:
    """What a group of ads is about.

    Attributes:
        words: most telling first; none where nothing tells the group from the others.
        ads: how many of the sample's ads are in it.
        examples: texts of ads at its middle, the first characters of each.
    """

    words: tuple[str, ...]
    ads: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Area:
    """A part of the map: its middle there, and what it is about."""

    x: float
    y: float
    theme: Theme


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two clusters of opposite labels that mix.

    Attributes:
        rank: 1 for the pair of clusters that mixes most.
        positive, negative: what they are about.
        clusters: their numbers, the positive one's first.
        items: places of the pairs that were chosen from it, in review order.
    """

    rank: int
    positive: Theme
    negative: Theme
    clusters: tuple[int, int]
    items: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """The ads on the maps, what they are about, and the scores of all ads.

    Attributes:
        histogram: int64 (N_BINS,), of all ads.
        ads: how many they are.
        positives: how many of them are called positive.
        threshold: margin from which an ad is called so.
        read: how many ads the themes were read from.
        points: float32 (n, 2), of the ads on the maps.
        positive: bool (n,).
        cluster: int32 (n,), within the row's own label; 0 where the round has no clusters.
        items: rows of each item's ads; of a long round the first items alone are on the maps.
        areas: parts of the map, largest first.
        overlaps: those that are named, best first.
        close: of them, those that are shown closely: no cluster twice while there are others.
        searched: how many overlaps pairs are spread over.
    """

    histogram: np.ndarray
    ads: int
    positives: int
    threshold: float
    read: int
    points: np.ndarray
    positive: np.ndarray
    cluster: np.ndarray
    items: tuple[tuple[int, ...], ...]
    areas: tuple[Area, ...]
    overlaps: tuple[Overlap, ...]
    close: tuple[Overlap, ...]
    searched: int

    @property
    def extent(self) -> str:
        """How many ads the maps are drawn on, in words."""
        if len(self.points) == self.ads:
            return f"drawn on all {self.ads:,} ads"
        return f"drawn on {len(self.points):,} of {self.ads:,} ads"

    def members(self, found: Overlap) -> tuple[np.ndarray, np.ndarray]:
        """Return which ads on the map are in the two clusters, bool (n,) each, the positive first."""
        of_positive, of_negative = found.clusters
        return (
            self.positive & (self.cluster == of_positive),
            ~self.positive & (self.cluster == of_negative),
        )

    def pairs(self, found: Overlap) -> list[tuple[int, ...]]:
        """Return the rows of the pairs that were chosen from an overlap, those on the map."""
        return [self.items[place] for place in found.items if place < len(self.items)]


def draw_sample(
    workspace: Workspace,
    scored: Manifest[ScoredFacts],
    clusters: Manifest[ClustersFacts] | None,
    pairs: Manifest[PairsFacts],
    items: Sequence[ReviewItem],
    wanted: int,
) -> Sample:
    """Return what a round's maps and themes are made of.

    Args:
        workspace: the workspace.
        scored: the scored ads.
        clusters: None where the round's strategy looks for none.
        pairs: the round's items as their manifest has them.
        items: what experts are asked about, in review order.
        wanted: ads to read at most; those of the items are always among them.

    Raises:
        RunFailed: something in the workspace is damaged, or an item's ad is not among the scored ones.

    Memory: see :func:`pipelines.report.data.with_sample`.
    """
    seed, threshold = pairs.facts.origin.task.seed, pairs.facts.threshold
    always = frozenset(ad.key for item in items for ad in item.ads)
    histogram, table = _gather(workspace, scored, always, wanted, seed)
    keys = table.column("key").to_pylist()
    row = {key: place for place, key in enumerate(keys)}
    lost = sorted(always - row.keys())
    if lost:
        raise RunFailed(
            f"{workspace.path(scored.attempt)}: an ad of round {pairs.round}'s pairs (key {lost[0]}) "
            "is not among its scored ads; the corpus was changed in the middle of the round: mine it "
            "again"
        )
    positive = table.column("margin").to_numpy() >= np.float32(threshold.margin)
    texts = table.column("text").to_pylist()
    space, centers = kmeans.VectorSpace(None, None), list[np.ndarray]()
    ranked: list[tuple[int, int]] = []
    if clusters:
        held = read_clusters(workspace, clusters)
        space, centers = held.space, [held.positive, held.negative]
        ranked = [(line["positive"], line["negative"]) for line in held.overlaps]
    vectors = kmeans.project(space, blocks.vectors(table))
    cluster, distance = np.zeros(len(vectors), dtype=np.int32), np.zeros(len(vectors))
    for side, of_label in zip((True, False), centers, strict=False):
        members = np.flatnonzero(positive == side)
        if len(members):
            cluster[members], distance[members] = kmeans.assign(vectors[members], of_label)
    if centers:
        # One number a cluster: those of the positive label first.
        group = np.where(positive, cluster, len(centers[0]) + cluster)
        themes = _themes(group, (len(centers[0]), len(centers[1])), distance, texts, ranked[:NAMED])
    overlaps = _overlaps(ranked[:NAMED], items, themes) if centers else ()
    close = _close(overlaps)
    places = [[row[ad.key] for ad in item.ads] for item in items]
    first = _first_items(places)
    kept = _on_the_map(keys, seed, places[:first], _close_rows(close, positive, cluster))
    points = neighbour_plane(vectors[kept], seed)
    mapped = {int(place): new for new, place in enumerate(kept)}
    return Sample(
        histogram=histogram,
        ads=scored.rows,
        positives=threshold.n_positive,
        threshold=threshold.margin,
        read=len(keys),
        points=points,
        positive=positive[kept],
        cluster=cluster[kept],
        items=tuple(tuple(mapped[place] for place in rows) for rows in places[:first]),
        areas=_areas(points, [texts[place] for place in kept], seed),
        overlaps=overlaps,
        close=close,
        searched=len(ranked),
    )


def _themes(
    group: np.ndarray,
    clusters: tuple[int, int],
    distance: np.ndarray,
    texts: Sequence[str],
    named: Sequence[tuple[int, int]],
) -> list[tuple[Theme, Theme]]:
    """Return what the clusters of each overlap are about, told from all other clusters."""
    n_positive, n_groups = clusters[0], sum(clusters)
    read = _first_of_each(group, _THEME_ADS)
    words = group_themes([texts[row] for row in read], group[read], n_groups, _WORDS)

    def theme(number: int) -> Theme:
        members = np.flatnonzero(group == number)
        return Theme(words[number], len(members), _examples(members, distance, texts))

    return [(theme(positive), theme(n_positive + negative)) for positive, negative in named]


def _overlaps(
    named: Sequence[tuple[int, int]],
    items: Sequence[ReviewItem],
    themes: Sequence[tuple[Theme, Theme]],
) -> tuple[Overlap, ...]:
    """Return the overlaps that are named, best first."""
    chosen: dict[tuple[int, int], list[int]] = {}
    for place, item in enumerate(items):
        if item.overlap and len(item.ads) > 1:
            of = {ad.label: ad.cluster or 0 for ad in item.ads}
            chosen.setdefault((of["positive"], of["negative"]), []).append(place)
    return tuple(
        Overlap(rank, *both, pair, tuple(chosen.get(pair, ())))
        for rank, (pair, both) in enumerate(zip(named, themes, strict=True), start=1)
    )


def _first_of_each(group: np.ndarray, most: int) -> np.ndarray:
    """Return the rows that are among the first so many of their group, in order."""
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], group[order])
    return np.sort(order[np.arange(len(order)) - starts < most])


def _examples(members: np.ndarray, distance: np.ndarray, texts: Sequence[str]) -> tuple[str, ...]:
    """Return texts at the middle of a cluster that do not begin alike."""
    found: dict[str, str] = {}
    for row in members[np.argsort(distance[members], kind="stable")]:
        start = " ".join(texts[row].split()).casefold()[:_SAME_START]
        found.setdefault(start, texts[row])
        if len(found) == _EXAMPLES:
            break
    return tuple(found.values())


def _close(overlaps: Sequence[Overlap]) -> tuple[Overlap, ...]:
    """Choose which overlaps are shown closely: the best ranked, no cluster twice if others are left."""
    seen: set[tuple[str, int]] = set()
    fresh: list[Overlap] = []
    for found in overlaps:
        sides = set(zip(("positive", "negative"), found.clusters, strict=True))
        if not sides & seen:
            fresh.append(found)
            seen |= sides
    others = [found for found in overlaps if found not in fresh]
    return tuple(sorted([*fresh, *others][:CLOSE], key=lambda found: found.rank))


def _close_rows(
    close: Sequence[Overlap], positive: np.ndarray, cluster: np.ndarray
) -> list[np.ndarray]:
    return [
        np.flatnonzero((positive == side) & (cluster == number))[:_CLOSE_ADS]
        for found in close
        for side, number in zip((True, False), found.clusters, strict=True)
    ]


def _first_items(places: Sequence[Sequence[int]]) -> int:
    """Return how many of the first items fit on half of the map."""
    ads = np.cumsum([len(rows) for rows in places])
    return int(np.searchsorted(ads, MAP_ADS // 2, side="right"))


def _on_the_map(
    keys: Sequence[str], seed: int, items: Iterable[Sequence[int]], close: Iterable[np.ndarray]
) -> np.ndarray:
    """Return the rows on the map in order: of the items, of the clusters shown closely, and drawn."""
    first = [row for rows in items for row in rows]
    nearby = [int(row) for rows in close for row in rows]
    drawn = np.argsort(hashing.ranks(keys, seed), kind="stable").tolist()
    return np.sort(
        np.array(list(dict.fromkeys([*first, *nearby, *drawn]))[:MAP_ADS], dtype=np.intp)
    )


def _areas(points: np.ndarray, texts: Sequence[str], seed: int) -> tuple[Area, ...]:
    """Cut the map into parts and name each by what tells its ads from the other parts'."""
    k = min(_AREAS, max(1, len(points) // 20))
    number, _ = kmeans.assign(points, kmeans.fit_kmeans(points, k, seed))
    words = group_themes(texts, number, k, _WORDS)
    sizes = np.bincount(number, minlength=k)
    found = []
    for i in np.flatnonzero(sizes)[np.argsort(-sizes[sizes > 0], kind="stable")]:
        x, y = np.median(points[number == i], axis=0).tolist()
        found.append(Area(x, y, Theme(words[i], int(sizes[i]))))
    return tuple(found)


def _gather(
    workspace: Workspace,
    scored: Manifest[ScoredFacts],
    always: frozenset[str],
    wanted: int,
    seed: int,
) -> tuple[np.ndarray, pa.Table]:
    """Read all blocks once: the exact histogram, and a hash sample with the rows of ``always``.

    Returns:
        int64 (N_BINS,) and a table of key, text (its first characters), margin and vector, sorted by
        key; at most ``wanted`` rows, more only where ``always`` alone are more.
    """
    histogram = np.zeros(calibration.N_BINS, dtype=np.int64)
    limit = sample_limit(wanted, scored.rows)
    kept = []
    for part in parts_of(workspace, scored):
        table = _read_scores(workspace, part)
        histogram += calibration.margin_histogram(table.column("margin").to_numpy())
        keys = table.column("key").to_pylist()
        asked = np.fromiter((key in always for key in keys), bool, len(keys))
        near = below(hashing.ranks(keys, seed), limit)
        table = table.filter(pa.array(asked | near))
        short = pc.utf8_slice_codeunits(table.column("text"), 0, TEXT_CHARS)
        kept.append(table.set_column(table.schema.get_field_index("text"), "text", short))
    joined = pa.concat_tables(kept).combine_chunks()
    keys = joined.column("key").to_pylist()
    others = np.fromiter((key not in always for key in keys), bool, len(keys))
    # The ads of the items first, the rest by rank.
    order = np.lexsort((hashing.ranks(keys, seed), others))
    rows = order[: max(wanted, len(keys) - int(others.sum()))]
    return histogram, blocks.sort_by_key(joined.take(pa.array(rows)).combine_chunks())


def _read_scores(workspace: Workspace, part: ScoredPart) -> pa.Table:
    try:
        return read_columns(workspace.root, part, ["key", "text", "margin", "vector"])
    except RunFailed as error:
        raise RunFailed(f"{error.message} (by `scout mine`; then report again)") from error
