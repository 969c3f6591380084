from __future__ import annotations

import numpy as np

from pipelines.jobs.minutes import kind_of
from pipelines.strategies.relevance import Relevance
from tests.strategies.cases import context_of, rows_of


def test_the_most_probably_positive_come_first() -> None:
    rows = rows_of(np.eye(4), [0.5, -2.0, 3.0, 0.0])
    scores = Relevance().score(rows, context_of(None))
    assert np.argsort(-scores).tolist() == [2, 0, 3, 1]
    assert kind_of(Relevance()) == "positives"
