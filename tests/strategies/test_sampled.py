"""A sample of the corpus as pool, and seats by mass."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.config import Selection
from pipelines.strategies.core_set import CoreSet
from pipelines.strategies.random import Random
from pipelines.strategies.sampled import seats, uniform_scores
from tests.strategies.test_contract import known, part, rows


def test_the_pool_is_as_large_as_the_sample_or_the_budget() -> None:
    selection = Selection(budget=50, coverage_sample_rows=300)
    assert CoreSet().pool_rows(selection) == 300
    assert CoreSet().pool_rows(selection.model_copy(update={"budget": 500})) == 500


def test_what_is_surely_not_in_the_sample_need_not_travel() -> None:
    at = known(selection=Selection(budget=5, coverage_sample_rows=100))
    scores = CoreSet().score(rows(), at)
    kept = scores >= CoreSet().floor(at)
    assert 100 <= kept.sum() < 250 and len(scores) == at.open_ads == 400
    # The seed draws another sample; the budget alone is smaller still.
    assert (scores >= Random().floor(at)).sum() < kept.sum()


def test_the_order_is_drawn_by_key_and_seed() -> None:
    given = rows(300)
    whole = uniform_scores(given, 1)
    assert uniform_scores(part(given, np.arange(299, -1, -1)), 1).tolist() == whole[::-1].tolist()
    assert abs(np.corrcoef(whole, uniform_scores(given, 2))[0, 1]) < 0.2
    assert abs(np.corrcoef(whole, given.margins)[0, 1]) < 0.2


@pytest.mark.parametrize(
    ("mass", "wanted", "expected"),
    [
        ([1.0, 3.0], 4, [1, 3]),
        ([1.0, 1.0, 1.0], 4, [2, 1, 1]),
        ([0.1, 0.9], 1, [0, 1]),
        ([0.0, 0.0], 5, [0, 0]),
        ([5], 3, [3]),
    ],
)
def test_seats_go_by_mass(mass: list[float], wanted: int, expected: list[int]) -> None:
    assert seats(np.array(mass), wanted).tolist() == expected
