"""Hashed words and pairs of words: a proxy without a second model's pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer

from models.backends.base import Glance, Labeler
from models.proxies.base import Proxy

DIMENSIONS = 4096


class WordsProxy(Proxy):
    """Features are an ad's words and pairs of words, hashed with a sign, of length 1.

    (Weinberger and others, "Feature Hashing for Large Scale Multitask Learning", ICML 2009.)
    """

    def __init__(self, labeler: Labeler) -> None:
        super().__init__(labeler)
        self._vectorizer = HashingVectorizer(
            n_features=DIMENSIONS, ngram_range=(1, 2), dtype=np.float32
        )

    def features(self, texts: Sequence[str], glance: Glance) -> np.ndarray:
        """Return float32 (n, 4096); see `Proxy`."""
        del glance
        return np.asarray(self._vectorizer.transform(texts).toarray())
