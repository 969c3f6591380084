"""Which pairs to ask about: coverage of the corpus first, spread over cluster pairs by mass."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pipelines.numerics.distances import (
    as_matrix,
    error_bound,
    rank_distances,
    row_distances,
    row_order,
    squared_norms,
    within,
)
from pipelines.numerics.hashing import key_order

# Weights become integers, so that their sums are exact and the order of rows cannot break ties.
_WEIGHT_UNIT = 1e-6
_MEMBERS_PER_CLUSTER = 512
_MAX_REFILL = 4096


@dataclass(frozen=True, slots=True)
class Candidates:
    """c candidate pairs of opposite labels.

    Attributes:
        positive: int32 (c,) row of the positive ad in the matrix of vectors.
        negative: int32 (c,) row of the negative ad.
        distance: float32 (c,) Euclidean distance of the two, >= 0.
        overlap: int32 (c,) index of the overlap (cluster pair) the candidate was found in.
        mutual: bool (c,) whether each is the other's nearest of the opposite label.
    """

    positive: np.ndarray
    negative: np.ndarray
    distance: np.ndarray
    overlap: np.ndarray
    mutual: np.ndarray

    def __len__(self) -> int:
        return len(self.positive)


@dataclass(frozen=True, slots=True)
class CoverageSample:
    """s sampled ads that stand for the corpus.

    Attributes:
        vectors: float32 (s, d) unit vectors.
        weight: float64 (s,) corpus weight each stands for, >= 0.
        label: bool (s,) predicted label.
        cluster: int32 (s,) cluster within the label.
    """

    vectors: np.ndarray
    weight: np.ndarray
    label: np.ndarray
    cluster: np.ndarray


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen pair.

    Attributes:
        candidate: index into the candidates.
        covered_weight: corpus weight this pair covers and no earlier one did.
        cumulative_share: share of the sample's whole weight covered by all pairs up to this one, in
            [0, 1].
    """

    candidate: int
    covered_weight: float
    cumulative_share: float


def cover_radius(sample: CoverageSample, quantile: float = 0.25, seed: int = 0) -> float:
    """Measure how far an ad covers: a quantile of member-to-member distances within clusters.

    Clusters of more than 512 sampled members are thinned to 512, drawn by `seed` from the members'
    contents, so the order of the sample does not matter.

    Args:
        sample: the sampled ads.
        quantile: in [0, 1].
        seed: of the thinning.

    Returns:
        The radius, >= 0 (0 when no cluster has two members: then an ad covers its equals only). It
        is one of the distances, so which pairs lie within it is clear-cut.

    Raises:
        ValueError: if the quantile is out of bounds or the sample's parts disagree.

    Memory: 8 bytes a pair of members, at most 2048 * s.
    """
    if not 0.0 <= quantile <= 1.0:
        raise ValueError(f"quantile must lie in [0, 1], got {quantile!r}")
    vectors, _ = _check_sample(sample)
    rows = np.lexsort((sample.cluster, sample.label))
    slices = _cluster_slices(np.asarray(sample.label)[rows], np.asarray(sample.cluster)[rows])
    found = []
    for part in slices.values():
        members = rows[part]
        members = members[row_order(vectors[members])]
        if len(members) > _MEMBERS_PER_CLUSTER:
            rng = np.random.default_rng(seed)
            members = members[
                np.sort(rng.choice(len(members), _MEMBERS_PER_CLUSTER, replace=False))
            ]
        found.append(members)
    return _quantile_of_distances(vectors, found, quantile)


def select_pairs(
    candidates: Candidates,
    vectors: np.ndarray,
    keys: Sequence[str],
    overlaps_mass: np.ndarray,
    overlap_clusters: np.ndarray,
    sample: CoverageSample,
    *,
    budget: int,
    radius: float,
    near_identical: float = 0.97,
    nearest_window: int = 64,
    asked: np.ndarray | None = None,
) -> list[Choice]:
    """Choose pairs for review: greedy coverage within seats that go to cluster pairs by mass.

    Overlaps get seats by mass (Sainte-Laguë's highest averages; ties to the lower index). Each seat
    looks at the `nearest_window` best remaining candidates of its overlap (mutual first, then
    nearest, then keys) and takes the one that covers the most weight not covered yet (ties: nearer,
    then keys). A pair covers the sampled ads of its two clusters within `radius` of either of its
    ads. An ad is used once; a candidate with an ad nearly identical to one chosen before is
    dropped; an overlap without candidates leaves its seats to the others.

    Args:
        candidates: the pairs to choose from.
        vectors: float32 (m, d) unit vectors of the candidates' ads.
        keys: m content hashes, which break ties.
        overlaps_mass: int64 (o,) mass of each overlap, >= 0.
        overlap_clusters: int (o, 2) positive and negative cluster of each overlap.
        sample: the ads to cover.
        budget: most pairs to choose, >= 0.
        radius: covering distance, >= 0, from `cover_radius`.
        near_identical: highest cosine, in (0, 1], at which two ads still count as different.
        nearest_window: candidates weighed for a seat, at least 1.
        asked: float32 (a, d) unit vectors of ads experts have seen already; nothing nearly
            identical is chosen.

    Returns:
        At most `budget` choices, in order of choice. The same whatever the order of candidates,
        sample or vectors.

    Raises:
        ValueError: if an argument is out of bounds, shapes disagree or an index is out of range.

    Memory: 300 * m + 60 * c + s * (4 * d + 40) bytes, 4 * d bytes a chosen ad, and the cover masks:
    2 * nearest_window bytes for each sampled ad of each overlap that gets a seat. Measured: 77 MB
    and 1 to 2 s for 1,000 pairs of 50,000 candidates, 20,000 sampled ads, 384 dimensions.
    Time: masks are computed only for candidates that enter a window, so it grows with the budget,
    not with c.
    Source: greedy maximum coverage (Nemhauser, Wolsey and Fisher, 1978); Sainte-Laguë, 1910.
    """
    selection = _Selection(
        candidates, vectors, keys, overlap_clusters, sample, radius, near_identical, nearest_window
    )
    if budget < 0:
        raise ValueError(f"budget must not be negative, got {budget}")
    masses = np.asarray(overlaps_mass)
    if masses.shape != (len(overlap_clusters),) or (masses < 0).any():
        raise ValueError(
            f"overlaps_mass must hold {len(overlap_clusters)} masses >= 0, one an overlap, got "
            f"shape {masses.shape}"
        )
    if asked is not None:
        selection.avoid(as_matrix("asked", asked, selection.vectors.shape[1]))
    # Fractions compare exactly; quotients in floating point would break ties by rounding.
    queue = [(-Fraction(int(mass)), overlap, 0) for overlap, mass in enumerate(masses)]
    heapq.heapify(queue)
    choices: list[Choice] = []
    while queue and len(choices) < budget:
        _, overlap, seats = heapq.heappop(queue)
        choice = selection.take(overlap)
        if choice is not None:
            choices.append(choice)
            quotient = Fraction(int(masses[overlap]), 2 * seats + 3)
            heapq.heappush(queue, (-quotient, overlap, seats + 1))
    return choices


@dataclass(slots=True)
class _Window:
    """An overlap's queue of candidates, best first, and the cover masks of the next ones.

    Attributes:
        queue: candidates in order of preference.
        parts: rows of the sample, sorted by cluster, that belong to the positive and the negative
            cluster.
        next: place in the queue of the first candidate not looked at.
        ready: usable candidates before that place, in order.
        masks: for each of them one bool matrix row a part: which sampled ads it covers.
    """

    queue: np.ndarray
    parts: tuple[slice, slice]
    next: int
    ready: np.ndarray
    masks: tuple[np.ndarray, ...]


class _Selection:
    """The state of one selection: what is covered, used and blocked."""

    def __init__(
        self,
        candidates: Candidates,
        vectors: np.ndarray,
        keys: Sequence[str],
        overlap_clusters: np.ndarray,
        sample: CoverageSample,
        radius: float,
        near_identical: float,
        nearest_window: int,
    ) -> None:
        if not radius >= 0.0:
            raise ValueError(f"radius must be a distance >= 0, got {radius!r}")
        if not 0.0 < near_identical <= 1.0:
            raise ValueError(f"near_identical must be a cosine in (0, 1], got {near_identical!r}")
        if nearest_window < 1:
            raise ValueError(f"nearest_window must be at least 1, got {nearest_window}")
        self.vectors = as_matrix("vectors", vectors)
        sample_vectors, weight = _check_sample(sample, self.vectors.shape[1])
        self._clusters = np.asarray(overlap_clusters).reshape(-1, 2)
        _check_candidates(candidates, len(self.vectors), len(keys), len(self._clusters))
        self._candidates = candidates
        self._radius = radius
        # Unit vectors: cosine above c means a distance below sqrt(2 - 2c).
        self._too_near = float(
            np.nextafter(np.float32(np.sqrt(2.0 - 2.0 * near_identical)), np.float32(-1))
        )
        self._width = nearest_window
        # Sorted by cluster, so that an overlap's members are two slices and need no copy.
        rows = np.lexsort((sample.cluster, sample.label))
        self._parts = _cluster_slices(np.asarray(sample.label)[rows], sample.cluster[rows])
        self._sample_vectors = sample_vectors[rows]
        self._sample_sq = squared_norms(self._sample_vectors)
        self._left = np.rint(weight[rows] / _WEIGHT_UNIT).astype(np.int64)
        self._total = int(self._left.sum())
        self._covered = 0
        self._blocked = np.zeros(len(self.vectors), dtype=bool)
        self._compared = np.zeros(len(self.vectors), dtype=np.int64)
        self._taken = np.empty((0, self.vectors.shape[1]), dtype=np.float32)
        self._n_taken = 0
        self._windows: dict[int, _Window] = {}
        key_rank = key_order(keys)
        pair_keys = (key_rank[candidates.negative], key_rank[candidates.positive])
        by_distance = np.lexsort((*pair_keys, candidates.distance))
        self._nearness = np.empty(len(candidates), dtype=np.int64)
        self._nearness[by_distance] = np.arange(len(candidates))
        preference = by_distance[
            np.argsort(~candidates.mutual[by_distance].astype(bool), kind="stable")
        ]
        self._queues = _split_by(candidates.overlap, preference)

    def avoid(self, vectors: np.ndarray) -> None:
        """Drop, from now on, candidates nearly identical to these rows."""
        needed = self._n_taken + len(vectors)
        if needed > len(self._taken):
            grown = np.empty((2 * needed, self.vectors.shape[1]), dtype=np.float32)
            grown[: self._n_taken] = self._taken[: self._n_taken]
            self._taken = grown
        self._taken[self._n_taken : needed] = vectors
        self._n_taken = needed

    def take(self, overlap: int) -> Choice | None:
        """Choose the overlap's next pair, or None if it has no candidate left."""
        if overlap not in self._queues:
            return None
        window = self._windows.get(overlap)
        if window is None:
            window = self._windows[overlap] = self._open(overlap)
        self._refresh(window)
        if not len(window.ready):
            del self._windows[overlap], self._queues[overlap]
            return None
        weighed = window.ready[: self._width]
        gains = np.zeros(len(weighed), dtype=np.int64)
        for part, masks in zip(window.parts, window.masks, strict=True):
            gains += masks[: self._width] @ self._left[part]
        best = int(np.lexsort((self._nearness[weighed], -gains))[0])
        candidate, gain = int(weighed[best]), int(gains[best])
        for part, masks in zip(window.parts, window.masks, strict=True):
            self._left[part][masks[best]] = 0
        self._covered += gain
        ads = [self._candidates.positive[candidate], self._candidates.negative[candidate]]
        self._blocked[ads] = True
        self.avoid(self.vectors[ads])
        share = self._covered / self._total if self._total else 0.0
        return Choice(candidate, gain * _WEIGHT_UNIT, share)

    def _open(self, overlap: int) -> _Window:
        positive, negative = (int(cluster) for cluster in self._clusters[overlap])
        parts = (
            self._parts.get((True, positive), slice(0, 0)),
            self._parts.get((False, negative), slice(0, 0)),
        )
        masks = tuple(np.empty((0, part.stop - part.start), dtype=bool) for part in parts)
        return _Window(self._queues[overlap], parts, 0, np.empty(0, dtype=np.int64), masks)

    def _refresh(self, window: _Window) -> None:
        """Drop candidates that became unusable; if too few are left, ready two windows' worth."""
        usable = self._usable(window.ready)
        if not usable.all():
            window.ready = window.ready[usable]
            window.masks = tuple(masks[usable] for masks in window.masks)
        if len(window.ready) >= self._width or window.next == len(window.queue):
            return
        # In bulk, because a matrix product of two rows costs nearly as much as one of a hundred.
        wanted, size, fresh = 2 * self._width - len(window.ready), 2 * self._width, []
        while wanted and window.next < len(window.queue):
            batch = window.queue[window.next : window.next + size]
            good = np.flatnonzero(self._usable(batch))[:wanted]
            wanted -= len(good)
            window.next += len(batch) if wanted else int(good[-1]) + 1
            fresh.append(batch[good])
            size = min(2 * size, _MAX_REFILL)
        added = np.concatenate(fresh)
        window.ready = np.concatenate([window.ready, added])
        window.masks = tuple(
            np.concatenate([masks, self._masks(added, part)])
            for masks, part in zip(window.masks, window.parts, strict=True)
        )

    def _usable(self, batch: np.ndarray) -> np.ndarray:
        positive, negative = self._candidates.positive[batch], self._candidates.negative[batch]
        ads = np.unique(np.concatenate([positive, negative]))
        ads = ads[~self._blocked[ads] & (self._compared[ads] < self._n_taken)]
        if len(ads) and self._too_near >= 0.0:
            recent = self._taken[int(self._compared[ads].min()) : self._n_taken]
            self._blocked[ads] = within(self.vectors[ads], recent, self._too_near).any(axis=1)
            self._compared[ads] = self._n_taken
        return ~(self._blocked[positive] | self._blocked[negative])

    def _masks(self, batch: np.ndarray, part: slice) -> np.ndarray:
        ads, where = np.unique(
            np.concatenate([self._candidates.positive[batch], self._candidates.negative[batch]]),
            return_inverse=True,
        )
        masks = within(
            self.vectors[ads],
            self._sample_vectors[part],
            self._radius,
            right_sq=self._sample_sq[part],
        )
        return masks[where[: len(batch)]] | masks[where[len(batch) :]]


def _quantile_of_distances(
    vectors: np.ndarray, groups: Sequence[np.ndarray], quantile: float
) -> float:
    """Return the quantile (the lower one) of the distances of all pairs of rows in a group, 0 of none.

    Products say which distances it may be; these alone are measured.
    """
    squared, errors = [], [0.0]
    for rows in groups:
        own = vectors[rows]
        length_sq = squared_norms(own)
        cells = rank_distances(own, own, length_sq) + length_sq[:, None].astype(np.float32)
        squared.append(cells[np.triu_indices(len(rows), k=1)])
        errors.append(float(error_bound(length_sq, length_sq, own.shape[1]).max(initial=0.0)))
    together = np.concatenate(squared) if squared else np.empty(0, dtype=np.float32)
    if not len(together):
        return 0.0
    place = int(np.floor((len(together) - 1) * quantile))
    # The one that is looked for is off by one error at most, each other by as much.
    middle, slack = float(np.partition(together, place)[place]), 2.0 * max(errors)
    low, high = np.float32(middle - slack), np.float32(middle + slack)
    low, high = np.nextafter(low, np.float32(-np.inf)), np.nextafter(high, np.float32(np.inf))
    near = []
    for rows, values in zip(groups, squared, strict=True):
        left, right = (side[(values >= low) & (values <= high)] for side in _pairs_of(rows))
        near.append(row_distances(vectors, vectors, left, right))
    below = int(np.count_nonzero(together < low))
    return float(np.sort(np.concatenate(near))[place - below])


def _pairs_of(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    left, right = np.triu_indices(len(rows), k=1)
    return rows[left], rows[right]


def _split_by(groups: np.ndarray, order: np.ndarray) -> dict[int, np.ndarray]:
    """Split row numbers by group, keeping their order within each."""
    sorted_rows = order[np.argsort(groups[order], kind="stable")]
    values, starts = np.unique(groups[sorted_rows], return_index=True)
    parts = np.split(sorted_rows, starts[1:])
    return {int(value): part for value, part in zip(values, parts, strict=False)}


def _cluster_slices(label: np.ndarray, cluster: np.ndarray) -> dict[tuple[bool, int], slice]:
    """Find where each cluster lies among rows sorted by label and cluster."""
    if not len(label):
        return {}
    changes = (label[1:] != label[:-1]) | (cluster[1:] != cluster[:-1])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    stops = np.append(starts[1:], len(label))
    return {
        (bool(label[start]), int(cluster[start])): slice(int(start), int(stop))
        for start, stop in zip(starts, stops, strict=True)
    }


def _check_sample(
    sample: CoverageSample, n_dims: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    vectors = as_matrix("sample.vectors", sample.vectors, n_dims)
    weight = np.asarray(sample.weight, dtype=np.float64)
    shapes = {weight.shape, np.shape(sample.label), np.shape(sample.cluster)}
    if shapes != {(len(vectors),)}:
        raise ValueError(
            f"sample must hold one weight, label and cluster a vector ({len(vectors)}), got shapes "
            f"{sorted(shapes)}"
        )
    if not (np.isfinite(weight) & (weight >= 0)).all():
        raise ValueError("sample.weight must be finite and not negative")
    return vectors, weight


def _check_candidates(candidates: Candidates, n_ads: int, n_keys: int, n_overlaps: int) -> None:
    shapes = {
        np.shape(getattr(candidates, name))
        for name in ("positive", "negative", "distance", "overlap", "mutual")
    }
    if shapes != {(len(candidates.positive),)}:
        raise ValueError(f"candidates must have parts of one length, got shapes {sorted(shapes)}")
    if n_keys != n_ads:
        raise ValueError(f"keys must give one key a vector, got {n_keys} for {n_ads} vectors")
    for name, bound in (("positive", n_ads), ("negative", n_ads), ("overlap", n_overlaps)):
        values = getattr(candidates, name)
        if len(values) and (values.min() < 0 or values.max() >= bound):
            raise ValueError(
                f"candidates.{name} must lie in [0, {bound}), got {values.min()} to {values.max()}"
            )
    distance = candidates.distance
    if len(distance) and not (np.isfinite(distance) & (distance >= 0)).all():
        raise ValueError("candidates.distance must be finite and not negative")
