"""Query by committee: ads on which heads trained on resampled labels are divided."""

from __future__ import annotations

import numpy as np

from pipelines.numerics.acquisition import vote_entropy
from pipelines.strategies.base import Context, Rows
from pipelines.strategies.heads import MEMBERS, OfHeads


class Committee(OfHeads):
    """Vote entropy (Seung and others, 1992; Dagan and Engelson, 1995) of ten heads by query by bagging.

    Members that vote alike leave many ads with the same score; among these, keys decide, which are hashes:
    a draw. How far members are from their mean instead of how they vote is ``bald``.
    """

    name = "committee"
    suits = "some labels of each class, and ads on which they leave room for doubt"
    members = MEMBERS

    def value(self, rows: Rows, context: Context) -> np.ndarray:
        """Return the entropy of the heads' votes, nats."""
        return vote_entropy(self.margins(context.project(rows), context))
