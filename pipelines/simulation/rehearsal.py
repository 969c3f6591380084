"""A strategy's rounds on labelled ads in memory: what mining and training compute, without a workspace.

The same functions as in the stages and in ``train``, on a set small enough for one process. A round takes
tenths of a second where `pipelines.simulation.loop` takes seconds. Nothing is kept for evaluation: the
labels are known, and other ads of the set are measured on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from models.training.data import LabelledAds, draw_folds
from models.training.learners import fit_head, held_out_margins, lean_of
from models.training.threshold import choose_threshold
from pipelines.config import Task
from pipelines.contracts import CANDIDATE_SCHEMA
from pipelines.jobs.mine import label_rule
from pipelines.jobs.selection import cluster_settings, search_settings
from pipelines.numerics import agreement, calibration, hashing, kmeans
from pipelines.numerics.calibration import Band, Fitted, Threshold
from pipelines.numerics.overlap import rank_overlaps
from pipelines.stages import cluster_per_label, find_opposite_pairs, label_ads
from pipelines.stages.find_overlaps import to_stats
from pipelines.store import blocks
from pipelines.strategies.base import (
    Context,
    Labelled,
    Need,
    PairPool,
    PairStrategy,
    Plan,
    Rows,
    RowStrategy,
    Strategy,
)
from pipelines.strategies.exploration import explored_share
from pipelines.strategies.single_ads import fill

_LEAST = 2
_FOLDS = 5


@dataclass(frozen=True, slots=True)
class ScoredAds:
    """Labelled ads as LLM-0 and the encoder see them, sorted by key.

    Attributes:
        keys: n content keys, ascending.
        margins: float32 (n,), LLM-0's, on the grid.
        vectors: float16 (n, dim), as the score store has them.
        labels: int8 (n,), 1 for positive.
    """

    keys: tuple[str, ...]
    margins: np.ndarray
    vectors: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: np.ndarray) -> ScoredAds:
        """Return some of the ads; rows ascend, so that keys do."""
        keys = tuple(self.keys[row] for row in rows)
        return ScoredAds(keys, self.margins[rows], self.vectors[rows], self.labels[rows])


@dataclass(frozen=True, slots=True)
class Split:
    """Which ads are asked about, and which are measured on; rows, ascending."""

    pool: np.ndarray
    test: np.ndarray


@dataclass(frozen=True, slots=True)
class Prices:
    """What an item costs, by the ads that it shows; in labels 1 and 2, or in minutes."""

    single: float = 1.0
    pair: float = 2.0

    def of(self, ads: int) -> float:
        """Return the price of an item of so many ads."""
        return self.pair if ads == 2 else self.single


@dataclass(frozen=True, slots=True)
class Reached:
    """Where a strategy stands after a round.

    Attributes:
        spent: what its items have cost so far, in the prices' unit.
        labels, positives: ads labelled so far, and those of them that are positive.
        kappa: Cohen's kappa of model and labels on the ads that are measured on; 0 before any model.
    """

    spent: float
    labels: int
    positives: int
    kappa: float


def split(labels: np.ndarray, keys: Sequence[str], test_share: float, seed: int) -> Split:
    """Divide ads into those asked about and those measured on, each label alike, by hashes of the keys.

    Args:
        labels: int8 (n,).
        keys: n content keys.
        test_share: of each label, in (0, 1).
        seed: of the division.
    """
    order = np.argsort(hashing.ranks(list(keys), seed), kind="stable")
    test = np.zeros(len(labels), dtype=bool)
    for value in (0, 1):
        own = order[labels[order] == value]
        test[own[: round(test_share * len(own))]] = True
    return Split(np.flatnonzero(~test), np.flatnonzero(test))


def rehearse(
    ads: ScoredAds,
    parts: Split,
    strategy: Strategy,
    task: Task,
    steps: Sequence[float],
    prices: Prices,
) -> list[Reached]:
    """Play a strategy's rounds with a head as the learner.

    Args:
        ads: the labelled set.
        parts: of it.
        strategy: chooses; as in ``scout simulate`` exploration is added to strategies of pairs alone.
        task: its selection, prior and seed count.
        steps: what may be spent in all after each round, ascending; rounded to whole items.
        prices: of an item, in the same unit.

    Returns:
        one entry a step; where a step buys no further item, or no ad is left, the one before again.
    """
    pool, test = ads.take(parts.pool), ads.take(parts.test)
    lean = lean_of(_unit(pool.vectors), pool.margins.astype(np.float64))
    asked = np.zeros(len(pool), dtype=bool)
    margins, learnt = pool.margins, None
    called = np.zeros(len(test), dtype=np.int8)
    spent, found = 0.0, list[Reached]()
    # As `scout simulate` has it: where pairs run out, the next round will be like the last.
    price = prices.of(2 if isinstance(strategy, PairStrategy) else 1)
    for may_be_spent in steps:
        wanted = round((may_be_spent - spent) / price)
        chosen = (
            choose(pool, margins, asked, strategy, _round_task(task, strategy, wanted), learnt)
            if wanted > 0 and not asked.all()
            else []
        )
        if chosen:
            cost = sum(prices.of(len(item)) for item in chosen)
            spent, price = spent + cost, cost / len(chosen)
        asked[[row for item in chosen for row in item]] = True
        if chosen and (head := _learn(pool, np.flatnonzero(asked), task, lean)):
            margins, learnt = head.margins(pool.vectors), head.fitted
            histogram = calibration.margin_histogram(margins)
            rule = dataclasses.replace(label_rule(task, None), fitted=learnt)
            threshold = label_ads.choose_threshold(histogram, rule)
            called = (head.margins(test.vectors) >= threshold.margin).astype(np.int8)
        kappa, _ = agreement.cohen_kappa(called, test.labels)
        positives = int(pool.labels[asked].sum())
        found.append(Reached(spent, int(asked.sum()), positives, float(kappa or 0.0)))
    return found


def _round_task(task: Task, strategy: Strategy, items: int) -> Task:
    changes: dict[str, object] = {"budget": items, "strategy": strategy.name}
    if not isinstance(strategy, PairStrategy):
        changes |= {"exploration_share": 0.0, "first_round_share": 0.0}
    selection = task.selection.model_copy(update=changes)
    return task.model_copy(update={"selection": selection})


@dataclass(frozen=True, slots=True)
class _Head:
    kernel: np.ndarray
    bias: float
    fitted: Fitted

    def margins(self, vectors: np.ndarray) -> np.ndarray:
        return calibration.quantize(
            _unit(vectors).astype(np.float64) @ self.kernel.astype(np.float64) + self.bias
        )


def _learn(pool: ScoredAds, rows: np.ndarray, task: Task, lean: np.ndarray) -> _Head | None:
    """Train a head and fit its threshold as `models.training.trainer` does; None of too few labels."""
    labels = pool.labels[rows]
    rarer = int(min(labels.sum(), len(labels) - labels.sum()))
    if rarer < _LEAST:
        return None
    vectors = _unit(pool.vectors[rows])
    keys = tuple(pool.keys[row] for row in rows)
    folds = draw_folds(LabelledAds(keys, keys, labels), _FOLDS, task.seed)
    cut = choose_threshold(held_out_margins(vectors, labels, folds, lean), labels)
    kernel, bias = fit_head(vectors, labels, lean)
    return _Head(kernel, bias, Fitted(cut.margin, cut.low, cut.high, rarer))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return kmeans.project(kmeans.VectorSpace(None, None), vectors)


def choose(
    pool: ScoredAds,
    margins: np.ndarray,
    asked: np.ndarray,
    strategy: Strategy,
    task: Task,
    learnt: Fitted | None,
) -> list[tuple[int, ...]]:
    """Return the rows of each item that a strategy would ask about."""
    rule = dataclasses.replace(label_rule(task, None), fitted=learnt)
    threshold = label_ads.choose_threshold(calibration.margin_histogram(margins), rule)
    known = np.flatnonzero(asked)
    positive = int(pool.labels[known].sum())
    share = explored_share(task.selection, min(positive, len(known) - positive))
    selection = task.selection.model_copy(update={"exploration_share": share})
    plan = Plan(selection, task.seed, task.guideline())
    if isinstance(strategy, PairStrategy):
        band = label_ads.choose_band(calibration.margin_histogram(margins[~asked]), threshold, rule)
        seen = _pairs_of(pool, margins, asked, task, threshold, band)
        context = plan.at(threshold, int((~asked).sum()))
        chosen = fill(strategy.choose(seen, context), seen, context)
        row = {key: number for number, key in enumerate(pool.keys)}
        return [tuple(row[ad.key] for ad in item.ads) for item in chosen.items]
    assert isinstance(strategy, RowStrategy)
    labelled = None
    if len(known) and Need.LABELS in strategy.needs:
        labelled = Labelled(_rows(pool, margins, known), pool.labels[known])
    context = plan.at(threshold, int((~asked).sum()), labelled)
    return _rows_of(pool, margins, np.flatnonzero(~asked), strategy, context)


def _rows(pool: ScoredAds, margins: np.ndarray, rows: np.ndarray) -> Rows:
    keys = [pool.keys[row] for row in rows]
    return Rows(keys, margins[rows].astype(np.float64), pool.vectors[rows])


def _rows_of(
    pool: ScoredAds,
    margins: np.ndarray,
    unseen: np.ndarray,
    strategy: RowStrategy,
    context: Context,
) -> list[tuple[int, ...]]:
    """Choose as ``KeepPool`` and ``ChooseItems`` do."""
    given = _rows(pool, margins, unseen)
    scores = strategy.score(given, context)
    wanted = strategy.pool_rows(context.selection)
    best = unseen[np.lexsort((np.asarray(given.keys), -scores))[:wanted]]
    place = np.searchsorted(unseen, best)
    kept = dataclasses.replace(_rows(pool, margins, best), scores=scores[place])
    picks = strategy.choose(kept, context.selection.budget, context)
    return [tuple(int(best[row]) for row in pick.rows) for pick in picks]


def _pairs_of(
    pool: ScoredAds,
    margins: np.ndarray,
    asked: np.ndarray,
    task: Task,
    threshold: Threshold,
    band: Band,
) -> PairPool:
    """Return what ``ClusterPerLabel``, ``FindOverlaps`` and ``FindOppositePairs`` make of the ads."""
    settings, search = cluster_settings(task, False), search_settings(task)
    table = pa.table(
        {
            "key": pa.array(pool.keys),
            "margin": pa.array(margins.astype(np.float32)),
            "weight": pa.array(np.ones(len(pool), dtype=np.int64)),
            "truncated": pa.array(np.zeros(len(pool), dtype=bool)),
            "vector": blocks.vector_array(pool.vectors),
        }
    )
    near = band.holds(table.column("margin").to_numpy()) & ~asked
    called = table.column("margin").to_numpy() >= np.float32(threshold.margin)
    sides = [
        cluster_per_label.drawn(
            [table.filter(pa.array(called == side))],
            settings.sample_rows,
            pool.vectors.shape[1],
            settings.seed,
        )
        for side in (True, False)
    ]
    model = cluster_per_label.fit(sides[0], sides[1], threshold, settings)
    positive, cluster, totals = cluster_per_label.assign_block(table, model, threshold, near)
    overlaps = rank_overlaps(
        *to_stats(model, totals),
        np.asarray(totals.nearer),
        model.neighbors,
        per_positive=task.overlaps.per_positive_cluster,
    )
    table = table.append_column("positive", pa.array(positive))
    table = table.append_column("cluster", pa.array(cluster))
    in_band = table.filter(pa.array(near))
    met = [in_band.filter(pa.array(positive[near] == side)) for side in (True, False)]
    candidates = CANDIDATE_SCHEMA.empty_table()
    if overlaps and met[0].num_rows and met[1].num_rows:
        searched = np.ones((len(model.positive), len(model.negative)), dtype=bool)
        found = find_opposite_pairs.search_part(met[0], met[1], model, overlaps, searched, search)
        nearest = find_opposite_pairs.keep_nearest(found, search.neighbors)
        marked = find_opposite_pairs.mark_mutual(nearest)
        candidates = find_opposite_pairs.pool_of([marked], search.max_candidates)
    return PairPool(
        candidates=candidates,
        ads=in_band,
        sample=table.drop_columns(["truncated"]),
        shown=table.filter(pa.array(asked)).select(["key", "vector"]) if asked.any() else None,
        overlaps=overlaps,
        space=model.space,
        total_weight=len(pool),
        population=len(pool),
    )
