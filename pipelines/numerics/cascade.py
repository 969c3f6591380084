"""A cascade: which ads the language model need not read, foretold by a score that costs little.

A *student* is fitted on a pilot of ads that the model has read, and foretells its margin of the others; those
that it foretells high are read, the rest keep what was foretold. A random share of the rest is read all the
same and tells how many of the model's positives are missed. (Selection by a proxy under a recall target:
Kang, Gan, Bailis, Hashimoto and Zaharia, "Approximate Selection with Guarantees using Proxies", VLDB 2020.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.numerics import calibration

# Fewer ads fit nothing: then all are read.
MIN_PILOT = 100
# A cut is raised on more than chance: so many of the model's positives were found below it.
MIN_MISSED = 3
# By how much the share that is read grows where too many were missed.
RAISE = 1.5
_FOLDS = 5
# Neighbours in what is foretold whose errors stand for an ad's.
_NEIGHBORS = 400
_PENALTIES = np.logspace(0, 5, 11)
_PERCENT = np.arange(101)


@dataclass(frozen=True, slots=True)
class Student:
    """Foretells a model's margin of an ad.

    Attributes:
        by: what its features are, one of ``models.proxies``.
        weights: float32 (d,), of the features.
        intercept: log-odds.
        scores: float32 (101,), what it foretells at least of so many percent of the ads.
        kept: float64 (101,), share of the model's positives that are expected among these.
        correlation: of what it foretold of pilot ads that it was not fitted on, and the margins.
        ads: of the pilot.
        pilot: content keys of the pilot's ads, which are read whatever is foretold.
    """

    by: str
    weights: np.ndarray
    intercept: float
    scores: np.ndarray
    kept: np.ndarray
    correlation: float
    ads: int
    pilot: frozenset[str] = frozenset()

    def foretell(self, features: np.ndarray, hint: np.ndarray) -> np.ndarray:
        """Return margins as far as they can be foretold, float64 (n,).

        Args:
            features: (n, d), of ``by``.
            hint: (n,), the part of the margins that is known without the model, log-odds.
        """
        # Row by row: a matrix product's rounding would depend on a row's neighbours.
        told = (features.astype(np.float64) * self.weights).sum(axis=1)
        return np.asarray(told + self.intercept + hint)

    def cut(self, share: float) -> float:
        """Return what is foretold at least of a share of the ads, in [0, 1]."""
        if share <= 0:
            return float("inf")
        if share >= 1:
            return float("-inf")
        return float(np.interp(100 * share, _PERCENT, self.scores))

    def share(self, kept: float) -> float:
        """Return the smallest share of the ads, in percent, that is to hold ``kept`` of the positives."""
        return float(np.argmax(self.kept >= kept - 1e-9)) / 100

    def to_json(self) -> str:
        """Return it as text; :meth:`from_json` reads it."""
        values: dict[str, Any] = {
            "by": self.by,
            "intercept": self.intercept,
            "correlation": self.correlation,
            "ads": self.ads,
            "pilot": sorted(self.pilot),
        }
        for name in ("weights", "scores", "kept"):
            values[name] = [float(f"{value:.8g}") for value in getattr(self, name)]
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str | bytes) -> Student:
        """Return what :meth:`to_json` wrote."""
        held = json.loads(text)
        kinds = {"weights": np.float32, "scores": np.float32, "kept": np.float64}
        arrays = {name: np.array(held[name], kind) for name, kind in kinds.items()}
        return cls(**held | arrays | {"pilot": frozenset(held["pilot"])})


def fit_student(
    by: str, features: np.ndarray, hint: np.ndarray, margins: np.ndarray, prior: float
) -> Student:
    """Fit a student: a ridge regression on what the model says beyond the hint.

    Args:
        by: what the features are.
        features: (n, d), n at least ``MIN_PILOT``.
        hint: (n,), as in :meth:`Student.foretell`.
        margins: (n,), the model's, log-odds.
        prior: share of the ads that count as its positives, those of highest margin.

    Raises:
        ValueError: too few ads.
    """
    # Manifests name what is here, and commands that read these should not wait for it.
    from sklearn.linear_model import Ridge, RidgeCV
    from sklearn.model_selection import KFold, cross_val_predict

    n = len(margins)
    if n < MIN_PILOT:
        raise ValueError(f"a cascade is fitted on at least {MIN_PILOT} ads, got {n}")
    wide = features.astype(np.float64)
    center, scale = wide.mean(axis=0), wide.std(axis=0)
    scale[scale < 1e-9] = 1.0
    standard, wanted = (wide - center) / scale, margins.astype(np.float64) - hint
    penalty = RidgeCV(alphas=_PENALTIES).fit(standard, wanted).alpha_
    ridge = Ridge(alpha=penalty)
    folds = KFold(_FOLDS, shuffle=True, random_state=0)
    told = cross_val_predict(ridge, standard, wanted, cv=folds) + hint
    ridge.fit(standard, wanted)
    weights = (ridge.coef_ / scale).astype(np.float32)
    intercept = float(ridge.intercept_ - (ridge.coef_ / scale) @ center)
    spread = np.std(told) * np.std(margins)
    return Student(
        by=by,
        weights=weights,
        intercept=round(intercept, 8),
        scores=np.quantile(told, 1 - _PERCENT / 100).astype(np.float32),
        kept=_kept(told, margins, prior),
        correlation=round(float(np.corrcoef(told, margins)[0, 1]) if spread else 0.0, 6),
        ads=n,
    )


def _kept(told: np.ndarray, margins: np.ndarray, prior: float) -> np.ndarray:
    """Return the share of the positives among the highest foretold, float64 (101,).

    The pilot's own positives are a few dozen. That an ad is one is taken as the chance that what was foretold
    of it, with the error that was made on an ad of about its height, reaches the threshold.
    """
    n = len(told)
    order = np.argsort(-told, kind="stable")
    told, errors = told[order], (margins.astype(np.float64) - told)[order]
    threshold = np.quantile(margins, 1 - prior)
    width = min(_NEIGHBORS, n)
    starts = np.clip(np.arange(n) - width // 2, 0, n - width)
    chance = np.array(
        [np.mean(told[i] + errors[s : s + width] >= threshold) for i, s in enumerate(starts)]
    )
    total = np.concatenate([[0.0], np.cumsum(chance)])
    ends = np.rint(_PERCENT / 100 * n).astype(int)
    return np.asarray(total[ends] / total[-1]) if total[-1] else _PERCENT / 100


@dataclass(frozen=True, slots=True)
class Read:
    """What a cascade did with some ads.

    Attributes:
        above: int64 (bins,), ads that were read because they lie above the cut, by margin as in
            ``calibration.bins_of``.
        explored: int64 (bins,), ads below the cut that were read all the same.
        below: ads below the cut, the explored among them.
    """

    above: np.ndarray
    explored: np.ndarray
    below: int


@dataclass(frozen=True, slots=True)
class Miss:
    """How many of the model's positives lie below a cut, by the explored ads.

    Attributes:
        above: ads above the cut.
        below: ads below it, the explored among them.
        explored: ads below it that were read.
        kept: positives above the cut.
        missed: positives among the explored.
        rate: share of all positives that lie below the cut and were not explored; None without any
            explored ad.
        low, high: its 95% interval.
    """

    above: int
    below: int
    explored: int
    kept: int
    missed: int
    rate: float | None
    low: float | None
    high: float | None


def measure_miss(read: Read, prior: float) -> Miss:
    """Return how many positives a cut costs, with a 95% interval (Jeffreys's, of a binomial share).

    Positives are the ``prior`` share of all ads that the model's margins are highest of; of those that were
    not read the explored ads tell, each standing for ``below / explored``.

    Args:
        read: what was done; at least one ad.
        prior: share of positives, in (0, 1).
    """
    above, explored = read.above.sum(), read.explored.sum()
    weight = read.below / explored if explored else 0.0
    weighted = read.above + weight * read.explored
    total = weighted.sum()
    # From the highest margin down until the prior's share is reached.
    reached = np.cumsum(weighted[::-1])
    first = len(reached) - 1 - int(np.searchsorted(reached, prior * total * (1 - 1e-12)))
    kept, missed = int(read.above[first:].sum()), int(read.explored[first:].sum())
    return miss_of(int(above), read.below, int(explored), kept, missed)


def miss_of(above: int, below: int, explored: int, kept: int, missed: int) -> Miss:
    """Return a miss rate of counts, as in :class:`Miss`."""
    counts = above, below, explored, kept, missed
    if not explored:
        return Miss(*counts, None, None, None)
    from scipy.special import betaincinv

    unread = below - explored

    def rate(share: float) -> float:
        lost = share * unread
        found = kept + missed + lost
        return float(lost / found) if found else 0.0

    shape = missed + 0.5, explored - missed + 0.5
    low = 0.0 if not missed else rate(betaincinv(*shape, 0.025))
    high = rate(1.0) if missed == explored else rate(betaincinv(*shape, 0.975))
    return Miss(*counts, rate(missed / explored), low, high)


def pooled(misses: list[Miss]) -> Miss:
    """Return what several nights with one cut say together."""
    names = ("above", "below", "explored", "kept", "missed")
    return miss_of(*(sum(getattr(miss, name) for miss in misses) for name in names))


def next_share(share: float, miss: Miss, kept: float) -> float:
    """Return the share that is to be read next: more, where more positives are missed than allowed.

    Args:
        share: as it was.
        miss: with that share.
        kept: share of the positives that is to be kept.
    """
    if miss.rate is None or miss.missed < MIN_MISSED or miss.rate <= 1 - kept:
        return share
    return min(1.0, round(share * RAISE, 2))


def bins(margins: np.ndarray) -> Mapping[int, int]:
    """Return how many margins lie in each bin of the grid that has any."""
    used, counts = np.unique(calibration.bins_of(margins), return_counts=True)
    return dict(zip(used.tolist(), counts.tolist(), strict=True))
