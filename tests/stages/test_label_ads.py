"""The label rule: which threshold decides, and when the prior steps in."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from pipelines.errors import RunFailed
from pipelines.numerics import calibration
from pipelines.stages.label_ads import LabelRule, choose_band, choose_threshold

MARGINS = np.arange(-50, 50, dtype=np.float32)
HISTOGRAM = calibration.margin_histogram(MARGINS)


def test_the_fitted_threshold_comes_first() -> None:
    rule = LabelRule(prior=0.1, probability=0.5, fitted_margin=20.0)
    assert choose_threshold(HISTOGRAM, rule).n_positive == 30
    assert choose_threshold(HISTOGRAM, LabelRule(0.1, probability=0.5)).n_positive == 50
    assert choose_threshold(HISTOGRAM, LabelRule(0.1)).n_positive == 10


def test_a_fitted_threshold_without_positives_gives_way(caplog) -> None:
    with caplog.at_level(logging.WARNING):
        found = choose_threshold(HISTOGRAM, LabelRule(0.1, fitted_margin=60.0))
    assert (found.n_positive, found.source) == (10, "prior")
    assert "the prior decides instead" in caplog.text


def test_one_class_is_refused_with_advice() -> None:
    same = calibration.margin_histogram(np.zeros(9, dtype=np.float32))
    with pytest.raises(RunFailed, match=r"change labeling\.threshold or prior"):
        choose_threshold(same, LabelRule(0.1))


@pytest.mark.parametrize(
    ("share", "least", "inside"), [(0.5, 1, 10), (0.5, 8, 16), (1.0, 1, 100), (0.01, 1, 2)]
)
def test_the_band_is_a_share_of_the_positives(share: float, least: int, inside: int) -> None:
    rule = LabelRule(0.1, band_share=share, band_ads=least)
    band = choose_band(HISTOGRAM, choose_threshold(HISTOGRAM, rule), rule)
    assert band.holds(MARGINS).sum() == inside
