"""SelectPairs: the pairs worth the experts' time, chosen by a strategy from all candidates."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import apache_beam as beam
from apache_beam import pvalue

from pipelines.console import metrics
from pipelines.contracts import Block
from pipelines.errors import RunFailed
from pipelines.numerics.calibration import Threshold
from pipelines.numerics.overlap import Overlap
from pipelines.stages.cluster_per_label import ClusterModel, ClusterTotals
from pipelines.store import blocks
from pipelines.strategies.base import Chosen, PairPool, PairStrategy, Plan

STAGE = "SelectPairs"


@dataclasses.dataclass(eq=False)
class SelectPairs(beam.PTransform):
    """Select review pairs in one worker.

    Input: candidates, coverage sample and shown rows as collections; overlaps, model, totals, threshold
    and the number of open ads as singletons. Output: a singleton ``PCollection[Chosen]``.

    Args:
        strategy: chooses.
        plan: what it goes by.
    """

    strategy: PairStrategy
    plan: Plan

    def expand(
        self,
        inputs: tuple[
            beam.PCollection[tuple[tuple[int, int], Block]],
            beam.PCollection[Block],
            beam.PCollection[Block],
            beam.PCollection[list[Overlap]],
            beam.PCollection[ClusterModel],
            beam.PCollection[ClusterTotals],
            beam.PCollection[Threshold],
            beam.PCollection[int],
        ],
    ) -> beam.PCollection[Chosen]:
        """Apply the transform."""
        candidates, sample, shown, overlaps, model, totals, threshold, open_ads = inputs
        return overlaps | "Select" >> beam.FlatMap(
            self._select,
            candidates=pvalue.AsList(candidates),
            sample=pvalue.AsList(sample),
            shown=pvalue.AsList(shown),
            model=pvalue.AsSingleton(model),
            totals=pvalue.AsSingleton(totals),
            threshold=pvalue.AsSingleton(threshold),
            open_ads=pvalue.AsSingleton(open_ads),
        )

    def _select(
        self,
        overlaps: list[Overlap],
        candidates: list[tuple[tuple[int, int], Block]],
        sample: list[Block],
        shown: list[Block],
        model: ClusterModel,
        totals: ClusterTotals,
        threshold: Threshold,
        open_ads: int,
    ) -> Iterator[Chosen]:
        with metrics.timed(STAGE):
            pool = PairPool(
                candidates=[(place, blocks.from_block(block)) for place, block in candidates],
                sample=blocks.sort_by_key(blocks.concat(sample)),
                shown=blocks.sort_by_key(blocks.concat(shown)) if shown else None,
                overlaps=overlaps,
                space=model.space,
                total_weight=int(totals.mass.sum()),
                population=threshold.n_positive + threshold.n_negative,
            )
            chosen = self.strategy.choose(pool, self.plan.at(threshold, open_ads))
            if not chosen.items:
                raise RunFailed(
                    "no pair is left to show: experts saw every candidate in earlier rounds; "
                    "give a newer corpus, or raise overlaps.per_positive_cluster or "
                    "search.neighbors in the task file"
                )
            metrics.count(STAGE, "items", len(chosen.items))
            yield chosen
