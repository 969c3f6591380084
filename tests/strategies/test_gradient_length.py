"""Expected gradient length."""

from __future__ import annotations

import numpy as np

from pipelines.strategies.gradient_length import GradientLength
from tests.strategies.cases import blobs, context_of, rows_of


def test_on_unit_vectors_it_ranks_by_the_heads_doubt_whatever_the_model_says() -> None:
    vectors, axis = blobs([15, 15], spread=0.4)
    at = context_of(rows_of(vectors[::2], np.zeros(15), seed=9), (axis[::2] == 0).astype(int))
    rng = np.random.default_rng(4)
    given = rows_of(vectors, rng.normal(size=30))
    doubt = -np.abs(GradientLength().margins(at.project(given), at)[:, 0])
    order = np.argsort(-GradientLength().score(given, at))
    assert order.tolist() == np.argsort(-doubt).tolist()
