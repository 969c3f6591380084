"""The contract of a proxy: texts to features, of which ``pipelines.numerics.cascade`` fits a student.

A proxy is one file of this room and one line in `registry`.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence

import numpy as np

from models.backends.base import Glance, Labeler


class Proxy(abc.ABC):
    """Makes features of ads.

    Args:
        labeler: whose answers are to be foretold.
    """

    def __init__(self, labeler: Labeler) -> None:
        self.labeler = labeler

    @abc.abstractmethod
    def features(self, texts: Sequence[str], glance: Glance) -> np.ndarray:
        """Return float32 (n, d), of an ad by the ad alone, NaN where there are none.

        Args:
            texts: n ads.
            glance: what `Labeler.glance` says of them.
        """
