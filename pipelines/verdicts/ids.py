"""Ids that are whole numbers, and what is left of them once a program took them for such.

JavaScript, and pandas where a column has a gap, keep numbers as 64-bit floats: from 2^53 on neighbours
become one. Spreadsheets keep 15 digits, show fewer of long numbers (``1.23457E+16``), and drop zeros in
front. What comes back may then be the id of another ad, which is why it is found here what else a number
may have been.
"""

from __future__ import annotations

import bisect
import decimal
import unicodedata
from collections.abc import Iterable

from pipelines.verdicts.names import FLOAT_LIMIT, exact_number, is_float

_SHEET_DIGITS = 15
# Fewer digits in scientific notation tell nothing.
_LEAST_DIGITS = 5
_ROUNDINGS = (decimal.ROUND_HALF_UP, decimal.ROUND_HALF_EVEN, decimal.ROUND_DOWN)


class NumericIds:
    """Some ids, found by what a program may have made of them.

    Memory: two words for each id that is a whole number.

    Args:
        ids: in any order; those that are no numbers are left aside.
    """

    def __init__(self, ids: Iterable[str] = ()) -> None:
        found = sorted((number, id) for id in ids if (number := exact_number(id)) is not None)
        self._numbers, self._ids = [number for number, _ in found], [id for _, id in found]

    def behind(self, written: str) -> list[str]:
        """Return the ids that a program may have written so, in order of their numbers.

        What it cannot have written (``…993`` of an id from 2^53 on, ``007``) is nobody's but its own.
        """
        number = exact_number(written)
        if number is None or not self._numbers:
            return []
        reach = _reach(written, number)
        first = bisect.bisect_left(self._numbers, number - reach)
        last = bisect.bisect_right(self._numbers, number + reach)
        return [id for id in self._ids[first:last] if may_become(id, written)]


def may_become(id: str, written: str) -> bool:
    """Tell whether a program that takes an id for a number may write it so."""
    written = unicodedata.normalize("NFKC", written).strip()
    was, number = exact_number(id), exact_number(written)
    if was is None or number is None:
        return False
    digits = written.lstrip("+-")
    if was == number:
        # Zeros in front are only there where nobody took the id for a number.
        return id == written or is_float(written) or digits == "0" or not digits.startswith("0")
    if abs(was) >= FLOAT_LIMIT and number in _as_floats(was):
        return True
    kept = _kept_digits(written)
    return was.adjusted() >= kept >= _LEAST_DIGITS and any(
        was.normalize(decimal.Context(prec=kept, rounding=way)) == number for way in _ROUNDINGS
    )


def is_rounded(written: str) -> bool:
    """Tell whether a number is so large, and written so, that its last digits are lost."""
    number = exact_number(written)
    return number is not None and is_float(written) and abs(number) >= FLOAT_LIMIT


def _as_floats(number: decimal.Decimal) -> tuple[decimal.Decimal, ...]:
    """Return a number as the nearest 64-bit float, and as its shortest form, which JavaScript writes."""
    double = float(number)
    return decimal.Decimal(double), decimal.Decimal(repr(double))


def _kept_digits(written: str) -> int:
    """Return how many digits of an id a spreadsheet kept that wrote so."""
    mantissa, exponent, _ = written.lower().partition("e")
    return min(_SHEET_DIGITS, sum(map(str.isdigit, mantissa))) if exponent else _SHEET_DIGITS


def _reach(written: str, number: decimal.Decimal) -> decimal.Decimal:
    """Return how far an id may be from what became of it."""
    return decimal.Decimal(10) ** max(0, number.adjusted() - _kept_digits(written) + 1)
