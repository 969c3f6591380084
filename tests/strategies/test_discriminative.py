"""Discriminative active learning."""

from __future__ import annotations

import numpy as np

from pipelines.strategies.discriminative import Discriminative, told_apart
from tests.strategies.cases import blobs, chosen, context_of, rows_of


def test_what_looks_unlike_the_labelled_ads_is_asked_about() -> None:
    vectors, axis = blobs([40, 10, 10])
    known = rows_of(vectors[:20], np.zeros(20), seed=9)
    shuffled = np.random.default_rng(0).permutation(np.arange(20, 60))
    pool = rows_of(vectors[shuffled], np.zeros(40))
    found = Discriminative().choose(pool, 8, context_of(known, [0] * 20))
    asked = axis[shuffled[chosen(found)]]
    # Each part is told from the parts before: both new groups come.
    assert {*asked.tolist()} == {1, 2}


def test_without_labels_the_first_part_is_the_first_rows() -> None:
    vectors, _ = blobs([30, 30])
    shuffled = vectors[np.random.default_rng(0).permutation(60)].astype(np.float32)
    found = told_apart(shuffled, np.empty((0, 8), np.float32), 20)
    assert found[:2].tolist() == [0, 1] and len({*found.tolist()}) == 20
