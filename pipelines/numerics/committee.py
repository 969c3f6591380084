"""Which prompt forms to listen to: those that agree with the policy's words, and with labels so far.

A small language model ranks ads well by one wording and backwards by another, and which is which
changes with the policy. The similarity of an ad to the policy in a sentence encoder ranks less well,
but hardly ever backwards: it tells the forms apart, and their sum ranks better than either. Labels
take over as they come: they count beside the similarity as beside so many labels of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import rankdata

# Forms that are kept; each costs its tokens on every ad.
MAX_MEMBERS = 6
# Of the similarity itself, beside members that weigh 1 together and are standardised again.
SIMILARITY_WEIGHT = 0.25
# The similarity's own claim, as a correlation, and the labels that it and every form's agreement with
# it weigh as much as (the harmonic mean of both classes).
SIMILARITY_CLAIM, PRIOR_LABELS = 0.6, 8.0
# Log-odds a standard deviation of the sum: a scale for people, the ranking has none.
SLOPE = 2.0


@dataclass(frozen=True, slots=True)
class Voices:
    """What a pilot says of m forms and of the similarity to the policy.

    Attributes:
        agreements: float64 (m,), each form's correlation with the similarity; NaN for a form that
            gives every ad the same answer or none.
        centers, scales: float64 (m,), mean and standard deviation of each form's margins.
        weights: float64 (m,), 0 for forms that are not kept; they sum to 1 over standardised margins.
        similarity_center, similarity_scale: of the similarity.
        similarity_weight: beside the forms' 1.
        slope, offset: margin = offset + slope * sum, so that the mean probability is the prior.
        agreement: correlation of the kept forms' sum with the similarity.
    """

    agreements: np.ndarray
    centers: np.ndarray
    scales: np.ndarray
    weights: np.ndarray
    similarity_center: float
    similarity_scale: float
    similarity_weight: float
    slope: float
    offset: float
    agreement: float

    def margins(self, answers: np.ndarray, similarity: np.ndarray) -> np.ndarray:
        """Return the committee's margins, float64 (n,), of answers (n, m) and similarity (n,)."""
        kept = self.weights > 0
        heard = add_up(answers[:, kept], self.weights[kept], self.centers[kept], self.scales[kept])
        near = (similarity - self.similarity_center) / self.similarity_scale
        return self.offset + self.slope * (heard + self.similarity_weight * near)


def weigh_forms(
    answers: np.ndarray,
    similarity: np.ndarray,
    prior: float,
    labels: np.ndarray | None = None,
    own: int = 0,
) -> Voices:
    """Weigh forms by their correlation with the similarity; those below zero are left out.

    Where no form agrees with the policy, all speak alike, and the similarity as loud as they. With
    labels of both classes a voice's weight is the mean of its agreement and of how it ranks the
    labelled ads (2 AUC - 1, Somers' D), the one counted as ``PRIOR_LABELS`` labels, the other as
    the harmonic mean of the classes' counts.

    Args:
        answers: float (n, m), each form's margins on the pilot's ads, log-odds.
        similarity: float (n,), of the same ads to the policy.
        prior: share of positive ads, in (0, 1).
        labels: int (n,), 1 positive, 0 negative, -1 unknown; or None.
        own: so many first forms are the task's own. Where one is given, others are heard only if
            their claim is larger than the least of theirs.

    Raises:
        ValueError: fewer than two ads, or a similarity or all forms that do not vary: nothing
            can be told from them.
    """
    answers, similarity = np.asarray(answers, np.float64), np.asarray(similarity, np.float64)
    usable = np.isfinite(answers).all(axis=0) & (np.ptp(answers, axis=0) > 0)
    if len(similarity) < 2 or not np.ptp(similarity) > 0 or not usable.any():
        raise ValueError("the pilot's ads do not differ in what the model says of them")
    centers, scales = answers.mean(axis=0), answers.std(axis=0)
    near, spread = float(similarity.mean()), float(similarity.std())
    anchor = (similarity - near) / spread
    standard = np.zeros_like(answers)
    standard[:, usable] = (answers[:, usable] - centers[usable]) / scales[usable]
    agreements = np.where(usable, standard.T @ anchor / len(anchor), np.nan)
    weights, beside = np.where(usable, agreements, 0.0), SIMILARITY_WEIGHT
    evidence = _evidence(labels)
    if labels is not None and evidence:
        ranked = rank_agreements(np.column_stack([standard, anchor]), labels)
        claims = np.append(weights, SIMILARITY_CLAIM)
        claims = (PRIOR_LABELS * claims + evidence * ranked) / (PRIOR_LABELS + evidence)
        weights, beside = np.where(usable, claims[:-1], 0.0), float(max(claims[-1], 0.0))
    weights = np.maximum(weights, 0.0)
    if own:
        weights[own:][weights[own:] < weights[:own].min()] = 0.0
    weights[np.argsort(-weights, kind="stable")[MAX_MEMBERS:]] = 0.0
    if not weights.any():
        weights, beside = usable.astype(np.float64), 1.0
    # Forms that contradict each other everywhere leave nothing to standardise.
    loud = max(float((standard @ weights).std()), 1e-9)
    if evidence:
        beside /= loud
    weights /= loud
    heard = standard @ weights
    total = heard + beside * anchor
    slope = SLOPE / max(float(total.std()), 1e-9)
    offset = brentq(lambda shift: expit(slope * total + shift).mean() - prior, -1e3, 1e3)
    return Voices(
        agreements=agreements,
        centers=centers,
        scales=scales,
        weights=weights,
        similarity_center=near,
        similarity_scale=spread,
        similarity_weight=beside,
        slope=slope,
        offset=float(offset),
        agreement=float(np.corrcoef(heard, anchor)[0, 1]) if heard.std() > 0 else 0.0,
    )


def add_up(
    columns: np.ndarray, weights: np.ndarray, centers: np.ndarray, scales: np.ndarray
) -> np.ndarray:
    """Return the weighted sum of standardised columns, float64 (n,).

    Column by column, not as a matrix product: each row's sum is its own, whatever rows stand beside it.

    Args:
        columns: float (n, m); NaN stays NaN.
        weights: float (m,).
        centers: float (m,), taken from each column.
        scales: float (m,), above 0; each column is divided by its own.
    """
    found = np.zeros(len(columns))
    for column, weight, center, scale in zip(columns.T, weights, centers, scales, strict=True):
        found += weight * (column.astype(np.float64) - center) / scale
    return found


def rank_agreements(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return 2 AUC - 1 of each column, float64 (m,); ties count half.

    Args:
        scores: float (n, m).
        labels: int (n,), 1 positive, 0 negative, others left out; both are there.
    """
    positive, negative = labels == 1, labels == 0
    ranks = rankdata(scores[positive | negative], axis=0)
    mine = positive[positive | negative]
    n_positive, n_negative = int(positive.sum()), int(negative.sum())
    wins = ranks[mine].sum(axis=0) - n_positive * (n_positive + 1) / 2
    return 2.0 * wins / (n_positive * n_negative) - 1.0


def _evidence(labels: np.ndarray | None) -> float:
    """Return the harmonic mean of both classes' counts; 0 without one of them."""
    if labels is None:
        return 0.0
    positive, negative = int((labels == 1).sum()), int((labels == 0).sum())
    return 2.0 * positive * negative / (positive + negative) if positive and negative else 0.0
