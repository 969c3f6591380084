"""LabelAds: the label rule, a threshold on the model's margins, and the band around it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam import pvalue

from pipelines.console import metrics
from pipelines.contracts import BlockFile
from pipelines.errors import RunFailed
from pipelines.numerics import calibration
from pipelines.store import blocks

STAGE = "LabelAds"
THRESHOLD, BAND, OPEN = "threshold", "band", "open"
_ALL, _OPEN = 0, 1

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LabelRule:
    """How ads are labelled, and how near to the threshold pairs are looked for.

    Attributes:
        prior: expected share of positives among unique ads, in (0, 1).
        probability: label positive from here on, instead of going by the prior; or None.
        fitted: threshold fitted on experts' labels, before the other two; or None.
        band_share: share of the predicted positives, those nearest to the threshold, that pairs
            are made of, in (0, 1]; as many of the nearest negatives.
        band_ads: ads of each label in the band at least.
    """

    prior: float
    probability: float | None = None
    fitted: calibration.Fitted | None = None
    band_share: float = 1.0
    band_ads: int = 1


def choose_threshold(histogram: np.ndarray, rule: LabelRule) -> calibration.Threshold:
    """Return the fitted threshold, else the task's, else the prior's quantile.

    While labels are few, a fitted threshold keeps to the shares of positives that the prior allows.
    One that rests on many and leaves a class empty gives way to the prior: it was fitted on ads near
    the boundary, and says nothing about a corpus on one side of it. A trained model that gives all ads
    the same score decides nothing, and the round goes on without it: with the next labels it is
    trained anew.

    Raises:
        RunFailed: one class would be empty; says so, and what to change.
    """
    try:
        if rule.fitted is not None:
            try:
                return calibration.bounded_threshold(histogram, rule.fitted, rule.prior)
            except calibration.OneClassError as error:
                if np.count_nonzero(histogram) == 1 and histogram.sum() > 1:
                    _log.warning(
                        "the trained model gives all ads the same score: none is preferred"
                    )
                    return calibration.no_threshold(histogram)
                _log.warning("%s: the prior decides instead", error)
                return calibration.prior_threshold(histogram, rule.prior)
        if rule.probability is not None:
            return calibration.fixed_threshold(histogram, rule.probability)
        return calibration.prior_threshold(histogram, rule.prior)
    except calibration.OneClassError as error:
        raise RunFailed(
            f"{error}. Pairs need ads of both labels: change labeling.threshold or prior in the "
            "task file, compare other prompts with `scout validate`, or give a larger corpus"
        ) from error


def choose_band(
    histogram: np.ndarray, threshold: calibration.Threshold, rule: LabelRule
) -> calibration.Band:
    """Return the margins between which pairs are looked for.

    Args:
        histogram: of the ads that experts have not seen: the others take no place in the band.
        threshold: the label rule.
        rule: see :class:`LabelRule`.
    """
    wanted = math.ceil(rule.band_share * threshold.n_positive)
    if rule.band_share >= 1.0:
        wanted = threshold.n_positive + threshold.n_negative
    return calibration.boundary_band(histogram, threshold, max(wanted, rule.band_ads))


class LabelAds(beam.PTransform):
    """Find the label rule: ``PCollection[BlockFile]`` to a dict of three singletons.

    ``threshold`` (:class:`calibration.Threshold`), ``band`` (:class:`calibration.Band`) and ``open``
    (int: ads that experts have not seen). Exact:
    margins lie on a grid, so their histogram (262 kB) holds the whole distribution.

    Args:
        root: the workspace.
        rule: see :class:`LabelRule`.
        shown_keys: content keys of ads that experts have seen in earlier rounds.
    """

    def __init__(
        self, root: str, rule: LabelRule, shown_keys: frozenset[str] = frozenset()
    ) -> None:
        super().__init__()
        self._root, self._rule, self._shown = root, rule, shown_keys

    def expand(self, files: beam.PCollection[BlockFile]) -> dict[str, beam.PCollection]:
        """Apply the transform."""
        rule = self._rule
        histograms = (
            files
            | "ReadMargins" >> beam.ParDo(_Histograms(self._root, self._shown))
            | "SumHistograms" >> beam.CombineGlobally(SumArrays((2, calibration.N_BINS)))
        )
        threshold = histograms | "ChooseThreshold" >> beam.Map(
            lambda found: choose_threshold(found[_ALL], rule)
        )
        band = histograms | "ChooseBand" >> beam.Map(
            lambda found, chosen: choose_band(found[_OPEN], chosen, rule),
            pvalue.AsSingleton(threshold),
        )
        open_ads = histograms | "CountOpen" >> beam.Map(lambda found: int(found[_OPEN].sum()))
        return {THRESHOLD: threshold, BAND: band, OPEN: open_ads}


class _Histograms(beam.DoFn):
    """Yield a block's histograms, of all its ads and of those that experts have not seen."""

    def __init__(self, root: str, shown: frozenset[str]) -> None:
        self._root, self._shown = root, shown

    def process(self, file: BlockFile) -> Iterator[np.ndarray]:
        with metrics.timed(STAGE):
            columns = ["key", "margin"] if self._shown else ["margin"]
            table = blocks.read_columns(self._root, file, columns)
            margins = table.column("margin").to_numpy()
            metrics.count(STAGE, "ads", len(margins))
            found = np.zeros((2, calibration.N_BINS), dtype=np.int64)
            found[_ALL] = found[_OPEN] = calibration.margin_histogram(margins)
            if self._shown:
                keys = table.column("key").to_pylist()
                seen = np.fromiter((key in self._shown for key in keys), bool, len(keys))
                found[_OPEN] -= calibration.margin_histogram(margins[seen])
            yield found


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
