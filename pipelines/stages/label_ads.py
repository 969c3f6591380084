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
from pipelines.contracts import BlockFile
from pipelines.errors import RunFailed
from pipelines.numerics import calibration
from pipelines.stages.gather_rows import is_among
from pipelines.store import blocks

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
        fitted_margin: threshold fitted on experts' labels, before the other two; or None.
        band_share: share of the predicted positives, those nearest to the threshold, that pairs
            are made of, in (0, 1]; as many of the nearest negatives.
        band_ads: ads of each label in the band at least.
    """

    prior: float
    probability: float | None = None
    fitted_margin: float | None = None
    band_share: float = 1.0
    band_ads: int = 1


def choose_threshold(histogram: np.ndarray, rule: LabelRule) -> calibration.Threshold:
    """Return the fitted threshold, else the task's, else the prior's quantile.

    A fitted threshold that leaves a class empty gives way to the prior: it was fitted on a few
    hundred ads near the boundary, and says nothing about a corpus on one side of it.

    Raises:
        RunFailed: one class would be empty; says so, and what to change.
    """
    try:
        if rule.fitted_margin is not None:
            try:
                return calibration.fitted_threshold(histogram, rule.fitted_margin)
            except calibration.OneClassError as error:
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


@dataclasses.dataclass(eq=False)
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

    root: str
    rule: LabelRule
    shown_keys: frozenset[str] = frozenset()

    def expand(self, files: beam.PCollection[BlockFile]) -> dict[str, beam.PCollection]:
        """Apply the transform."""
        rule = self.rule
        histograms = (
            files
            | "ReadMargins" >> beam.Map(self._histograms)
            | "SumHistograms" >> beam.CombineGlobally(_summed)
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

    def _histograms(self, file: BlockFile) -> np.ndarray:
        """Return int64 (2, bins): histograms of all ads of a block, and of those not yet seen."""
        with metrics.timed(STAGE):
            columns = ["key", "margin"] if self.shown_keys else ["margin"]
            table = blocks.read_columns(self.root, file, columns)
            margins = table.column("margin").to_numpy()
            metrics.count(STAGE, "ads", len(margins))
            found = np.zeros((2, calibration.N_BINS), dtype=np.int64)
            found[_ALL] = found[_OPEN] = calibration.margin_histogram(margins)
            if self.shown_keys:
                seen = is_among(table, self.shown_keys)
                found[_OPEN] -= calibration.margin_histogram(margins[seen])
            return found


def _summed(histograms: Iterable[np.ndarray]) -> np.ndarray:
    # Integers: exact, so the order does not matter.
    return sum(histograms, np.zeros((2, calibration.N_BINS), dtype=np.int64))
