"""The language model's own first layers, left early, beside the encoder's vector.

What a model is going to say is largely settled before its last layer (Schuster and others, "Confident
Adaptive Language Modeling", NeurIPS 2022), and its prompt need not be read for it: the layers see the ad alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.backends.base import Glance
from models.proxies.base import Proxy

LAYER = 8


class LayersProxy(Proxy):
    """Features are the mean hidden state behind layer 8, and the encoder's vector."""

    def features(self, texts: Sequence[str], glance: Glance) -> np.ndarray:
        """Return float32 (n, dim of both); raises as `Labeler.states` does."""
        return np.concatenate([self.labeler.states(texts, LAYER), glance.encoded], axis=1)
