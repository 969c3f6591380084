"""Ours pick what scikit-activeml's and small-text's own implementations were seen to pick.

The picks were recorded by `python -m benchmarks.strategy_oracles`.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from benchmarks.strategy_oracles import ours, problem, recorded

# scikit-activeml takes the origin for a row that was drawn; without it the picks are the same.
DIFFERENT = {"badge, as it is"}


@functools.cache
def both() -> tuple[dict[str, list[int]], dict[str, list[int]], np.ndarray]:
    given = problem()
    sizes = np.bincount(given["cluster"])[given["cluster"]]
    return ours(given), recorded(), sizes


def test_every_recorded_strategy_is_compared() -> None:
    own, theirs, _ = both()
    assert own.keys() == theirs.keys() and len(own) == 12
    assert all(len({*picks}) == 20 for picks in theirs.values())


@pytest.mark.parametrize("name", [name for name in recorded() if name not in DIFFERENT])
def test_the_picks_are_the_peers(name: str) -> None:
    own, theirs, sizes = both()
    if name == "clusters":
        # Of clusters of one size scikit-activeml draws the next one.
        assert {*own[name]} == {*theirs[name]}
        assert sizes[own[name]].tolist() == sizes[theirs[name]].tolist()
    else:
        assert own[name] == theirs[name]
