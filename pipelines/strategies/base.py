"""The contract of a selection strategy: which ads or pairs experts are asked about.

A strategy scores a corpus map-side and chooses in one worker from a bounded pool, so that no corpus is
too large for it. There are two kinds:

- :class:`RowStrategy` scores every ad by itself; the pool holds the ads of the highest scores.
- :class:`PairStrategy` chooses from the nearest pairs of opposite labels near the threshold, spread over
  the clusters that mix (``ClusterPerLabel``, ``FindOverlaps``, ``FindOppositePairs``).

Another strategy is one class in a file of this folder and one line in ``registry.py``. Scoring apart
from choosing is small-text's ``ScoringMixin`` and what a corpus needs.
"""

from __future__ import annotations

import abc
import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pyarrow as pa
from scipy.special import expit

from pipelines.config import Selection
from pipelines.contracts import ReviewItem
from pipelines.numerics import kmeans
from pipelines.numerics.calibration import Threshold
from pipelines.numerics.overlap import Overlap

# Why a round has no items; a night goes on without.
NOTHING_LEFT = "no ad is left to show: experts saw every one in earlier rounds; give a newer corpus"


class Need(enum.Enum):
    """What a strategy needs beside the ads' margins; what is not asked for is not read."""

    VECTORS = "the ads' vectors"
    LABELS = "experts' labels so far"
    SCORES = "several scores an ad"


@dataclass(frozen=True, slots=True)
class Rows:
    """Ads as arrays.

    Attributes:
        keys: n content keys.
        margins: float64 (n,), log-odds of the model.
        vectors: float16 (n, dim) as stored, or None where not needed.
        scores: float64 (n,), what the strategy gave; None before it did.
    """

    keys: Sequence[str]
    margins: np.ndarray
    vectors: np.ndarray | None = None
    scores: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class Labelled:
    """The ads that experts labelled in earlier rounds, of the fine-tuning half alone.

    Attributes:
        rows: the ads that are still in the corpus, sorted by key.
        labels: int8 (n,), 1 for positive, in the order of ``rows``.
    """

    rows: Rows
    labels: np.ndarray


# Unit vectors as they are stored, nothing standardised.
UNIT = kmeans.VectorSpace(None, None)


@dataclass(frozen=True, slots=True)
class Context:
    """What scoring and choosing may depend on.

    Attributes:
        selection: the task's section.
        seed: of draws.
        guideline: hash of what experts go by (``Task.guideline``).
        threshold: the label rule.
        open_ads: ads of the corpus that experts have not seen.
        labelled: what experts said, where the strategy needs it and there is any.
        space: maps raw vectors to unit vectors; those of a language model are standardised in it.
    """

    selection: Selection
    seed: int
    guideline: str
    threshold: Threshold
    open_ads: int
    labelled: Labelled | None = None
    space: kmeans.VectorSpace = UNIT

    def project(self, rows: Rows) -> np.ndarray:
        """Return float32 (n, dim) unit vectors of a strategy that needs vectors, each of its row alone."""
        assert rows.vectors is not None, "Need.VECTORS is not among the strategy's needs"
        return kmeans.project(self.space, rows.vectors)

    def known(self, dim: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the labelled ads' unit vectors, float32 (n, dim), and labels, int8 (n,); n may be 0."""
        if self.labelled is None:
            return np.empty((0, dim), np.float32), np.empty(0, np.int8)
        return self.project(self.labelled.rows), self.labelled.labels

    def positive(self, margins: np.ndarray) -> np.ndarray:
        """Return the model's probability of positive, float64 (n,), with the threshold as one half."""
        return expit(np.asarray(margins, dtype=np.float64) - self.threshold.margin)


@dataclass(frozen=True, slots=True)
class Plan:
    """The part of a :class:`Context` that is known before the job runs, small enough to travel with it.

    Attributes:
        selection, seed, guideline: see :class:`Context`.
        labels: consensus of the fine-tuning half, content key -> 1 for positive, 0 for negative; empty
            where the strategy does not need it.
    """

    selection: Selection
    seed: int
    guideline: str
    labels: Mapping[str, int] = field(default_factory=dict)

    def at(
        self,
        threshold: Threshold,
        open_ads: int,
        labelled: Labelled | None = None,
        space: kmeans.VectorSpace = UNIT,
    ) -> Context:
        """Return the context once the corpus is labelled."""
        return Context(
            self.selection, self.seed, self.guideline, threshold, open_ads, labelled, space
        )


@dataclass(frozen=True, slots=True)
class Pick:
    """One choice from a pool of rows.

    Attributes:
        rows: the ad, or the two ads to show beside each other, as rows of the pool.
        propensity: probability with which ``rows[0]`` was drawn, where it was drawn.
    """

    rows: tuple[int] | tuple[int, int]
    propensity: float | None = None


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the chosen pairs stand for.

    Attributes:
        share: share of the corpus weight that they cover, 0 to 1.
        radius: distance within which an ad covers others of its cluster pair.
    """

    share: float
    radius: float


@dataclass(frozen=True, slots=True)
class Chosen:
    """The outcome of a selection.

    Attributes:
        items: in review order.
        candidates: ads or pairs chosen from.
        coverage: of a strategy that measures it, or None.
        note: where the choice is not what the budget asked for: why, and what would change it.
    """

    items: tuple[ReviewItem, ...]
    candidates: int
    coverage: Coverage | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class PairPool:
    """Candidate pairs, and what their choice goes by; nothing of it is text.

    Attributes:
        candidates: pairs in any order, at most ``Selection.pool``: columns ``p_key`` and ``n_key``,
            ``distance``, ``overlap`` (place in ``overlaps``), ``partner_rank`` (of the negative ad among
            those near the positive one, from 1) and ``mutual``.
        ads: the ads of the candidates, sorted by key: columns ``key``, ``vector``, ``positive``,
            ``cluster``.
        sample: scored rows on which coverage is measured, with columns ``key``, ``vector``, ``margin``,
            ``weight``, ``positive`` and ``cluster``.
        shown: ads that experts saw in earlier rounds, columns ``key`` and ``vector``; or None.
        overlaps: the cluster pairs that mix.
        space: maps raw vectors to unit vectors.
        total_weight: of the corpus, in its unit.
        population: unique ads in the corpus.
    """

    candidates: pa.Table
    ads: pa.Table
    sample: pa.Table
    shown: pa.Table | None
    overlaps: Sequence[Overlap]
    space: kmeans.VectorSpace
    total_weight: int
    population: int


class Strategy(abc.ABC):
    """What every strategy says of itself.

    Attributes:
        name: as in ``selection.strategy`` and in ``ReviewItem.source``.
        needs: beside margins.
        suits: what one has who should take it, as ``scout advise`` says it; "" where nothing is known.
        finds_positives: whether most of what it shows is meant to be positive, which takes experts
            another time.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset()
    suits: ClassVar[str] = ""
    finds_positives: ClassVar[bool] = False


class RowStrategy(Strategy):
    """Scores ads one by one; instances travel to the workers, so they must pickle.

    Attributes:
        draws: whether its choice is a random draw with known propensities, to which no exploration
            is added.
        ranks: whether its score says how much an ad is worth, and is shown with it; else it only
            decides which ads :meth:`choose` gets.
    """

    draws: ClassVar[bool] = False
    ranks: ClassVar[bool] = True

    @abc.abstractmethod
    def score(self, rows: Rows, context: Context) -> np.ndarray:
        """Return float64 (n,): how much each ad is worth asking about; higher first, finite.

        Called map-side, on a block of ads that experts have not seen. An ad's score must depend on
        that ad and the context alone, never on its block.
        """

    def pool_rows(self, selection: Selection) -> int:
        """Return how many ads of the highest scores :meth:`choose` gets; one worker holds them."""
        return selection.budget

    def floor(self, context: Context) -> float:
        """Return a score below which no ad can be among the best: what lies lower does not travel."""
        return -math.inf

    def choose(self, pool: Rows, budget: int, context: Context) -> list[Pick]:
        """Choose at most ``budget`` items from the pool, which is sorted best first (ties by key).

        Called once; must be a function of its arguments alone. An ad is in one pick at most.
        """
        return [Pick((row,)) for row in range(min(budget, len(pool)))]

    def note(self, context: Context) -> str:
        """Return what people should know of this choice: of a strategy that lacks what it needs, what
        it does instead. Empty where there is nothing to say.
        """
        return ""


class PairStrategy(Strategy):
    """Chooses from the nearest pairs of opposite labels near the threshold.

    Its items are of ``items.named_ad``: what people see of an ad is read once it is chosen. Where there are fewer than the budget, single ads near the threshold take the rest of it
    (:func:`pipelines.strategies.single_ads.fill`).
    """

    @abc.abstractmethod
    def choose(self, pool: PairPool, context: Context) -> Chosen:
        """Choose at most ``context.selection.budget`` pairs; a function of its arguments alone."""
