"""MakeContext: what scoring and choosing may depend on, gathered once a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import apache_beam as beam
import numpy as np
from apache_beam import pvalue

from pipelines.contracts import Block, ScoredPart
from pipelines.numerics.calibration import Threshold
from pipelines.stages.fit_space import FitSpace
from pipelines.stages.gather_rows import GatherRows
from pipelines.stages.keep_pool import columns_of, rows_of
from pipelines.store import blocks
from pipelines.strategies.base import UNIT, Context, Labelled, Need, Plan, RowStrategy


def labelled_of(found: Sequence[Block], plan: Plan) -> Labelled | None:
    """Return the labelled ads that are in the corpus, sorted by key; None where there are none."""
    if not found:
        return None
    rows = rows_of(blocks.sort_by_key(blocks.concat(found)))
    return Labelled(rows, np.array([plan.labels[key] for key in rows.keys], dtype=np.int8))


@dataclasses.dataclass(eq=False)
class MakeContext(beam.PTransform):
    """Make a strategy's context, a singleton ``PCollection[Context]``.

    Input: ``PCollection[ScoredPart]``, singletons threshold and number of open ads. Labelled ads and the
    space of vectors are looked for where the strategy needs them.

    Memory: about 1 KB and ``2 * dim`` bytes a labelled ad, in every worker that scores or chooses.

    Args:
        root: the workspace.
        strategy: whose needs count.
        plan: what is known before.
        standardize: whether vectors are standardised per dimension.
    """

    root: str
    strategy: RowStrategy
    plan: Plan
    standardize: bool = False

    def expand(
        self,
        inputs: tuple[
            beam.PCollection[ScoredPart], beam.PCollection[Threshold], beam.PCollection[int]
        ],
    ) -> beam.PCollection[Context]:
        """Apply the transform."""
        parts, threshold, open_ads = inputs
        labelled = parts | "GatherLabelled" >> GatherRows(
            self.root, self.plan.labels, columns_of(self.strategy)
        )
        if self.standardize and Need.VECTORS in self.strategy.needs:
            space = (parts, threshold) | "FitSpace" >> FitSpace(self.root, self.plan.seed)
        else:
            space = threshold | "UnitSpace" >> beam.Map(lambda _: UNIT)
        return threshold | "Make" >> beam.Map(
            lambda at, unseen, found, fitted: self.plan.at(
                at, unseen, labelled_of(found, self.plan), fitted
            ),
            pvalue.AsSingleton(open_ads),
            pvalue.AsList(labelled),
            pvalue.AsSingleton(space),
        )
