"""Whether a night is like the nights before: scores by their histogram, shares of anything."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

_PARTS = 10
# Added to each count, so that an empty part has a logarithm.
_PRIOR_COUNT = 0.5
_LEVEL = 0.999


@dataclass(frozen=True, slots=True)
class Stability:
    """A population stability index.

    Attributes:
        index: sum of (p - q) ln(p / q) over parts, 0 for equal shares.
        chance: what it stays below 999 times in 1,000 without any drift.
    """

    index: float
    chance: float


def stability(now: np.ndarray, before: np.ndarray) -> Stability:
    """Compare two histograms over the deciles of the earlier one.

    Ties keep together, so there may be fewer parts than ten.

    Args:
        now: int (bins,), counts, at least one.
        before: int (bins,), counts, at least one.

    Raises:
        ValueError: one of them is empty.

    Source: Lewis (1994), An introduction to credit scoring, for the index; Yurdakul and Naranjo (2020),
    Statistical properties of the population stability index: without drift it is (1/n + 1/m) times a
    chi-square of one degree less than there are parts.
    """
    n, m = int(now.sum()), int(before.sum())
    if not n or not m:
        raise ValueError("both histograms must hold something")
    wanted = np.arange(1, _PARTS) * m / _PARTS
    cuts = np.unique(np.searchsorted(np.cumsum(before), wanted))
    part = np.searchsorted(cuts, np.arange(len(before)))
    counts = [np.bincount(part, held, len(cuts) + 1) + _PRIOR_COUNT for held in (now, before)]
    q, p = (held / held.sum() for held in counts)
    index = float(((q - p) * np.log(q / p)).sum())
    return Stability(index, float((1 / n + 1 / m) * stats.chi2.ppf(_LEVEL, len(cuts))))


def deviation(now: int, of_now: int, before: int, of_before: int) -> float:
    """Return by how many standard errors a share lies above an earlier one; 0 where there is none.

    Two-proportion z statistic with the pooled share.

    Args:
        now: a count.
        of_now: what it is a part of.
        before: the count that it is compared with.
        of_before: what that is a part of.
    """
    if not of_now or not of_before:
        return 0.0
    pooled = (now + before) / (of_now + of_before)
    error = math.sqrt(pooled * (1 - pooled) * (1 / of_now + 1 / of_before))
    return (now / of_now - before / of_before) / error if error else 0.0
