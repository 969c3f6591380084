"""The label rule: which threshold decides, and when the prior steps in."""

from __future__ import annotations

import logging
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline

from pipelines.errors import RunFailed
from pipelines.numerics import calibration
from pipelines.stages.label_ads import (
    BAND,
    OPEN,
    THRESHOLD,
    LabelAds,
    LabelRule,
    choose_band,
    choose_threshold,
)
from pipelines.store.shown import write
from tests.helpers import write_scored_blocks
from tests.stages.test_find_opposite_pairs import scored_rows

MARGINS = np.arange(-50, 50, dtype=np.float32)
HISTOGRAM = calibration.margin_histogram(MARGINS)


def fitted(margin: float, labels: int = 100) -> calibration.Fitted:
    return calibration.Fitted(margin, margin - 5.0, margin + 5.0, labels)


def test_the_fitted_threshold_comes_first() -> None:
    rule = LabelRule(prior=0.1, probability=0.5, fitted=fitted(20.0))
    assert choose_threshold(HISTOGRAM, rule).n_positive == 30
    assert choose_threshold(HISTOGRAM, LabelRule(0.1, probability=0.5)).n_positive == 50
    assert choose_threshold(HISTOGRAM, LabelRule(0.1)).n_positive == 10


def test_a_fitted_threshold_without_positives_gives_way(caplog) -> None:
    with caplog.at_level(logging.WARNING):
        found = choose_threshold(HISTOGRAM, LabelRule(0.1, fitted=fitted(60.0)))
    assert (found.n_positive, found.source) == (10, "prior")
    assert "the prior decides instead" in caplog.text


def test_few_labels_do_not_move_the_threshold_beyond_what_the_prior_allows() -> None:
    # Two labels of the rarer class and a prior of 10%: 3.9% to 23.2% of the hundred ads.
    few = LabelRule(0.1, fitted=fitted(-40.0, labels=2))
    found = choose_threshold(HISTOGRAM, few)
    assert (found.n_positive, found.source) == (23, "bounded")
    assert found.bound is not None and found.bound.binds
    assert (found.bound.fitted_share, found.bound.labels) == (0.9, 2)
    assert choose_threshold(HISTOGRAM, LabelRule(0.1, fitted=fitted(60.0, 2))).n_positive == 4
    inside = choose_threshold(HISTOGRAM, LabelRule(0.1, fitted=fitted(35.0, 2)))
    assert (inside.n_positive, inside.source) == (15, "fitted")
    assert inside.bound is not None and not inside.bound.binds
    enough = choose_threshold(HISTOGRAM, LabelRule(0.1, fitted=fitted(-40.0, labels=40)))
    assert (enough.n_positive, enough.source, enough.bound) == (90, "fitted", None)


def test_a_trained_model_that_tells_no_ads_apart_does_not_end_the_loop(caplog) -> None:
    same = calibration.margin_histogram(np.full(9, 2.0, dtype=np.float32))
    for labels in (2, 200):
        with caplog.at_level(logging.WARNING):
            found = choose_threshold(same, LabelRule(0.1, fitted=fitted(2.0, labels)))
        assert (found.n_positive, found.n_negative, found.source) == (0, 9, "none")
    assert "gives all ads the same score" in caplog.text
    alone = calibration.margin_histogram(np.zeros(1, dtype=np.float32))
    with pytest.raises(RunFailed, match="at least 2 scored ads"):
        choose_threshold(alone, LabelRule(0.1, fitted=fitted(2.0, 2)))


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


def test_the_band_is_bounded_unless_it_is_everything() -> None:
    def inside(**settings: float) -> int:
        rule = LabelRule(0.1, **settings)  # type: ignore[arg-type]
        threshold = choose_threshold(HISTOGRAM, rule)
        return int(choose_band(HISTOGRAM, threshold, rule).holds(MARGINS).sum())

    free = inside(band_share=0.9)
    assert inside(band_share=0.9, most_band_ads=free) == free
    assert inside(band_share=0.9, most_band_ads=2) < free
    # What the budget needs counts more, and so does whoever asks for all.
    assert inside(band_share=0.9, most_band_ads=2, band_ads=10) == inside(
        band_share=0.1, band_ads=10
    )
    assert inside(band_share=1.0, most_band_ads=2) == len(MARGINS)


def test_what_experts_have_seen_counts_for_the_threshold_and_not_for_the_band(
    tmp_path: Path,
) -> None:
    # Three blocks; everything just below the threshold was shown, so the band reaches further down.
    margins = np.arange(-30, 30, dtype=np.float32)
    whole = scored_rows(margins)
    shown = write(str(tmp_path), whole.column("key").to_pylist()[18:24])
    files = write_scored_blocks(tmp_path, [whole.slice(n, 20) for n in (0, 20, 40)])
    rule = LabelRule(0.6, band_share=0.1, band_ads=4)
    with TestPipeline() as pipeline:
        found = pipeline | "Files" >> beam.Create(files) | LabelAds(str(tmp_path), rule, shown)
        _ = (
            (found[THRESHOLD], found[BAND], found[OPEN])
            | beam.Flatten()
            | beam.Map(repr)
            | "Save" >> beam.combiners.ToList()
            | beam.Map(lambda rows, path: path.write_text("\n".join(sorted(rows))), tmp_path / "o")
        )
    threshold = choose_threshold(calibration.margin_histogram(margins), rule)
    assert (threshold.n_positive, threshold.margin) == (36, -6.0)
    unseen = calibration.margin_histogram(np.r_[margins[:18], margins[24:]])
    band = choose_band(unseen, threshold, rule)
    assert (band.low, band.high) == (-16.0, -3.0)
    assert set((tmp_path / "o").read_text().splitlines()) == {repr(threshold), repr(band), "54"}
