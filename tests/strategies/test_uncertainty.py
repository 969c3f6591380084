"""Uncertainty: distance to the label rule's threshold, not to one half."""

from __future__ import annotations

import numpy as np

from pipelines.strategies.uncertainty import Uncertainty
from tests.strategies.test_contract import known, rows


def test_the_threshold_stands_for_one_half() -> None:
    given, at = rows(), known()
    assert at.threshold.margin == -0.5
    scores = Uncertainty().score(given, at)
    assert scores.tolist() == [-abs(margin + 0.5) for margin in given.margins.tolist()]
    nearest = int(np.argmax(scores))
    assert abs(given.margins[nearest] + 0.5) == np.abs(given.margins + 0.5).min()
