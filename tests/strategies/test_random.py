"""Random: another seed is another sample, and a propensity is the share of open ads drawn."""

from __future__ import annotations

from pipelines.strategies.random import Random
from tests.strategies.test_contract import ADS, known, pooled, rows


def test_the_seed_draws_and_the_score_of_the_model_does_not() -> None:
    given = rows()
    drawn = [set(pooled(Random(), given, known(seed)).keys) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    other = rows()
    other.margins[:] = other.margins[::-1].copy()
    assert set(pooled(Random(), other, known(1)).keys) == drawn[0]


def test_the_propensity_is_the_share_drawn() -> None:
    picks = Random().choose(pooled(Random(), rows(), known()), 20, known())
    assert {pick.propensity for pick in picks} == {20 / ADS}
