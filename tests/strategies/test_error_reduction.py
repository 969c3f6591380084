"""Expected error reduction: rank-one updates against training anew."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.config import Selection
from pipelines.strategies.error_reduction import (
    ErrorReduction,
    expected_errors,
    least_error,
)
from tests.strategies.cases import blobs, chosen, context_of, rows_of


def ridge(known: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weights of a ridge regression, the slow way."""
    wide = np.column_stack([known, np.ones(len(known))]).astype(np.float64)
    root = np.sqrt(weights)[:, None]
    gram = (root * wide).T @ (root * wide) + np.eye(wide.shape[1])
    return np.linalg.solve(gram, wide.T @ (weights * targets))


def loss(vectors: np.ndarray, kernel: np.ndarray) -> float:
    said = np.column_stack([vectors, np.ones(len(vectors))]).astype(np.float64) @ kernel
    share = np.clip((1 + said) / 2, 0, 1)
    return float(np.minimum(share, 1 - share).sum())


def test_a_try_is_what_training_with_that_label_gives() -> None:
    vectors, axis = blobs([10, 15], spread=0.5)
    unit = vectors.astype(np.float32)
    known, pool = unit[::5], unit[1::2]
    labels = (axis[::5] == 0).astype(np.int8)
    classes = np.array([0.5 / np.mean(labels == side) for side in (0, 1)])
    weights, targets = classes[labels], 2.0 * labels - 1
    kernel = ridge(known, targets, weights)
    said = np.column_stack([pool, np.ones(len(pool))]) @ kernel
    expected = []
    for row, output in enumerate(said):
        share = np.clip((1 + output) / 2, 0, 1)
        tries = [
            loss(
                pool,
                ridge(
                    np.vstack([known, pool[row]]),
                    np.append(targets, target),
                    np.append(weights, classes[int(target > 0)]),
                ),
            )
            for target in (-1.0, 1.0)
        ]
        expected.append((1 - share) * tries[0] + share * tries[1])
    wide = np.column_stack([known, np.ones(len(known))]).astype(np.float64)
    rows = np.column_stack([pool, np.ones(len(pool))]).astype(np.float64)
    inverse = np.linalg.inv((wide * weights[:, None]).T @ wide + np.eye(9))
    found = expected_errors(said, rows @ inverse @ rows.T, classes)
    assert found == pytest.approx(expected, rel=1e-9)
    assert least_error(pool, known, labels, 1)[0] == np.argmin(expected)


def test_a_batch_does_not_ask_for_one_answer_twice() -> None:
    # Two unknown groups of copies, alike in all but where they lie.
    vectors, axis = blobs([10, 10, 20, 20], spread=0.0)
    known = np.flatnonzero(axis < 2)
    at = context_of(rows_of(vectors[known], np.zeros(20), seed=9), (axis[known] == 0).astype(int))
    found = ErrorReduction().choose(rows_of(vectors, np.zeros(60)), 2, at)
    assert {axis[row] for row in chosen(found)} == {2, 3}


def test_the_pool_is_bounded() -> None:
    selection = Selection(budget=50, coverage_sample_rows=50_000)
    assert ErrorReduction().pool_rows(selection) == 2000
    assert ErrorReduction().pool_rows(selection.model_copy(update={"budget": 3000})) == 3000
