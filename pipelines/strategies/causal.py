"""Causal active learning: ads that carry what the model was seen to be misled by."""

from __future__ import annotations

import functools

import numpy as np

from models.training.data import LabelledAds, draw_folds
from models.training.learners import held_out_margins
from pipelines.config import Selection
from pipelines.numerics import kmeans
from pipelines.numerics.acquisition import linear_margins
from pipelines.numerics.distances import nearest
from pipelines.strategies.base import UNIT, Context, Pick, Rows
from pipelines.strategies.heads import OfHeads
from pipelines.strategies.sampled import picks, seats

_FOLDS = 5
_POOL = 16


class Causal(OfHeads):
    """After causal-guided active learning (Sun and others, ACL 2024), not the contrastive CAL.

    A counterexample pair is two labelled ads near each other that experts call differently and the model
    alike: what they share made it call the second as the first, and is a bias. Pairs are grouped by what they
    share, and experts are asked about the ads that lie nearest to a group and are called as its ads were,
    groups by their number of pairs. The paper shows a language model such pairs in its prompt, so that it
    does not follow the bias; here labels of further ads like them teach the next model. What a model gets
    wrong is seen in a head's held-out calls; where it is wrong about none, uncertainty sampling asks.
    """

    name = "causal"
    suits = "some labels of each class, and words that mislead the model"

    def value(self, rows: Rows, context: Context) -> np.ndarray:
        """Return the cosine to the nearest group that is called as the ad is; 2 less for any other ad."""
        return self._likeness(rows, context).max(axis=1)

    def pool_rows(self, selection: Selection) -> int:
        """Return enough ads for every group to have its own."""
        return _POOL * selection.budget

    def choose(self, pool: Rows, budget: int, context: Context) -> list[Pick]:
        """Give each group its seats, nearest ads first."""
        if self.note(context):
            return super().choose(pool, budget, context)
        _, _, pairs = self._groups(context)
        likeness = self._likeness(pool, context)
        left = np.ones(len(pool), dtype=bool)
        chosen: list[np.ndarray] = []
        for group, wanted in enumerate(seats(pairs, budget)):
            order = np.argsort(-likeness[:, group], kind="stable")
            taken = order[left[order]][:wanted]
            left[taken] = False
            chosen.append(taken)
        found = np.concatenate([*chosen, np.flatnonzero(left)])
        return picks(found[:budget])

    def note(self, context: Context) -> str:
        """Say that labels, or wrong calls, are wanting."""
        wanting = super().note(context)
        if wanting or len(self._groups(context)[0]):
            return wanting
        return (
            f"strategy {self.name!r}: no labelled ad misleads a head on the other labels: this round asks "
            "about the ads nearest to the threshold"
        )

    def _groups(self, context: Context) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        assert context.labelled is not None
        known, labels = context.known(0)
        keys = tuple(context.labelled.rows.keys)
        return _grouped(known.tobytes(), labels.tobytes(), known.shape[1], keys, context.seed)

    def _likeness(self, rows: Rows, context: Context) -> np.ndarray:
        """Return float64 (n, groups): cosines, 2 less where the ad is called otherwise."""
        centres, calls, _ = self._groups(context)
        cosines = linear_margins(context.project(rows), centres, np.zeros(len(centres)))
        called = context.positive(rows.margins) >= 0.5
        return cosines - 2.0 * (called[:, None] != calls)


@functools.lru_cache(maxsize=4)
def _grouped(
    vectors: bytes, labels: bytes, dim: int, keys: tuple[str, ...], seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    known = np.frombuffer(vectors, np.float32).reshape(-1, dim)
    truth = np.frombuffer(labels, np.int8)
    fold = draw_folds(LabelledAds(keys, ("",) * len(keys), truth), _FOLDS, seed)
    called = held_out_margins(known, truth, fold) >= 0.0
    return bias_groups(known, truth == 1, called, seed)


def bias_groups(
    vectors: np.ndarray, truth: np.ndarray, called: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group counterexample pairs by what their ads share.

    Each wrongly called row is paired with the nearest row that is called the same, rightly.

    Args:
        vectors: float32 (n, dim) unit vectors.
        truth: bool (n,), the experts' labels.
        called: bool (n,), the model's.
        seed: of k-means.

    Returns:
        float32 (g, dim) unit centres of the pairs' middles; bool (g,) what the pairs are called; int64 (g,)
        how many pairs. g is 0 where nothing is called wrongly, or nothing rightly beside it.
    """
    centres: list[np.ndarray] = [np.empty((0, vectors.shape[1]), np.float32)]
    calls: list[bool] = []
    pairs: list[int] = []
    for side in (True, False):
        wrong, right = (
            np.flatnonzero((called == side) & (truth == is_so)) for is_so in (not side, side)
        )
        if not (len(wrong) and len(right)):
            continue
        partner = right[nearest(vectors[wrong], vectors[right], 1)[0][:, 0]]
        middles = kmeans.project(UNIT, vectors[wrong] + vectors[partner])
        found = kmeans.fit_kmeans(middles, kmeans.auto_k(len(middles)), seed)
        counts = np.bincount(kmeans.assign(middles, found)[0], minlength=len(found))
        centres.append(kmeans.project(UNIT, found))
        calls += [side] * len(found)
        pairs += counts.tolist()
    return np.concatenate(centres), np.array(calls, dtype=bool), np.array(pairs, dtype=np.int64)
