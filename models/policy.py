"""Which ads a policy's own words are near to: a first signal that needs neither labels nor a prompt."""

from __future__ import annotations

import re

import numpy as np

from models.encoder import SentenceEncoder

_SENTENCES = re.compile(r"(?<=[.!?])\s+")
_CLAUSES = re.compile(r"(?<=[;:])\s+")
# A sentence that says what is allowed; the other pattern is what looks like one and forbids.
_ALLOWS = re.compile(
    r"\b(?:is|are|do|does|was|were)(?: not|n't)\b|\bnor\b"
    r"|\b(?:allowed|permitted|acceptable|fine|exempt|exceptions?|except)\b",
    re.IGNORECASE,
)
_FORBIDS = re.compile(
    r"\b(?:not|never)\s+(?:be\s+)?(?:allowed|permitted|acceptable|fine)\b"
    r"|\b(?:must|may|can|should)(?: not|n't)\b|\bcannot\b|\b(?:prohibited|forbidden|banned)\b",
    re.IGNORECASE,
)


def violating_clauses(policy: str) -> list[str]:
    """Divide a policy into clauses and leave out the sentences that say what is allowed.

    The first sentence always counts: policies begin with what they forbid. Told by English words;
    a policy in another language counts whole.

    Returns:
        At least one clause, if the policy is not blank.
    """
    sentences = [part for part in _SENTENCES.split(policy.strip()) if part]
    kept = [
        sentence
        for place, sentence in enumerate(sentences)
        if not place or not _ALLOWS.search(sentence) or _FORBIDS.search(sentence)
    ]
    return [clause for sentence in kept for clause in _CLAUSES.split(sentence) if clause]


class PolicySimilarity:
    """An ad's cosine with the nearest clause that says what violates.

    Attributes:
        encoder: what embeds both.
        policy: whose clauses.
    """

    def __init__(self, encoder: SentenceEncoder, policy: str) -> None:
        """Embeds the policy's clauses."""
        self.encoder, self.policy = encoder, policy
        self._clauses = _unit(encoder.encode(violating_clauses(policy)))

    def of_vectors(self, vectors: np.ndarray) -> np.ndarray:
        """Return float64 (n,), at most 1, of the encoder's vectors (n, dim); NaN stays NaN."""
        unit = _unit(vectors)
        # Row by row: a matrix product's rounding would depend on a row's neighbours.
        return np.max([(unit * clause).sum(axis=1) for clause in self._clauses], axis=0)


def _unit(vectors: np.ndarray) -> np.ndarray:
    wide = vectors.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
