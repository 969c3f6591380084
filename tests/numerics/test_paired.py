from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipelines.numerics.paired import paired_difference


def test_the_interval_is_students_with_a_wider_spread() -> None:
    ours, theirs = np.array([0.5, 0.7, 0.6, 0.8]), np.array([0.4, 0.4, 0.5, 0.5])
    found = paired_difference(ours, theirs, test_to_train=0.5)
    gaps = ours - theirs
    reach = 3.182446 * np.sqrt((0.25 + 0.5) * gaps.var(ddof=1))
    assert found.mean == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.2 - reach, 0.2 + reach))
    plain = paired_difference(ours, theirs, test_to_train=0.0)
    known = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (plain.low, plain.high) == pytest.approx((known.low, known.high))


def test_one_split_tells_no_spread() -> None:
    found = paired_difference(np.array([0.5]), np.array([0.4]), 0.5)
    assert (found.low, found.high) == (-np.inf, np.inf)


@pytest.mark.parametrize("shape", [(0,), (2, 2)])
def test_what_is_no_row_of_splits_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="two equal rows"):
        paired_difference(np.zeros(shape), np.zeros(shape), 0.5)


def test_the_interval_holds_what_splits_of_one_set_would_give() -> None:
    """Two equal guessers on splits of one small set: plain intervals exclude 0 too often."""
    rng, plain, corrected = np.random.default_rng(0), 0, 0
    for _ in range(300):
        right = rng.random((2, 60)) < 0.7
        rows = [rng.permutation(60)[:24] for _ in range(10)]
        ours, theirs = (np.array([right[who][own].mean() for own in rows]) for who in (0, 1))
        for share in (0.0, 24 / 36):
            found = paired_difference(ours, theirs, share)
            out = found.low > 0 or found.high < 0
            plain, corrected = plain + (out and not share), corrected + bool(out and share)
    assert corrected < 0.15 * 300 < plain
