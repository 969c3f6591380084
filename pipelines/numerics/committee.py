"""Which prompt forms to listen to, without a single label: those that agree with the policy's words.

A small language model ranks ads well by one wording and backwards by another, and which is which
changes with the policy. The similarity of an ad to the policy in a sentence encoder ranks less well,
but hardly ever backwards: it tells the forms apart, and their sum ranks better than either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

# Forms that are kept; each costs its tokens on every ad.
MAX_MEMBERS = 6
# Of the similarity itself, beside members that weigh 1 together and are standardised again.
SIMILARITY_WEIGHT = 0.25
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


def weigh_forms(answers: np.ndarray, similarity: np.ndarray, prior: float) -> Voices:
    """Weigh forms by their correlation with the similarity; those below zero are left out.

    Where no form agrees with the policy, all speak alike, and the similarity as loud as they.

    Args:
        answers: float (n, m), each form's margins on the pilot's ads, log-odds.
        similarity: float (n,), of the same ads to the policy.
        prior: share of positive ads, in (0, 1).

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
    weights = np.where(usable, np.maximum(agreements, 0.0), 0.0)
    weights[np.argsort(-weights, kind="stable")[MAX_MEMBERS:]] = 0.0
    beside = SIMILARITY_WEIGHT
    if not weights.any():
        weights, beside = usable.astype(np.float64), 1.0
    heard = standard @ weights
    # Forms that contradict each other everywhere leave nothing to standardise.
    weights /= max(float(heard.std()), 1e-9)
    heard = standard @ weights
    total = heard + beside * anchor
    slope = SLOPE / float(total.std())
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
