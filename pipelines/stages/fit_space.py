"""FitSpace: the space in which a strategy of single ads compares vectors, from a sample of the corpus."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import apache_beam as beam
from apache_beam import pvalue

from pipelines.console import metrics
from pipelines.contracts import Block, ScoredPart
from pipelines.numerics import hashing, kmeans
from pipelines.numerics.calibration import Threshold
from pipelines.stages.cluster_per_label import drawn
from pipelines.store import blocks, scores

STAGE = "FitSpace"
# A dimension's mean and deviation are known to a few percent from so many.
SAMPLE_ROWS = 2000


@dataclasses.dataclass(eq=False)
class FitSpace(beam.PTransform):
    """Fit mean and deviation of each dimension: scored parts and a threshold to a singleton space.

    Input: ``PCollection[ScoredPart]`` and a singleton ``PCollection[Threshold]``, by which the corpus is
    counted. Output: a singleton ``PCollection[VectorSpace]``. The sample is an arc of the content keys, so
    blocks and shards change no bit.

    Memory: ``2 * dim * SAMPLE_ROWS`` bytes, a few times. Shuffled are the sampled vectors.

    Args:
        root: the workspace.
        seed: of the sample.
    """

    root: str
    seed: int

    def expand(
        self, inputs: tuple[beam.PCollection[ScoredPart], beam.PCollection[Threshold]]
    ) -> beam.PCollection[kmeans.VectorSpace]:
        """Apply the transform."""
        parts, threshold = inputs
        return (
            parts
            | "SampleForSpace" >> beam.FlatMap(self._sample, pvalue.AsSingleton(threshold))
            | "ForOneWorker" >> beam.Map(lambda block: (0, block))
            | "GatherForSpace" >> beam.GroupByKey()
            | "FitMoments" >> beam.Map(self._fit)
        )

    def _sample(self, part: ScoredPart, threshold: Threshold) -> Iterator[Block]:
        with metrics.timed(STAGE), scores.OpenPart(self.root, part) as block:
            keys = block.columns(["key"]).column("key").to_pylist()
            population = threshold.n_positive + threshold.n_negative
            limit = hashing.sample_limit(SAMPLE_ROWS, population)
            sampled = hashing.below(hashing.turned(keys, self.seed), limit)
            if sampled.any():
                yield blocks.to_block(block.rows(sampled, ["key", "vector"]))

    def _fit(self, item: tuple[int, Iterable[Block]]) -> kmeans.VectorSpace:
        tables = [blocks.from_block(block) for block in item[1]]
        dim = blocks.vectors(tables[0]).shape[1]
        sample = drawn(tables, SAMPLE_ROWS, dim, self.seed)
        return kmeans.fit_space([sample.vectors], [len(sample.keys)], standardize=True)
