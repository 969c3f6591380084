"""BALD by an ensemble of heads."""

from __future__ import annotations

import numpy as np

from pipelines.numerics.acquisition import mutual_information
from pipelines.strategies.bald import Bald
from tests.strategies.cases import blobs, context_of, rows_of


def test_the_heads_differ_most_where_nothing_was_labelled() -> None:
    vectors, axis = blobs([12, 12], spread=0.2)
    labels = (axis == 0).astype(int)
    at = context_of(rows_of(vectors, np.zeros(24), seed=9), labels)
    # Both score near one half; one lies between the classes, one in a direction that labels know nothing of.
    given = rows_of([[1, 1, 0, 0, 0, 0, 0, 0], np.eye(8)[5], np.eye(8)[0]], np.zeros(3))
    found = Bald().score(given, at)
    assert found.argmin() == 2
    heads = Bald().margins(at.project(given), at)
    assert heads.shape == (3, 10)
    assert found.tolist() == mutual_information(heads).tolist()
