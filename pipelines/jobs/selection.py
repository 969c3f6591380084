"""Composition: from scored blocks to what experts are asked about, by any strategy."""

from __future__ import annotations

from dataclasses import dataclass

import apache_beam as beam

from pipelines.config import Task
from pipelines.contracts import ScoredPart
from pipelines.numerics.calibration import Threshold
from pipelines.stages import cluster_per_label, select_pairs
from pipelines.stages.choose_items import ChooseItems
from pipelines.stages.cluster_per_label import ClusterPerLabel, ClusterSettings
from pipelines.stages.fill_items import FillItems
from pipelines.stages.find_opposite_pairs import ADS, CANDIDATES, FindOppositePairs, SearchSettings
from pipelines.stages.find_overlaps import FindOverlaps
from pipelines.stages.keep_pool import KeepPool
from pipelines.stages.label_ads import BAND, OPEN, THRESHOLD
from pipelines.stages.make_context import MakeContext
from pipelines.stages.select_pairs import SelectPairs
from pipelines.stages.write_review import ClusterFacts
from pipelines.store.shown import Shown
from pipelines.strategies.base import Chosen, PairStrategy, Plan, RowStrategy, Strategy
from pipelines.strategies.exploration import Exploration


@dataclass(frozen=True, slots=True)
class Corpus:
    """A scored corpus as strategies choose from it.

    Attributes:
        root: the workspace.
        parts: its scored ads.
        labelled: what ``LabelAds`` found.
        standardize: whether vectors are standardised per dimension before they are compared.
        shown: ads that experts have seen.
        threads: blocks that a process works on at once.
    """

    root: str
    parts: beam.PCollection[ScoredPart]
    labelled: dict[str, beam.PCollection]
    standardize: bool
    shown: Shown
    threads: int = 1

    @property
    def threshold(self) -> beam.PCollection[Threshold]:
        """The label rule, a singleton."""
        return self.labelled[THRESHOLD]


def choose(
    corpus: Corpus, strategy: Strategy, plan: Plan, task: Task
) -> tuple[beam.PCollection[Chosen], ClusterFacts]:
    """Return the singleton choice of a strategy, and its clusters where it makes any."""
    if isinstance(strategy, PairStrategy):
        return _choose_pairs(corpus, strategy, plan, task)
    assert isinstance(strategy, RowStrategy)
    return _choose_rows(corpus, strategy, plan), ()


def cluster_settings(task: Task, standardize: bool) -> ClusterSettings:
    """Return what a task says of clusters, and whether dimensions are standardised first."""
    return ClusterSettings(
        positive_clusters=task.clustering.positive_clusters,
        negative_clusters=task.clustering.negative_clusters,
        sample_rows=task.clustering.sample_rows,
        # Single ads fill what pairs leave of the budget, and a pair takes two.
        coverage_rows=max(task.selection.coverage_sample_rows, 3 * task.selection.budget),
        neighbors=task.search.neighbors,
        standardize=standardize,
        seed=task.seed,
    )


def search_settings(task: Task) -> SearchSettings:
    """Return what a task says of the search for pairs."""
    return SearchSettings(
        index=task.search.index,
        neighbors=task.search.neighbors,
        exhaustive_rows=task.search.exhaustive_rows,
        max_candidates=task.selection.pool,
        seed=task.seed,
    )


def _choose_rows(corpus: Corpus, strategy: RowStrategy, plan: Plan) -> beam.PCollection[Chosen]:
    context = (
        corpus.parts,
        corpus.threshold,
        corpus.labelled[OPEN],
    ) | "MakeContext" >> MakeContext(corpus.root, strategy, plan, corpus.standardize)

    def pool(of: RowStrategy) -> KeepPool:
        return KeepPool(corpus.root, of, plan.selection, corpus.shown)

    chosen_from = (corpus.parts, context) | "KeepPool" >> pool(strategy)
    explored: tuple[()] | tuple[beam.PCollection] = ()
    if plan.selection.exploration_share and not strategy.draws:
        explored = ((corpus.parts, context) | "KeepExploration" >> pool(Exploration()),)
    return (chosen_from, context, *explored) | "ChooseItems" >> ChooseItems(strategy)


def _choose_pairs(
    corpus: Corpus, strategy: PairStrategy, plan: Plan, task: Task
) -> tuple[beam.PCollection[Chosen], ClusterFacts]:
    threshold = corpus.threshold
    clusters = (
        corpus.parts,
        threshold,
        corpus.labelled[BAND],
    ) | "ClusterPerLabel" >> ClusterPerLabel(
        corpus.root,
        cluster_settings(task, corpus.standardize),
        corpus.shown,
        corpus.threads,
    )
    model, totals = clusters[cluster_per_label.MODEL], clusters[cluster_per_label.STATS]
    overlaps = (model, totals) | "FindOverlaps" >> FindOverlaps(task.overlaps.per_positive_cluster)
    found = (
        clusters[cluster_per_label.BAND],
        model,
        totals,
        overlaps,
    ) | "FindOppositePairs" >> FindOppositePairs(search_settings(task), corpus.threads)
    selected = (
        found[CANDIDATES],
        found[ADS],
        clusters[cluster_per_label.SAMPLE],
        clusters[cluster_per_label.SHOWN],
        overlaps,
        model,
        totals,
        threshold,
        corpus.labelled[OPEN],
    ) | "SelectPairs" >> SelectPairs(strategy, plan)
    chosen = (
        corpus.parts,
        selected[select_pairs.CHOSEN],
        selected[select_pairs.PLACES],
    ) | "FillItems" >> FillItems(corpus.root)
    return chosen, (overlaps, model, totals)
