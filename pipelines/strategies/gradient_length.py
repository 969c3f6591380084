"""Expected gradient length: ads whose label would move the head furthest."""

from __future__ import annotations

import numpy as np

from pipelines.numerics import acquisition
from pipelines.strategies.base import Context, Rows
from pipelines.strategies.heads import OfHeads


class GradientLength(OfHeads):
    """Expected model change as the expected length of the head's gradient (Settles, Craven and Ray, 2007).

    Vectors have length 1 here, so the length goes by the head's doubt alone: it ranks as uncertainty
    sampling by that head would, whatever model labels the corpus. Of a language model's adapters it would
    need a backward pass an ad, which is not done.
    """

    name = "gradient-length"
    suits = "some labels of each class; labels that move the head most"

    def value(self, rows: Rows, context: Context) -> np.ndarray:
        """Return the expected length of the gradient."""
        vectors = context.project(rows)
        return acquisition.gradient_length(self.margins(vectors, context)[:, 0], vectors)
