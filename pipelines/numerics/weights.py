"""Weights of ads: exact decimals while they are added up, then integers of one unit for a whole corpus.

A decimal is kept as text (``0.0004``, ``1.2E+6``), which travels as it is. The unit is a power of ten,
the same in whatever order a corpus is read: as fine as the weights are written, at least a thousandth,
and coarser only where their sum would need more than ``DIGITS`` digits. So weights keep their ratios
exactly at any scale; weights that span more digits than that are off by half a unit at most, which is
5e-18 of the corpus's weight.
"""

from __future__ import annotations

import decimal
import functools
from collections.abc import Iterable

# Of a corpus's weight in its unit: doubles hold them exactly, and 64 bits the sums of thousands of parts
# that overlap.
DIGITS = 15
# Of a unit that is no finer than need be.
THOUSANDTHS = -3
# Any sum of doubles is exact in this: they reach from 1e-324 to 1e308.
_EXACT = decimal.Context(prec=2000, rounding=decimal.ROUND_HALF_EVEN, traps=[decimal.Inexact])


@functools.lru_cache(maxsize=1 << 14)
def exact(weight: float) -> str:
    """Return a weight as the decimal that people would write for it, the shortest that gives it back."""
    return str(_EXACT.normalize(decimal.Decimal(repr(weight))))


def total(weights: Iterable[str]) -> str:
    """Return the exact sum of decimals, written as finely as the finest of them."""
    found = decimal.Decimal(0)
    for weight in weights:
        found = _EXACT.add(found, decimal.Decimal(weight))
    return str(found)


@functools.lru_cache(maxsize=64)
def unit_of(whole: str) -> int:
    """Return the power of ten that is the unit of a corpus whose weights add up to this."""
    sum_ = decimal.Decimal(whole)
    finest = sum_.as_tuple().exponent
    assert isinstance(finest, int), "weights are finite"
    needed = sum_.adjusted() + 1 - DIGITS if sum_ else THOUSANDTHS
    return max(min(finest, THOUSANDTHS), needed)


@functools.lru_cache(maxsize=1 << 14)
def in_units(weight: str, unit: int) -> int:
    """Return a decimal as a whole number of units, rounded half to even."""
    return int(
        decimal.Decimal(weight).scaleb(-unit, _EXACT).to_integral_value(decimal.ROUND_HALF_EVEN)
    )


def from_units(units: int | float, unit: int) -> float:
    """Return what a number of units is as a weight."""
    return float(decimal.Decimal(units).scaleb(unit, _EXACT))
