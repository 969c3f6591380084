"""Vote entropy of heads."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.strategies.committee import Committee
from tests.strategies.cases import blobs, context_of, rows_of


def test_an_ad_between_the_labels_divides_the_heads_and_one_among_them_does_not() -> None:
    vectors, axis = blobs([12, 12], spread=0.3)
    at = context_of(rows_of(vectors, np.zeros(24), seed=9), (axis == 0).astype(int))
    between = [[1, 1 - 0.03 * step, *[0] * 6] for step in range(-4, 5)]
    given = rows_of([np.eye(8)[0], np.eye(8)[1], *between], np.zeros(11))
    found = Committee().score(given, at)
    assert found[:2].tolist() == [0.0, 0.0]
    assert found[2:].max() == pytest.approx(np.log(2), abs=0.05)
