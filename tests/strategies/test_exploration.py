"""Exploration: equal draws from every part of the score range."""

from __future__ import annotations

import numpy as np

from pipelines.config import Selection
from pipelines.strategies.exploration import STRATA, Exploration
from tests.strategies.test_contract import ADS, known, pooled, rows


def test_each_stratum_gives_as_many() -> None:
    selection = Selection(budget=20, coverage_sample_rows=ADS)
    at = known(selection=selection)
    found = pooled(Exploration(), rows(), at)
    picks = Exploration().choose(found, 20, at)
    order = np.argsort(np.argsort(found.margins, kind="stable"), kind="stable")
    strata = [int(order[pick.rows[0]]) * STRATA // ADS for pick in picks]
    assert np.bincount(strata, minlength=STRATA).tolist() == [4] * STRATA
    # All ads are in the sample: what is left is the share of a stratum of 80.
    assert {pick.propensity for pick in picks} == {4 / 80}


def test_propensities_count_what_was_not_sampled() -> None:
    at = known(selection=Selection(budget=20, coverage_sample_rows=ADS // 4))
    found = pooled(Exploration(), rows(), at)
    picks = Exploration().choose(found, 20, at)
    # A chance of a quarter to be in the sample, then 4 draws of a stratum of 20.
    assert {pick.propensity for pick in picks} == {4 / 20 / 4}


def test_the_sample_is_as_large_as_the_task_says() -> None:
    assert Exploration().pool_rows(Selection(budget=20, coverage_sample_rows=500)) == 500
    assert Exploration().pool_rows(Selection(budget=600, coverage_sample_rows=500)) == 600
