"""When two spellings are one name: of experts and labels, of whole numbers, of what is not there.

Everything here works on text alone, so that task file, exporters and every reader of verdicts mean the
same. Which name a person, a label or an ad has, their own modules find out.
"""

from __future__ import annotations

import decimal
import functools
import re
import unicodedata

from pipelines.text import IGNORABLE, normalize_text

# From here on a 64-bit float has no room for all whole numbers; JavaScript, and pandas where a column
# has a gap, keep numbers as such floats.
FLOAT_LIMIT = 2**53
# What is invisible and says nothing in a name that people see. The joiners U+200C and U+200D stay:
# Persian, Indic scripts and emoji are written with them.
_CLUTTER = re.compile(
    "[\u0000-\u0008\u000e-\u001b\u007f-\u0084\u0086-\u009f\u00ad\u061c\u200b\u200e\u200f"
    "\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
# What pandas reads as a missing value, to the letter, unless it is told not to.
_PANDAS_WORDS = (
    "#N/A #NA -1.#IND -1.#QNAN -NaN -nan 1.#IND 1.#QNAN <NA> N/A NA NULL NaN None n/a nan null"
)
READ_AS_MISSING = frozenset(_PANDAS_WORDS.split())
# Digits, and a fraction of zeros alone; three of them may as well be thousands.
_PLAIN = re.compile(r"[+-]?\d+(?:[.,](?!000$)0*)?")
_SCIENTIFIC = re.compile(r"[+-]?\d+(?:[.,]\d+)?[eE][+-]?\d{1,2}")


@functools.lru_cache(4096)
def fold_name(name: str) -> str:
    """Return a name as it is compared: one string however it is spelled, "" when nothing is left.

    Case, width and composition (Unicode NFKC and case folding) count for nothing, nor do white space at
    the ends and its amount within, invisible and direction marks. A whole number is its digits: ``1.0``,
    ``01`` and full-width ``1`` are ``1``, as spreadsheets and data frames have it.
    """
    folded = normalize_text(name)
    # What folding leaves may hide two names behind one look, or hold half a surrogate pair.
    kept = (c for c in folded if unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    folded = normalize_text(IGNORABLE.sub("", "".join(kept)))
    number = whole_number(folded)
    return folded if number is None else str(number)


def tidy_name(name: str) -> str:
    """Return a name as people are shown it: composed (NFC), white space folded, without clutter."""
    return " ".join(unicodedata.normalize("NFC", _CLUTTER.sub("", name)).split())


def exact_number(text: str) -> decimal.Decimal | None:
    """Return the whole number that a text writes, with a fraction of zeros or as ``1.5e10``; else None.

    ``1.000`` is none: it may be one or a thousand.
    """
    text = unicodedata.normalize("NFKC", text).strip()
    if len(text) > 40 or not (_PLAIN.fullmatch(text) or _SCIENTIFIC.fullmatch(text)):
        return None
    number = decimal.Decimal(text.replace(",", "."))
    return number if number == number.to_integral_value() else None


def whole_number(text: str) -> int | None:
    """Return :func:`exact_number` as an int."""
    number = exact_number(text)
    return None if number is None else int(number)


def is_float(text: str) -> bool:
    """Tell whether a number is written as floats are: with a fraction, or in scientific notation."""
    plain = unicodedata.normalize("NFKC", text)
    return exact_number(plain) is not None and any(char in plain for char in ".,eE")
