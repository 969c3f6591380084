"""BALD: ads whose label would tell most about which of the heads is right."""

from __future__ import annotations

import numpy as np

from pipelines.numerics.acquisition import mutual_information
from pipelines.strategies.base import Context, Rows
from pipelines.strategies.heads import MEMBERS, OfHeads


class Bald(OfHeads):
    """Bayesian active learning by disagreement (Houlsby and others, 2011), ten bootstrap heads as posterior.

    Ensembles measure this better than Monte-Carlo dropout (Beluch and others, CVPR 2018), and a linear head
    has no dropout. The same number is the committee's mean divergence from its consensus (McCallum and
    Nigam, 1998).
    """

    name = "bald"
    suits = "some labels of each class; labels that tell heads apart"
    members = MEMBERS

    def value(self, rows: Rows, context: Context) -> np.ndarray:
        """Return the mutual information of label and head, nats."""
        return mutual_information(self.margins(context.project(rows), context))
