"""Labels that look wrong: confident learning, copies with two labels, and experts who drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pipelines.numerics.agreement import MISSING
from pipelines.numerics.families import near_duplicates

# Ads of an expert that others labelled, too, in each half of the expert's time.
LEAST_SHARED = 20


@dataclass(frozen=True, slots=True)
class Doubtful:
    """Labels that a model which did not see them contradicts.

    Attributes:
        rows: intp (k,), the most doubtful first.
        confidence: float64 (k,), the model's probability of the label that was given, 0 to 1.
        expected: about how many of all labels are wrong, by the confident joint.
    """

    rows: np.ndarray
    confidence: np.ndarray
    expected: int


def confident_disagreement(probability: np.ndarray, labels: np.ndarray) -> Doubtful:
    """Find labels that are confidently contradicted.

    An ad counts as of a class when its probability of that class is at least the mean over the ads that
    were given it (of both, the more probable one). Where that is not the given one, and the model finds the
    given one the less probable, the label is in doubt. The means make up for a model that is badly
    calibrated, or for one that favours a class.

    Args:
        probability: float (n,), p(positive) by a model that did not learn from the ad itself.
        labels: int8 (n,), 1 positive and 0 negative, both classes.

    Raises:
        ValueError: one class alone, or shapes that differ.

    Source: Northcutt, Jiang and Chuang, Confident Learning, JAIR 70, 2021, section 3.1 (the confident
    joint) and 3.2 (its off-diagonal, ranked by the given label's probability). The rows are those of
    cleanlab 2.9.0's ``find_label_issues(filter_by="confident_learning")``, in its order, on 200 made-up
    sets of 80 to 800 labels.
    """
    p, y = np.asarray(probability, np.float64), np.asarray(labels)
    if p.shape != y.shape or p.ndim != 1 or len(np.unique(y)) < 2:
        raise ValueError(
            f"a probability for each label, and both labels, are needed; got {p.shape}, {y.shape}"
        )
    each = np.stack([1.0 - p, p])
    means = np.array([each[value, y == value].mean() for value in (0, 1)])
    confident = each >= means[:, None]
    counted = np.where(confident.all(axis=0), p > 0.5, confident[1]).astype(y.dtype)
    in_doubt = confident.any(axis=0) & (counted != y)
    own = np.where(y == 1, p, 1.0 - p)
    rows = np.flatnonzero(in_doubt & (own < 0.5))
    order = rows[np.argsort(own[rows], kind="stable")]
    return Doubtful(order, own[order], _expected_errors(confident, counted, y))


def _expected_errors(confident: np.ndarray, counted: np.ndarray, labels: np.ndarray) -> int:
    """Return about how many labels are wrong: the joint, calibrated so that given labels add up."""
    total = 0.0
    for given in (0, 1):
        own = labels == given
        counts = [(own & confident.any(axis=0) & (counted == value)).sum() for value in (0, 1)]
        if sum(counts):
            total += own.sum() * counts[1 - given] / sum(counts)
    return round(total)


def differing_copies(texts: Sequence[str], labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find texts that read nearly the same and were labelled differently.

    Args:
        texts: n normalised texts.
        labels: int8 (n,).

    Returns:
        intp (m, 2) rows of each pair, the smaller first, and float64 (m,) their likeness; likest first.
    """
    near = near_duplicates(texts)
    left, right = near.edges[:, 0], near.edges[:, 1]
    differ = labels[left] != labels[right]
    order = np.argsort(-near.similarity[differ], kind="stable")
    return near.edges[differ][order], near.similarity[differ][order]


@dataclass(frozen=True, slots=True)
class Drift:
    """How an expert's agreement with the others changed from the first half of their time to the second.

    Attributes:
        before, after: ads of each half that others labelled, too.
        change: of the share of others who say the same, beside how those agree with one another where
            there are two; -2 to 2, below 0 for an expert who leaves the others.
        low, high: interval of ``change``.
        alone: whether there was one other at a time: then who of the two moved cannot be told.
    """

    before: int
    after: int
    change: float
    low: float
    high: float
    alone: bool

    @property
    def drifts(self) -> bool:
        """Whether the expert leaves the others beyond chance."""
        return self.high < 0


def drift(values: np.ndarray, expert: int, when: np.ndarray, level: float = 0.95) -> Drift | None:
    """Compare an expert's agreement with the others early and late.

    Agreement falls for all where ads get harder from round to round. So of each ad the share of the
    others who say what the expert says is taken less the share of pairs of others who agree.

    Args:
        values: int8 (n_ads, n_experts), 1, 0 or -1 for missing.
        expert: column of the expert.
        when: float or str (n_ads,), what sorts the ads as the expert labelled them.
        level: of the interval, in (0, 1).

    Returns:
        None where either half has fewer than ``LEAST_SHARED`` ads that others labelled, too.

    The interval is Welch's (1947), of two means.
    """
    own = values[:, expert]
    others = np.delete(values, expert, axis=1)
    said = (others != MISSING).sum(axis=1)
    shared = np.flatnonzero((own != MISSING) & (said > 0))
    shared = shared[np.argsort(np.asarray(when)[shared], kind="stable")]
    half = len(shared) // 2
    if half < LEAST_SHARED:
        return None
    positive = (others[shared] == 1).sum(axis=1)
    count = said[shared]
    same = np.where(own[shared] == 1, positive, count - positive) / count
    negative, pairs = count - positive, count * (count - 1) / 2
    alike = (positive * (positive - 1) + negative * (negative - 1)) / 2
    several = bool((pairs > 0).all())
    distance = same - alike / pairs if several else same
    early, late = distance[:half], distance[half:]
    change = float(late.mean() - early.mean())
    if not (early.var() or late.var()):
        # Whoever always agrees, or never did: no spread, no doubt.
        return Drift(len(early), len(late), change, change, change, not several)
    found = stats.ttest_ind(late, early, equal_var=False).confidence_interval(level)
    return Drift(len(early), len(late), change, float(found.low), float(found.high), not several)
