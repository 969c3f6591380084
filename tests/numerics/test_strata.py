import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.numerics.strata import stratified_exploration

seeds = st.integers(0, 2**32 - 1)
KEY = "{:032x}"


@given(st.lists(st.integers(-3, 3), max_size=40), st.integers(0, 50), st.integers(1, 12), seeds)
def test_exploration_draws_evenly_from_strata(scores, n_draws, n_strata, seed):
    n = len(scores)
    margins = np.array(scores, dtype=np.float32)
    keys = [f"{i * 0x9E3779B97F4A7C15 % 2**64:016x}{i:016x}" for i in range(n)]
    indices, propensity = stratified_exploration(margins, keys, n_draws, n_strata, seed)
    assert len(indices) == len(set(indices.tolist())) == min(n_draws, n)
    assert indices.dtype == np.int64 and propensity.dtype == np.float64
    assert ((propensity > 0) & (propensity <= 1)).all()
    assert n_draws < n or (propensity == 1).all()
    order = np.random.default_rng(seed).permutation(n)
    again, again_propensity = stratified_exploration(
        margins[order], [keys[i] for i in order], n_draws, n_strata, seed
    )
    assert order[again].tolist() == indices.tolist()
    assert again_propensity.tolist() == propensity.tolist()
    if n and n_draws:
        # Every stratum drawn from estimates its own size: the weights add up to the strata reached.
        estimate = (1 / propensity).sum()
        reached = min(n_strata, n, n_draws)
        assert estimate <= n + 1e-9
        assert reached < min(n_strata, n) or estimate == pytest.approx(n)


def test_exploration_by_example():
    margins = np.arange(10, dtype=np.float32)
    keys = [f"{i * 0x9E3779B97F4A7C15 % 2**64:016x}{i:016x}" for i in range(10)]
    indices, propensity = stratified_exploration(margins, keys, 3, 2, 0)
    # The odd draw goes to the highest stratum.
    assert [i >= 5 for i in indices] == [True, True, False]
    assert propensity.tolist() == [0.4, 0.4, 0.2]
    one = {stratified_exploration(margins, keys, 1, 1, seed)[0][0] for seed in range(40)}
    assert len(one) > 6


@pytest.mark.parametrize(
    ("margins", "n_draws", "n_strata", "text"),
    [
        ([1.0], 1, 1, "margins must hold 2 finite scores"),
        ([1.0, np.nan], 1, 1, "margins must hold 2 finite scores"),
        ([1.0, 2.0], -1, 1, "n_draws must be at least 0"),
        ([1.0, 2.0], 1, 0, "n_strata at least 1, got 1 and 0"),
    ],
)
def test_exploration_refuses(margins, n_draws, n_strata, text):
    keys = ["0" * 32, "1" * 32]
    with pytest.raises(ValueError, match=text):
        stratified_exploration(np.array(margins), keys, n_draws, n_strata, 0)
