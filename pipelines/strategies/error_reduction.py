"""Expected error reduction: ads whose label would leave the fewest errors elsewhere."""

from __future__ import annotations

import numpy as np

from pipelines.config import Selection
from pipelines.numerics.threads import one_blas_thread
from pipelines.strategies.base import Context
from pipelines.strategies.heads import BatchOfHeads

# Each ad of the pool is tried with both labels, and each try is measured on the whole pool.
_MOST_ROWS = 2000
# As strong as the heads' penalty.
_PENALTY = 1.0
_ROWS_PER_CHUNK = 256


class ErrorReduction(BatchOfHeads):
    """Expected error reduction (Roy and McCallum, ICML 2001) of a least-squares head.

    Its expected 0-1 loss on a uniform sample of 2,000 ads after each possible new label. Of least squares
    a new label is an exact rank-one update, so nothing is trained anew. Within a batch an ad that was
    chosen counts as labelled as the head expects (kriging believer; Ginsbourger and others, 2010). The
    sample is bounded, for the cost of an item grows with its square.
    """

    name = "error-reduction"
    suits = "some labels of each class, a small corpus or sample, and time"

    def pool_rows(self, selection: Selection) -> int:
        """Return the size of the sample."""
        return max(_MOST_ROWS, selection.budget)

    def batch(self, vectors: np.ndarray, budget: int, context: Context) -> np.ndarray:
        """Choose by :func:`least_error`."""
        return least_error(vectors, *context.known(vectors.shape[1]), budget)


def least_error(
    vectors: np.ndarray, known: np.ndarray, labels: np.ndarray, wanted: int
) -> np.ndarray:
    """Choose, again and again, the row whose label leaves the least expected 0-1 loss on all rows.

    The head is a ridge regression of +1 and -1 on (x, 1), classes weighed alike; its probability of positive
    is (1 + f) / 2, cut at 0 and 1.

    Args:
        vectors: float32 (n, dim).
        known: float32 (m, dim).
        labels: int8 (m,), both classes.
        wanted: rows to choose.

    Returns:
        int64 (min(wanted, n),) rows in order of choice; ties go to the lower row.

    Memory: 8 * n * n bytes, and 256 * n * 24. Time: wanted * n * n * 20.
    """
    known_wide, rows = _with_one(known), _with_one(vectors)
    weights = np.array([0.5 / np.mean(labels == side) for side in (0, 1)])
    own, targets = weights[labels], 2.0 * labels - 1.0
    with one_blas_thread():
        gram = (known_wide * own[:, None]).T @ known_wide + _PENALTY * np.eye(rows.shape[1])
        inverse = np.linalg.inv(gram)
        said = rows @ (inverse @ (known_wide.T @ (own * targets)))
        moves = rows @ inverse @ rows.T
        chosen = np.empty(min(wanted, len(rows)), dtype=np.int64)
        left = np.zeros(len(rows))
        for place in range(len(chosen)):
            row = chosen[place] = int((expected_errors(said, moves, weights) + left).argmin())
            left[row] = np.inf
            # Labelled as expected it moves nothing, but it makes the head surer around it.
            column = moves[:, row].copy()
            moves -= np.outer(column, column / (1.0 + column[row]))
    return chosen


def expected_errors(said: np.ndarray, moves: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the expected 0-1 loss on all rows once a row is labelled, float64 (n,) for each row.

    Args:
        said: float64 (n,), the head's outputs; +1 is positive.
        moves: float64 (n, n), how far row i moves with a unit of row j's residual: x_i' A^-1 x_j.
        weights: float64 (2,), what a negative and a positive label weigh.
    """
    expected = np.empty(len(said))
    share = np.clip((1.0 + said) / 2.0, 0.0, 1.0)
    for start in range(0, len(said), _ROWS_PER_CHUNK):
        chunk = slice(start, start + _ROWS_PER_CHUNK)
        own = np.diagonal(moves)[chunk]
        total = np.zeros(len(own))
        for target, odds in ((-1.0, 1.0 - share[chunk]), (1.0, share[chunk])):
            weight = weights[int(target > 0)]
            step = weight * (target - said[chunk]) / (1.0 + weight * own)
            after = said + step[:, None] * moves[chunk]
            total += odds * np.maximum(1.0 - np.abs(after), 0.0).sum(axis=1) / 2.0
        expected[chunk] = total
    return expected


def _with_one(vectors: np.ndarray) -> np.ndarray:
    return np.column_stack([vectors.astype(np.float64), np.ones(len(vectors))])
