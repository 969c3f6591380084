"""NoiseAL: which of the model's labels small models contradict."""

from __future__ import annotations

import numpy as np

from pipelines.strategies.noise import Noise, judged, suspects
from tests.strategies.cases import blobs, chosen, context_of, rows_of


def pool() -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Return vectors of two kinds, the model's margins, and which of its calls are noise."""
    vectors, axis = blobs([40, 40], spread=0.1)
    order = np.random.default_rng(0).permutation(80)
    vectors, axis = vectors[order], axis[order]
    margins = np.where(axis == 0, 2.0, -2.0)
    wrong = [3, 10, 31, 54]
    margins[wrong] *= -1
    return vectors, margins, wrong


def test_calls_that_the_heads_contradict_come_first() -> None:
    vectors, margins, wrong = pool()
    found = Noise().choose(rows_of(vectors, margins), 4, context_of(None))
    assert sorted(chosen(found)) == wrong


def test_no_ad_is_judged_by_a_head_that_learnt_its_label() -> None:
    vectors, margins, _ = pool()
    unit, called = vectors.astype(np.float32), margins > 0
    none = np.empty((0, 8), np.float32), np.empty(0, np.int8)
    before = judged(unit, called, *none)
    flipped = called.copy()
    flipped[::2] = ~flipped[::2]
    after = judged(unit, flipped, *none)
    assert before is not None and after is not None
    # Even rows are judged by what odd rows teach, which has not changed.
    assert after[::2].tolist() == before[::2].tolist()
    assert after[1::2].tolist() != before[1::2].tolist()


def test_contradictions_then_doubts_then_the_rest() -> None:
    called = np.array([True, True, True, False, False, False])
    positive = np.array([0.9, 0.05, 0.6, 0.1, 0.45, 0.95])
    # Mean confidence: .52 of positive calls, .5 of negative ones. Row 4 is nearly one half, but reaches .5.
    assert suspects(positive, called).tolist() == [1, 5, 4, 2, 0, 3]
    doubtful = np.array([0.9, 0.9, 0.55, 0.05, 0.05, 0.4])
    assert suspects(doubtful, called)[:2].tolist() == [2, 5]


def test_experts_labels_count_and_one_class_falls_back_to_the_threshold() -> None:
    vectors, margins, _ = pool()
    unit, called = vectors.astype(np.float32), margins > 0
    told = judged(unit, called, unit[:8], np.ones(8, np.int8))
    untold = judged(unit, called, np.empty((0, 8), np.float32), np.empty(0, np.int8))
    assert told is not None and untold is not None and told.mean() > untold.mean()
    same = rows_of(vectors[:5], [3.0, 1.0, 2.0, 5.0, 4.0])
    assert chosen(Noise().choose(same, 2, context_of(None))) == [1, 2]
