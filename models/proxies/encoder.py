"""The sentence encoder's vector, which every ad gets anyway: a proxy that costs nothing more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.backends.base import Glance
from models.proxies.base import Proxy


class EncoderProxy(Proxy):
    """Features are the encoder's vector as it comes."""

    def features(self, texts: Sequence[str], glance: Glance) -> np.ndarray:
        """Return float32 (n, dim); see `Proxy`."""
        del texts
        return glance.encoded
