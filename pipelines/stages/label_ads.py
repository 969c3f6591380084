"""LabelAds: the label rule, a threshold on LLM-0's margins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np

from pipelines import metrics
from pipelines.contracts import BlockFile
from pipelines.errors import RunFailed
from pipelines.numerics import calibration
from pipelines.stages.score_ads import read_block

STAGE = "LabelAds"


def choose_threshold(
    histogram: np.ndarray, prior: float, fixed: float | None
) -> calibration.Threshold:
    """Return the threshold: the fixed probability if given, else the prior's quantile.

    Raises:
        RunFailed: one class would be empty; says so, and what to change.
    """
    try:
        if fixed is not None:
            return calibration.fixed_threshold(histogram, fixed)
        return calibration.prior_threshold(histogram, prior)
    except calibration.OneClassError as error:
        raise RunFailed(
            f"{error}. Pairs need ads of both labels: change labeling.threshold or prior in the "
            "task file, compare other prompts with `scout validate`, or give a larger corpus"
        ) from error


class LabelAds(beam.PTransform):
    """Find the threshold: ``PCollection[BlockFile]`` to a singleton ``Threshold``.

    Exact: margins lie on a grid, so their histogram (262 kB) holds the whole distribution.

    Args:
        root: the workspace.
        prior: expected share of positives among unique ads.
        fixed: a probability to use instead, or None.
    """

    def __init__(self, root: str, prior: float, fixed: float | None) -> None:
        super().__init__()
        self._root, self._prior, self._fixed = root, prior, fixed

    def expand(self, files: beam.PCollection[BlockFile]) -> beam.PCollection[calibration.Threshold]:
        """Apply the transform."""
        prior, fixed = self._prior, self._fixed
        return (
            files
            | "ReadMargins" >> beam.ParDo(_Histogram(self._root))
            | "SumHistograms" >> beam.CombineGlobally(SumArrays(calibration.N_BINS))
            | "ChooseThreshold"
            >> beam.Map(lambda histogram: choose_threshold(histogram, prior, fixed))
        )


class _Histogram(beam.DoFn):
    def __init__(self, root: str) -> None:
        self._root = root

    def process(self, file: BlockFile) -> Iterator[np.ndarray]:
        with metrics.timed(STAGE):
            margins = read_block(self._root, file, ["margin"]).column("margin").to_numpy()
            metrics.count(STAGE, "ads", len(margins))
            yield calibration.margin_histogram(margins)


class SumArrays(beam.CombineFn):
    """Sum int64 arrays of one shape: exact, so the order does not matter.

    Args:
        shape: of the arrays.
    """

    def __init__(self, shape: int | tuple[int, ...]) -> None:
        self._shape = shape

    def create_accumulator(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """Return zeros."""
        return np.zeros(self._shape, dtype=np.int64)

    def add_input(
        self, total: np.ndarray, array: np.ndarray, *args: Any, **kwargs: Any
    ) -> np.ndarray:
        """Add one array."""
        return total + array

    def merge_accumulators(
        self, totals: Iterable[np.ndarray], *args: Any, **kwargs: Any
    ) -> np.ndarray:
        """Add up partial sums."""
        return sum(totals, np.zeros(self._shape, dtype=np.int64))

    def extract_output(self, total: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
        """Return the sum."""
        return total
