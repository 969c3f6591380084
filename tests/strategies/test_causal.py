"""Causal-guided active learning: what misled the model, and where else it may."""

from __future__ import annotations

import numpy as np

from pipelines.strategies.causal import Causal, bias_groups
from tests.strategies.cases import blobs, chosen, context_of, rows_of


def test_a_wrong_call_is_paired_with_the_nearest_right_one_of_that_call() -> None:
    vectors = np.eye(6, dtype=np.float32)[[0, 0, 1, 2, 3]]
    vectors[1, 4] = 0.3
    truth = np.array([True, False, True, False, False])
    called = np.array([True, True, True, False, False])
    centres, calls, pairs = bias_groups(vectors, truth, called, 0)
    middle = (vectors[0] + vectors[1]) / np.linalg.norm(vectors[0] + vectors[1])
    assert np.allclose(centres, [middle], atol=1e-6)
    assert calls.tolist() == [True] and pairs.tolist() == [1]
    assert len(bias_groups(vectors, truth, truth, 0)[0]) == 0


def case(wrong: int):
    """Positive is what lies on axis 0 and 1, but of axis 1 some are not."""
    vectors, axis = blobs([15, 15, 30], spread=0.1)
    truth = axis < 2
    truth[15 : 15 + wrong] = False
    return vectors, axis, context_of(rows_of(vectors, np.zeros(60), seed=9), truth.astype(int))


def test_ads_like_those_that_misled_are_asked_about_where_they_are_called_so() -> None:
    vectors, axis, at = case(4)
    margins = np.where(axis == 1, 2.0, -2.0)
    found = Causal().score(rows_of(vectors, margins), at)
    # The pairs lie on axis 1 and are called positive: ads there are near, ads called negative are not.
    assert found[axis == 1].min() > 0.8 > found[axis != 1].max()
    far = Causal().score(rows_of(vectors, -margins), at)
    assert far[axis == 1].max() < 0
    picks = Causal().choose(rows_of(vectors, margins), 5, at)
    assert {axis[row] for row in chosen(picks)} == {1} and Causal().note(at) == ""


def test_where_the_head_is_right_throughout_uncertainty_asks_and_it_is_said() -> None:
    vectors, _, at = case(0)
    given = rows_of(vectors, np.linspace(-1, 1, 60))
    assert "no labelled ad misleads a head" in Causal().note(at)
    assert Causal().score(given, at).argmax() in (29, 30)
    assert "'causal' learns from 2 labels" in Causal().note(context_of(None))
