"""LabelAds: the label rule, a threshold on the model's margins, and the band around it."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterable

import apache_beam as beam
import numpy as np
from apache_beam import pvalue

from pipelines.console import metrics
from pipelines.contracts import ScoredPart
from pipelines.errors import RunFailed
from pipelines.numerics import calibration
from pipelines.store import scores
from pipelines.store.shown import NOTHING, Shown

STAGE = "LabelAds"
THRESHOLD, BAND, OPEN = "threshold", "band", "open"
_ALL, _OPEN = 0, 1

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class LabelRule:
    """How ads are labelled, and how near to the threshold pairs are looked for.

    Attributes:
        prior: expected share of positives among unique ads, in (0, 1).
        probability: label positive from here on, instead of going by the prior; or None.
        fitted: threshold fitted on experts' labels, before the other two; or None.
        band_share: share of the predicted positives, those nearest to the threshold, that pairs
            are made of, in (0, 1]; as many of the nearest negatives.
        band_ads: ads of each label in the band at least.
        most_band_ads: and at most, unless that is fewer, or ``band_share`` is 1.
    """

    prior: float
    probability: float | None = None
    fitted: calibration.Fitted | None = None
    band_share: float = 1.0
    band_ads: int = 1
    most_band_ads: int = 1 << 62


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
    wanted = min(math.ceil(rule.band_share * threshold.n_positive), rule.most_band_ads)
    if rule.band_share >= 1.0:
        wanted = threshold.n_positive + threshold.n_negative
    return calibration.boundary_band(histogram, threshold, max(wanted, rule.band_ads))


@dataclasses.dataclass(eq=False)
class LabelAds(beam.PTransform):
    """Find the label rule: ``PCollection[ScoredPart]`` to a dict of three singletons.

    ``threshold`` (:class:`calibration.Threshold`), ``band`` (:class:`calibration.Band`) and ``open``
    (int: ads that experts have not seen). Exact:
    margins lie on a grid, so their histogram (262 kB) holds the whole distribution; of a part only the
    bins travel that hold ads.

    Args:
        root: the workspace.
        rule: see :class:`LabelRule`.
        shown: ads that experts have seen in earlier rounds.
    """

    root: str
    rule: LabelRule
    shown: Shown = NOTHING

    def expand(self, parts: beam.PCollection[ScoredPart]) -> dict[str, beam.PCollection]:
        """Apply the transform."""
        rule = self.rule
        histograms = parts | "SumMargins" >> SumMargins(self.root, self.shown)
        threshold = histograms | "ChooseThreshold" >> beam.Map(
            lambda found: choose_threshold(found[_ALL], rule)
        )
        band = histograms | "ChooseBand" >> beam.Map(
            lambda found, chosen: choose_band(found[_OPEN], chosen, rule),
            pvalue.AsSingleton(threshold),
        )
        open_ads = histograms | "CountOpen" >> beam.Map(lambda found: int(found[_OPEN].sum()))
        return {THRESHOLD: threshold, BAND: band, OPEN: open_ads}


@dataclasses.dataclass(eq=False)
class SumMargins(beam.PTransform):
    """Count ads by margin: ``PCollection[ScoredPart]`` to a singleton int64 (2, bins).

    All of them, and those that experts have not seen.

    Args:
        root: the workspace.
        shown: ads that experts have seen.
    """

    root: str
    shown: Shown = NOTHING

    def expand(self, parts: beam.PCollection[ScoredPart]) -> beam.PCollection[np.ndarray]:
        """Apply the transform."""
        return (
            parts
            | "ReadMargins" >> beam.Map(self._counts)
            | "SumHistograms" >> beam.CombineGlobally(_Histograms())
        )

    def _counts(self, part: ScoredPart) -> _Counts:
        """Return the bins that hold ads of a part: their numbers, all ads, and those not yet seen."""
        with metrics.timed(STAGE):
            columns = ["key", "margin"] if self.shown else ["margin"]
            table = scores.read_columns(self.root, part, columns)
            bins = calibration.bins_of(table.column("margin").to_numpy())
            metrics.count(STAGE, "ads", len(bins))
            used, places = np.unique(bins, return_inverse=True)
            every = np.bincount(places, minlength=len(used))
            unseen = every
            if self.shown:
                left = places[~self.shown.among(table.column("key"))]
                unseen = np.bincount(left, minlength=len(used))
            return used, every, unseen


# Bins, and the ads in each: all, and those that experts have not seen.
_Counts = tuple[np.ndarray, np.ndarray, np.ndarray]


class _Histograms(beam.CombineFn):
    """Adds counts up to int64 (2, bins). Integers: exact, so the order does not matter."""

    def create_accumulator(self) -> np.ndarray:
        """Return no ads."""
        return np.zeros((2, calibration.N_BINS), dtype=np.int64)

    def add_input(self, total: np.ndarray, counts: _Counts) -> np.ndarray:
        """Add a part's ads."""
        bins, every, unseen = counts
        total[_ALL, bins] += every
        total[_OPEN, bins] += unseen
        return total

    def merge_accumulators(self, totals: Iterable[np.ndarray]) -> np.ndarray:
        """Add up several workers' ads."""
        return sum(totals, self.create_accumulator())

    def extract_output(self, total: np.ndarray) -> np.ndarray:
        """Return the histograms."""
        return total
