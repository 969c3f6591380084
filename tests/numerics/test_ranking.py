"""AUC with paired intervals."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_auc_score

from pipelines.numerics.ranking import compare_ranks


def test_intervals_hold_the_truth_and_differences_are_paired() -> None:
    rng = np.random.default_rng(2)
    covered, wide, paired = 0, [], []
    for draw in range(40):
        labels = (np.arange(200) < 50).astype(int)
        signal = labels + rng.normal(size=200)
        # Nearly the same score twice: each is uncertain, their difference hardly.
        scores = np.column_stack([signal, signal + 0.05 * rng.normal(size=200)])
        found = compare_ranks(scores, labels, 0, seed=draw)
        np.testing.assert_allclose(found.auc[1], roc_auc_score(labels, scores[:, 1]))
        # Two normal classes one standard deviation apart: AUC = Phi(1 / sqrt 2).
        covered += found.low[0] <= 0.7602 <= found.high[0]
        wide.append(found.high[0] - found.low[0])
        paired.append(found.ahead_high[1] - found.ahead_low[1])
        assert found.ahead[0] == found.ahead_low[0] == found.ahead_high[0] == 0
    assert covered >= 34
    assert np.median(paired) < np.median(wide) / 5
