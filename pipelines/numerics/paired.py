"""Differences between two methods over repeated splits of one labelled set, with an interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference.

    Attributes:
        mean: of the differences.
        low, high: of its interval; -inf and inf where fewer than two splits tell no spread.
    """

    mean: float
    low: float
    high: float


def paired_difference(
    ours: np.ndarray, theirs: np.ndarray, test_to_train: float, level: float = 0.95
) -> Difference:
    """Return by how much one method is ahead of another, both measured on the same splits.

    Splits of one set share most of their ads, so that a plain t interval over them is too narrow; the
    variance is multiplied by ``1 / splits + test_to_train`` in place of ``1 / splits``.

    Args:
        ours: float (splits,).
        theirs: float (splits,), of the same splits in the same order.
        test_to_train: ads measured on over ads chosen and learnt from, of a split.
        level: of the interval, in (0, 1).

    Raises:
        ValueError: the two do not have one shape, or there is no split.

    Source: the corrected resampled t test (Nadeau and Bengio, Machine Learning 52, 2003, section 5).
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape or ours.ndim != 1 or not len(ours):
        raise ValueError(f"two equal rows of splits are expected, got {ours.shape}, {theirs.shape}")
    gaps = ours - theirs
    mean, splits = float(gaps.mean()), len(gaps)
    if splits < 2:
        return Difference(mean, -np.inf, np.inf)
    spread = float(np.sqrt((1.0 / splits + test_to_train) * gaps.var(ddof=1)))
    reach = float(stats.t.ppf((1.0 + level) / 2.0, splits - 1)) * spread
    return Difference(mean, mean - reach, mean + reach)
