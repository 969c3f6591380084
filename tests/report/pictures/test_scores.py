"""The histogram of scores: every ad in one bar, and no bar of both labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.numerics import calibration
from pipelines.report.pictures import scores
from tests.report.pictures.samples import (
    NAMES,
    pixels,
)

margins = st.lists(st.integers(-16384, 16384), min_size=1, max_size=60)


@given(margins, st.integers(-16384, 16384))
def test_bars_hold_every_ad_once_and_no_bar_both_labels(steps: list[int], cut: int) -> None:
    values = np.array(steps) * calibration.MARGIN_STEP
    threshold = cut * calibration.MARGIN_STEP
    edges, counts = scores.rebinned(calibration.margin_histogram(values), threshold)
    assert len(counts) == len(edges) - 1 <= 82
    assert (np.diff(edges) > 0).all()
    assert threshold in edges.tolist()
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        assert count == ((values >= low) & (values < high)).sum()
    assert counts.sum() == len(values)


def test_an_empty_histogram_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at least one ad; got shape .* with a sum of 0"):
        scores.rebinned(np.zeros(calibration.N_BINS, dtype=np.int64), 0.0)
    with pytest.raises(ValueError, match=r"got shape \(3,\)"):
        scores.rebinned(np.ones(3, dtype=np.int64), 0.0)


def test_few_positives_are_made_visible_by_a_log_scale() -> None:
    values = np.repeat(np.arange(-40, 0) / 4, 500)
    few = calibration.margin_histogram(calibration.quantize(np.append(values, [1.0, 2.0])))
    png = scores.score_histogram(few, 0.5, NAMES)
    # Beside bars of 500 a bar of one would be a pixel high.
    legend_alone = scores.score_histogram(
        calibration.margin_histogram(calibration.quantize(values)), 0.5, NAMES
    )
    assert pixels(png, "orange") > pixels(legend_alone, "orange") + 200


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (-12, 12, [0.0001, 0.01, 0.5, 0.99, 0.9999]),
        (-6, 6, [0.01, 0.1, 0.5, 0.9, 0.99]),
        (-2, 2, [0.2, 0.4, 0.6, 0.8]),
        (3, 3.5, [0.955, 0.96, 0.965, 0.97]),
    ],
)
def test_probabilities_are_round_and_few(low: float, high: float, shown: list[float]) -> None:
    assert scores.probabilities(low, high).tolist() == pytest.approx(shown)


@given(st.floats(-64, 63), st.floats(0.5, 128))
def test_some_probabilities_are_marked_and_none_outside(low: float, width: float) -> None:
    found = scores.probabilities(low, low + width)
    assert len(found) <= 10 and ((found > 0) & (found < 1)).all()
    margins = np.log(found / (1 - found))
    assert ((margins > low - 1e-6) & (margins < low + width + 1e-6)).all()
