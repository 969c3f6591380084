"""How well scores rank labelled items: AUC with paired bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.numerics.committee import rank_agreements

REPLICATES = 500


@dataclass(frozen=True, slots=True)
class Ranked:
    """AUC of several scores on the same items.

    Attributes:
        auc: float64 (m,), 0 to 1.
        low, high: float64 (m,), 95% percentile interval.
        ahead: float64 (m,), AUC less that of the reference.
        ahead_low, ahead_high: float64 (m,), 95% percentile interval of the difference, paired.
    """

    auc: np.ndarray
    low: np.ndarray
    high: np.ndarray
    ahead: np.ndarray
    ahead_low: np.ndarray
    ahead_high: np.ndarray


def compare_ranks(scores: np.ndarray, labels: np.ndarray, reference: int, seed: int = 0) -> Ranked:
    """Compare scores by AUC; all columns are resampled together, within each class (Efron, 1979).

    Args:
        scores: float (n, m), finite.
        labels: int (n,), 1 and 0, at least two of each.
        reference: column that the others are compared with.
        seed: of the replicates.

    Memory: about 8 * n * m bytes, one replicate at a time.
    """
    rng = np.random.default_rng(seed)
    positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    draws = np.empty((REPLICATES, scores.shape[1]))
    for draw in draws:
        rows = np.concatenate(
            [rng.choice(positive, len(positive)), rng.choice(negative, len(negative))]
        )
        draw[:] = (rank_agreements(scores[rows], labels[rows]) + 1) / 2
    auc = (rank_agreements(scores, labels) + 1) / 2
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    gaps = draws - draws[:, [reference]]
    ahead_low, ahead_high = np.percentile(gaps, [2.5, 97.5], axis=0)
    return Ranked(auc, low, high, auc - auc[reference], ahead_low, ahead_high)
