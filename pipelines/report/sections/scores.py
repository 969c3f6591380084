"""Scores and threshold, and how near to it the round's items lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.contracts import ReviewItem
from pipelines.numerics import calibration
from pipelines.report.data import LABELS, Evidence, Sample
from pipelines.report.html import Section, section
from pipelines.report.pictures.scores import score_histogram
from pipelines.report.sections.maps import drawn_names


@dataclass(frozen=True, slots=True)
class Nearness:
    """How near to the threshold the chosen ads of one label lie.

    Attributes:
        label: ``positive`` or ``negative``.
        lowest, highest: their scores at both ends, as probabilities.
        within: ads of that label, chosen or not, that are as near.
        called: all ads of that label.
    """

    label: str
    lowest: float
    highest: float
    within: int
    called: int


def scores(found: Evidence) -> Section:
    """Return the histogram of all scores."""
    sample = found.sample
    if sample is None:
        return section("scores", found=found)
    png = score_histogram(sample.histogram, sample.threshold, drawn_names(found))
    # Those that were drawn at random lie anywhere.
    chosen = [item for item, drawn in zip(found.items, found.explored, strict=True) if not drawn]
    nearness = [near for label in LABELS if (near := _nearness(sample, chosen, label))]
    return section("scores", {"scores": png}, found=found, chosen=len(chosen), nearness=nearness)


def _nearness(sample: Sample, chosen: list[ReviewItem], label: str) -> Nearness | None:
    ends = sorted(
        (ad.margin, ad.probability) for item in chosen for ad in item.ads if ad.label == label
    )
    if not ends:
        return None
    margins = (np.arange(calibration.N_BINS) - calibration.N_BINS // 2) * calibration.MARGIN_STEP
    if label == "positive":
        called, near = sample.positives, (margins >= sample.threshold) & (margins <= ends[-1][0])
    else:
        called = sample.ads - sample.positives
        near = (margins < sample.threshold) & (margins >= ends[0][0])
    within = int(sample.histogram[near].sum())
    return Nearness(label, ends[0][1], ends[-1][1], within, called)
