"""Contrastive active learning."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import entropy

from pipelines.strategies.contrastive import Contrastive
from pipelines.strategies.uncertainty import Uncertainty
from tests.strategies.cases import blobs, context_of, rows_of


def test_an_ad_unlike_its_labelled_neighbours_comes_first() -> None:
    vectors, _ = blobs([12, 12])
    known = rows_of(vectors, [3.0] * 12 + [-3.0] * 12, seed=9)
    given = rows_of([vectors[0], vectors[0], vectors[20]], [3.0, -3.0, -2.0])
    found = Contrastive().score(given, context_of(known, [0] * 24))
    p, q = expit(3.0), expit(-3.0)
    assert found[:2] == pytest.approx([0.0, entropy([p, 1 - p], [q, 1 - q])], abs=1e-9)
    assert found.argmax() == 1 and 0 < found[2] < 0.1


def test_before_any_label_uncertainty_asks_and_it_is_said() -> None:
    vectors, _ = blobs([4, 4])
    given = rows_of(vectors, np.linspace(-1, 1, 8))
    at = context_of(None)
    assert Contrastive().score(given, at).tolist() == Uncertainty().score(given, at).tolist()
    assert "compares with labelled ads, and there are none" in Contrastive().note(at)
    assert Contrastive().note(context_of(rows_of(vectors, np.zeros(8)), [0] * 8)) == ""
