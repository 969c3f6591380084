"""Boundary: the pairs that the model confuses most, coverage of the corpus first."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.contracts import OverlapFacts, ReviewItem
from pipelines.numerics import coverage, distances, kmeans, strata
from pipelines.numerics.hashing import lowest_ranks
from pipelines.store import blocks
from pipelines.strategies.base import Chosen, Context, Coverage, Need, PairPool, PairStrategy
from pipelines.strategies.exploration import STRATA, Exploration
from pipelines.strategies.items import as_shown, item_id, named_ad

_PARTS = 1e6
# Of an ad that exploration drew, so many of the other label are looked at before it is searched alone.
_NEAR_OTHERS = 16


class Boundary(PairStrategy):
    """Nearest pairs of opposite labels near the threshold, in the clusters that mix most.

    The published process with a band around the threshold (``docs/decisions.md``): a share of the budget
    is exploration, the rest goes to cluster pairs by their mass, and a seat takes, among its nearest
    candidates, the pair that covers most of the corpus.
    """

    name = "boundary"
    suits = "no labels yet, few violating ads: pairs on both sides of the model's border"
    needs = frozenset({Need.VECTORS})

    def choose(self, pool: PairPool, context: Context) -> Chosen:
        """Choose pairs; see :func:`select`."""
        return select(pool, context)


def explore(
    sample: pa.Table, vectors: np.ndarray, draws: int, seed: int, partners: int | None = None
) -> list[tuple[int, int | None, float]]:
    """Draw ads from score strata and give each its nearest unused ad of the other label.

    Args:
        sample: the coverage sample, sorted by key.
        vectors: float32 (rows, dim) unit vectors of the sample.
        draws: ads to draw.
        seed: of the draw.
        partners: so many of them, by hash, get a partner, and the others stand alone; None for all.

    Returns:
        (drawn row, partner row or None, propensity of the drawn row within the sample) for each draw.

    Raises:
        ValueError: more partners than half of the smaller label: where every drawn ad is to have one,
            an ad without would have to be left out, and the propensities would be wrong.
    """
    positive = sample.column("positive").to_numpy(zero_copy_only=False)
    smaller = min(int(positive.sum()), int((~positive).sum()))
    partners = draws if partners is None else min(partners, draws)
    if 2 * partners > smaller:
        raise ValueError(f"{partners} draws need {2 * partners} ads of each label, got {smaller}")
    if not draws:
        return []
    keys = sample.column("key").to_pylist()
    margins = sample.column("margin").to_numpy()
    drawn, propensities = strata.stratified_exploration(margins, keys, draws, STRATA, seed)
    paired = set(lowest_ranks([keys[row] for row in drawn.tolist()], partners, seed).tolist())
    used = np.zeros(sample.num_rows, dtype=bool)
    used[drawn] = True
    near = _near_others(vectors, positive, drawn[sorted(paired)])
    found: list[tuple[int, int | None, float]] = []
    for place, (row, propensity) in enumerate(
        zip(drawn.tolist(), propensities.tolist(), strict=True)
    ):
        partner = None
        if place in paired:
            free = next((other for other in near[row] if not used[other]), None)
            # Where all that are near are taken.
            others = np.flatnonzero((positive != positive[row]) & ~used)
            if free is None and len(others):
                nearest, _ = distances.nearest(vectors[row : row + 1], vectors[others], 1)
                free = int(others[nearest[0, 0]])
            if free is not None:
                used[free] = True
            partner = free
        found.append((row, partner, propensity))
    return found


def _near_others(
    vectors: np.ndarray, positive: np.ndarray, drawn: np.ndarray
) -> dict[int, list[int]]:
    """Return of each drawn row the nearest rows of the other label, nearest first, ties by row."""
    found: dict[int, list[int]] = {}
    for side in (True, False):
        rows, others = drawn[positive[drawn] == side], np.flatnonzero(positive != side)
        if len(rows) and len(others):
            wanted = min(_NEAR_OTHERS, len(others))
            near, _ = distances.nearest(vectors[rows], vectors[others], wanted)
            found |= zip(rows.tolist(), others[near].tolist(), strict=True)
    return found


def select(pool: PairPool, context: Context) -> Chosen:
    """Choose pairs: exploration first, then seats for cluster pairs by mass, coverage within them.

    Memory: about ``6 * dim`` bytes an ad of the candidates and of the sample, and the formulas of
    ``coverage``.
    """
    settings, seed, overlaps, space = context.selection, context.seed, pool.overlaps, pool.space
    sample, shown, total_weight = pool.sample, pool.shown, pool.total_weight
    keys = sample.column("key").to_pylist()
    sample = sample.take(pa.array(lowest_ranks(keys, settings.coverage_sample_rows, seed + 1)))
    sample_vectors = kmeans.project(space, blocks.vectors(sample))
    shown_keys = set(shown.column("key").to_pylist()) if shown is not None else set()
    open_rows = np.asarray([key not in shown_keys for key in sample.column("key").to_pylist()])
    unseen = sample.filter(pa.array(open_rows))
    sides = np.bincount(unseen.column("positive").to_numpy(zero_copy_only=False), minlength=2)
    # Partners for a share of the pairs there can be: each pair takes an ad of each label, and where
    # positives are few exploration must not use them up. Who has none stands alone, as far as there are
    # more ads than the whole budget can show.
    share = settings.exploration_share
    partners = int(share * min(settings.budget, int(sides.min())))
    spare = max(unseen.num_rows - 2 * settings.budget, 0)
    explored = _exploration_items(
        unseen,
        sample_vectors[open_rows],
        max(partners, min(int(share * settings.budget), spare)),
        partners,
        sample.num_rows / pool.population,
        context,
    )
    taken = {ad.key for item in explored for ad in item.ads}

    candidates = _without(pool.candidates, taken)
    chosen: list[coverage.Choice] = []
    radius = 0.0
    weight = sample.column("weight").to_numpy().astype(np.float64)
    # Coverage counts in fixed point: as parts of a million, no corpus is too heavy for it.
    scale = _PARTS / weight.sum() if weight.sum() else 0.0
    measured = coverage.CoverageSample(
        vectors=sample_vectors,
        weight=weight * scale,
        label=sample.column("positive").to_numpy(zero_copy_only=False),
        cluster=sample.column("cluster").to_numpy(),
    )
    if candidates.num_rows:
        radius = coverage.cover_radius(measured, settings.cover_quantile, seed)
        chosen = coverage.select_pairs(
            _numbered(candidates, pool.ads),
            kmeans.project(space, blocks.vectors(pool.ads)),
            pool.ads.column("key").to_pylist(),
            np.asarray([overlap.mass for overlap in overlaps], dtype=np.int64),
            np.asarray([(o.positive, o.negative) for o in overlaps], dtype=np.int64),
            measured,
            budget=settings.budget - len(explored),
            radius=radius,
            near_identical=settings.near_identical,
            nearest_window=settings.nearest_window,
            asked=_asked(sample, sample_vectors, taken, shown, space),
        )
    rows = candidates.take(pa.array([choice.candidate for choice in chosen], pa.int64()))
    cluster = dict(
        zip(*(pool.ads.column(name).to_pylist() for name in ("key", "cluster")), strict=True)
    )
    items: list[ReviewItem] = []
    for choice, row in zip(chosen, rows.to_pylist(), strict=True):
        overlap = overlaps[row["overlap"]]
        id = item_id((row["p_key"], row["n_key"]), context.guideline)
        positive = named_ad(row["p_key"], "positive", cluster[row["p_key"]])
        negative = named_ad(row["n_key"], "negative", cluster[row["n_key"]])
        items.append(
            ReviewItem(
                item_id=id,
                rank=len(items) + 1,
                source=Boundary.name,
                ads=as_shown((positive, negative), id, seed),
                distance=round(float(row["distance"]), 6),
                overlap=OverlapFacts(
                    mutual=row["mutual"],
                    overlap_score=round(overlap.score, 6),
                    overlap_nearer_share=round(overlap.nearer_share, 6),
                    covered_weight=choice.covered_weight / _PARTS * total_weight,
                    covered_share=round(choice.covered_weight / _PARTS, 6),
                    cumulative_share=round(choice.cumulative_share, 6),
                    partner_rank=row["partner_rank"],
                ),
            )
        )
    share = round(chosen[-1].cumulative_share, 6) if chosen else 0.0
    items += [
        dataclasses.replace(item, rank=rank)
        for rank, item in enumerate(explored, start=len(items) + 1)
    ]
    return Chosen(tuple(items), candidates.num_rows, Coverage(share, round(radius, 6)))


def _asked(
    sample: pa.Table,
    sample_vectors: np.ndarray,
    taken: set[str],
    shown: pa.Table | None,
    space: kmeans.VectorSpace,
) -> np.ndarray:
    """Return the vectors of ads that are asked about already: explored now, or shown before."""
    explored = [key in taken for key in sample.column("key").to_pylist()]
    parts = [sample_vectors[np.asarray(explored, dtype=bool)]]
    if shown is not None:
        parts.append(kmeans.project(space, blocks.vectors(shown)))
    return np.concatenate(parts)


def _exploration_items(
    sample: pa.Table,
    vectors: np.ndarray,
    draws: int,
    partners: int,
    sampled_share: float,
    context: Context,
) -> list[ReviewItem]:
    rows = sample.drop_columns(["vector"])
    items = []
    for drawn, partner, propensity in explore(sample, vectors, draws, context.seed, partners):
        ads = []
        for row in (drawn, partner):
            if row is not None:
                values = rows.slice(row, 1).to_pylist()[0]
                label = "positive" if values["positive"] else "negative"
                ads.append(named_ad(values["key"], label, values["cluster"], values["margin"]))
        id = item_id(tuple(ad.key for ad in ads), context.guideline)
        gap = None
        if partner is not None:
            between = (np.array([drawn]), np.array([partner]))
            gap = round(float(distances.row_distances(vectors, vectors, *between)[0]), 6)
        items.append(
            ReviewItem(
                item_id=id,
                rank=0,
                source=Exploration.name,
                ads=as_shown((ads[0], ads[1]), id, context.seed) if len(ads) == 2 else (ads[0],),
                distance=gap,
                propensity=float(f"{propensity * sampled_share:.6g}"),
                drawn=ads[0].key,
            )
        )
    return items


def _without(table: pa.Table, keys: set[str]) -> pa.Table:
    if not keys:
        return table
    used = pa.array(sorted(keys), pa.string())
    left, right = (pc.is_in(table.column(name), value_set=used) for name in ("p_key", "n_key"))
    return table.filter(pc.invert(pc.or_(left, right)))


def _numbered(candidates: pa.Table, ads: pa.Table) -> coverage.Candidates:
    """Return candidates with their ads as rows of a table."""
    positive, negative = (
        pc.index_in(candidates.column(name), value_set=ads.column("key").combine_chunks())
        for name in ("p_key", "n_key")
    )
    return coverage.Candidates(
        positive=positive.to_numpy().astype(np.int32),
        negative=negative.to_numpy().astype(np.int32),
        distance=candidates.column("distance").to_numpy(),
        overlap=candidates.column("overlap").to_numpy(),
        mutual=candidates.column("mutual").to_numpy(zero_copy_only=False),
    )
