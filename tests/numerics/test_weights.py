"""Weights: exact sums in any order, and one unit that fits."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.numerics.weights import DIGITS, exact, from_units, in_units, total, unit_of


@given(
    st.lists(st.floats(0, 1e15, allow_subnormal=True), min_size=1, max_size=30),
    st.randoms(use_true_random=False),
)
def test_sums_are_those_of_fractions_in_any_order(weights: list[float], rng: random.Random) -> None:
    decimals = [exact(weight) for weight in weights]
    whole = total(decimals)
    assert Fraction(whole) == sum((Fraction(repr(weight)) for weight in weights), Fraction())
    rng.shuffle(decimals)
    cut = rng.randrange(len(decimals) + 1)
    parts = total([total(decimals[:cut]), total(decimals[cut:])])
    assert (Fraction(parts), unit_of(parts)) == (Fraction(whole), unit_of(whole))
    unit = unit_of(whole)
    units = [in_units(decimal, unit) for decimal in decimals]
    assert sum(units) <= 10**DIGITS + len(units)
    # Half a unit at most, and nothing at all while the digits suffice.
    off = [
        abs(Fraction(d) / Fraction(10) ** unit - n) for d, n in zip(decimals, units, strict=True)
    ]
    assert max(off) <= Fraction(1, 2)
    if unit == -3 or sum(units) < 10 ** (DIGITS - 1):
        assert max(off) == 0


@pytest.mark.parametrize(
    ("weights", "unit", "units"),
    [
        ([1.0, 2.5], -3, [1000, 2500]),
        ([0.0004, 0.0012], -4, [4, 12]),
        ([0.1, 0.2, 0.3], -3, [100, 200, 300]),
        ([1e-300, 3e-300], -300, [1, 3]),
        ([1e15, 3e15], 1, [10**14, 3 * 10**14]),
        ([0.0], -3, [0]),
        ([1e15, 1e-3], 1, [10**14, 0]),
    ],
)
def test_the_unit_is_as_fine_as_the_weights_are_written(
    weights: list[float], unit: int, units: list[int]
) -> None:
    decimals = [exact(weight) for weight in weights]
    assert unit_of(total(decimals)) == unit
    assert [in_units(decimal, unit) for decimal in decimals] == units
    assert from_units(units[0], unit) == weights[0]
