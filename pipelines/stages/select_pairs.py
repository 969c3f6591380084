"""SelectPairs: the pairs worth the experts' time, chosen by a strategy from all candidates."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam import pvalue

from pipelines.console import metrics
from pipelines.contracts import CANDIDATE_SCHEMA, Block
from pipelines.errors import RunFailed
from pipelines.numerics.calibration import Threshold
from pipelines.numerics.overlap import Overlap
from pipelines.numerics.threads import one_blas_thread
from pipelines.stages.cluster_per_label import ClusterModel, ClusterTotals
from pipelines.stages.fill_items import Places
from pipelines.store import blocks
from pipelines.strategies.base import NOTHING_LEFT, Chosen, PairPool, PairStrategy, Plan
from pipelines.strategies.single_ads import fill

STAGE = "SelectPairs"
CHOSEN, PLACES = "chosen", "places"


def places_of(keys: Iterable[str], tables: Sequence[pa.Table]) -> Places:
    """Return where ads stand.

    Args:
        keys: content keys.
        tables: rows with columns ``key``, ``block`` and ``row``; each ad is in one of them at least.
    """
    wanted = pa.array(sorted(keys), pa.string())
    found: dict[int, set[int]] = {}
    for table in tables:
        rows = table.select(["key", "block", "row"]).filter(
            pc.is_in(table.column("key"), value_set=wanted)
        )
        for row in rows.to_pylist():
            found.setdefault(row["block"], set()).add(row["row"])
    return {block: sorted(rows) for block, rows in sorted(found.items())}


@dataclasses.dataclass(eq=False)
class SelectPairs(beam.PTransform):
    """Select review pairs in one worker, and single ads where they are fewer than the budget.

    Input: singletons candidates (``PCollection[Block]``) and of collections of rows the candidates' ads, the
    coverage sample and the shown ads; overlaps, model, totals, threshold and the number of open ads as
    singletons. Output: a dict of singletons ``chosen`` (``PCollection[Chosen]``, ads by key alone) and
    ``places`` (``PCollection[Places]``: where these stand).

    Memory: about ``6 * dim`` bytes a row of the candidates' ads, the sample and the shown ones (that many
    does ``Selection.pool`` bound, ``coverage_sample_rows``, and what experts have labelled), and what the
    strategy takes.

    Args:
        strategy: chooses.
        plan: what it goes by.
    """

    strategy: PairStrategy
    plan: Plan

    def expand(
        self,
        inputs: tuple[
            beam.PCollection[Block],
            beam.PCollection[Block],
            beam.PCollection[Block],
            beam.PCollection[Block],
            beam.PCollection[list[Overlap]],
            beam.PCollection[ClusterModel],
            beam.PCollection[ClusterTotals],
            beam.PCollection[Threshold],
            beam.PCollection[int],
        ],
    ) -> dict[str, beam.PCollection]:
        """Apply the transform."""
        candidates, ads, sample, shown, overlaps, model, totals, threshold, open_ads = inputs
        found = candidates | "Select" >> beam.FlatMap(
            self._select,
            ads=pvalue.AsList(ads),
            sample=pvalue.AsList(sample),
            shown=pvalue.AsList(shown),
            overlaps=pvalue.AsSingleton(overlaps),
            model=pvalue.AsSingleton(model),
            totals=pvalue.AsSingleton(totals),
            threshold=pvalue.AsSingleton(threshold),
            open_ads=pvalue.AsSingleton(open_ads),
        ).with_outputs(PLACES, main=CHOSEN)
        return {CHOSEN: found[CHOSEN], PLACES: found[PLACES]}

    def _select(
        self,
        candidates: Block,
        ads: list[Block],
        sample: list[Block],
        shown: list[Block],
        overlaps: list[Overlap],
        model: ClusterModel,
        totals: ClusterTotals,
        threshold: Threshold,
        open_ads: int,
    ) -> Iterator[Chosen | pvalue.TaggedOutput]:
        # The products are small: threads gain nothing, and on a busy machine wait for one another.
        with metrics.timed(STAGE), one_blas_thread():
            sampled = blocks.sort_by_key(blocks.concat(sample))
            found = blocks.sort_by_key(blocks.concat(ads)) if ads else sampled.slice(0, 0)
            none = CANDIDATE_SCHEMA.empty_table()
            pool = PairPool(
                candidates=blocks.from_block(candidates) if candidates.rows else none,
                ads=found,
                sample=sampled,
                shown=blocks.sort_by_key(blocks.concat(shown)) if shown else None,
                overlaps=overlaps,
                space=model.space,
                total_weight=int(totals.mass.sum()),
                population=threshold.n_positive + threshold.n_negative,
            )
            context = self.plan.at(threshold, open_ads)
            chosen = fill(self.strategy.choose(pool, context), pool, context)
            if not chosen.items:
                raise RunFailed(NOTHING_LEFT)
            metrics.count(STAGE, "items", len(chosen.items))
            yield chosen
            keys = {ad.key for item in chosen.items for ad in item.ads}
            yield pvalue.TaggedOutput(PLACES, places_of(keys, (found, sampled)))
