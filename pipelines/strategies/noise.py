"""NoiseAL: ads on which small models, trained on the large one's labels, contradict it or doubt it."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from models.training.learners import fit_head
from pipelines.numerics.acquisition import linear_margins
from pipelines.strategies.base import Context, Need, Pick, Rows
from pipelines.strategies.sampled import Sampled, picks


class Noise(Sampled):
    """After NoiseAL (Yuan and others, arXiv 2504.02901): which of the annotator's labels are noise.

    The model that labels the corpus is the annotator. Two heads learn from its labels of a uniform sample,
    each from one half, experts' labels among them, and judge the other half. Thresholds that go by each
    class's mean confidence divide the sample: what a head is confident of and the annotator calls otherwise
    comes first (the paper's purified set), then what it is confident of neither way (the hard set). The
    paper asks a larger language model there; here experts are asked. Its losses and demonstrations are
    those of a training, and not part of a choice. Needs no label; a sample that is called all the same is
    asked about from the threshold on.
    """

    name = "noise"
    suits = "no labels yet, and a model that is right often enough to learn from"
    needs = frozenset({Need.VECTORS, Need.LABELS})

    def choose(self, pool: Rows, budget: int, context: Context) -> list[Pick]:
        """Choose by :func:`suspects`."""
        vectors, called = context.project(pool), context.positive(pool.margins) >= 0.5
        known, labels = context.known(vectors.shape[1])
        positive = judged(vectors, called, known, labels)
        if positive is None:
            near = np.argsort(np.abs(pool.margins - context.threshold.margin), kind="stable")
            return picks(near[:budget])
        return picks(suspects(positive, called)[:budget])


def judged(
    vectors: np.ndarray, called: np.ndarray, known: np.ndarray, labels: np.ndarray
) -> np.ndarray | None:
    """Judge each half of some rows by a head that learnt from the other half.

    Args:
        vectors: float32 (n, dim), rows in random order.
        called: bool (n,), the annotator's labels.
        known: float32 (m, dim), ads that experts labelled; both heads learn from them.
        labels: int8 (m,).

    Returns:
        float64 (n,) probability of positive; None where one half is called all the same.
    """
    found = np.empty(len(vectors))
    half = np.arange(len(vectors)) % 2 == 0
    for learnt in (half, ~half):
        if called[learnt].all() or not called[learnt].any():
            return None
        taught = np.concatenate([called[learnt], labels == 1])
        kernel, bias = fit_head(np.concatenate([vectors[learnt], known]), taught.astype(np.int8))
        margins = linear_margins(vectors[~learnt], kernel[None], np.array([bias]))[:, 0]
        found[~learnt] = expit(margins)
    return found


def suspects(positive: np.ndarray, called: np.ndarray) -> np.ndarray:
    """Order rows by how likely the annotator's label is noise.

    A class's threshold is the mean of what the heads give it where the annotator names it (confident
    learning; Northcutt, Jiang and Chuang, JAIR 2021).

    Args:
        positive: float64 (n,), the heads' probability of positive.
        called: bool (n,), the annotator's labels; both are there.

    Returns:
        int64 (n,) rows: confident contradictions, surest first; then what reaches neither class's threshold,
        least sure first; then the rest, least agreed first. Ties go to the lower row.
    """
    least = positive[called].mean(), (1.0 - positive[~called]).mean()
    own = np.where(called, positive, 1.0 - positive)
    contradicted = np.where(called, 1.0 - positive >= least[1], positive >= least[0]) & (own < 0.5)
    agreed = np.where(called, positive >= least[0], 1.0 - positive >= least[1])
    group = np.where(contradicted, 0, np.where(agreed, 2, 1))
    return np.lexsort((np.where(group == 1, np.abs(positive - 0.5), own), group))
