"""Cells that no spreadsheet takes for a formula, a number or a date, and back.

Spreadsheets guess what a cell of a CSV file is. ``=…`` runs; ``00123`` becomes 123, ``1e5`` 100000,
``1-2`` a day, and a long number loses its last digits, for good once the file is saved. A leading
apostrophe leaves a cell a text. Where a program splits a row at a semicolon, a tab or a line end
*inside* a text (the separator depends on its language, and LibreOffice's dialog offers three at
once), what follows is a cell of its own, which no apostrophe protects: there the separating character
gives way to one that looks like it and separates nothing.
"""

from __future__ import annotations

import re
import unicodedata

# A cell that starts with one of these is a formula to a spreadsheet.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_BLANKS = " \u00a0\ufeff\u200b"
# What may separate cells or rows, and what stands in for it. Each pair is the same text after
# normalisation (``pipelines.text``): a full-width semicolon, and white space.
_STAND_INS = {";": "\uff1b", "\t": "\u2003", "\n": "\u2028", "\r": "\u2029"}
_TO_STAND_INS = str.maketrans(_STAND_INS)
_FROM_STAND_INS = str.maketrans({new: old for old, new in _STAND_INS.items()})
_RUN = "[" + _BLANKS + "".join(_STAND_INS) + "".join(_STAND_INS.values()) + "]"
# The look-behind keeps it linear: a run is tried from its beginning only.
_BEFORE_FORMULA = re.compile(rf"(?<!{_RUN}){_RUN}+(?=([=＝]|[-+@－＋＠]))")
# What a line that begins like a list item ("- today only") needs to do any harm: a function, a
# program (DDE) or another sheet.
_HARM = re.compile(r"\w\(|\||![$\w]")

# Longer texts with words in them are no dates.
_MAX_DATE_CHARS = 40
_MAX_DATE_WORDS = 3
_LETTERS = re.compile(r"[^\W\d_]+")
# Truth values, as spreadsheets write them in several languages, and the results of formulas that failed.
_CONSTANTS = (
    "true false wahr falsch vrai faux verdadero falso vero verdadeiro waar onwaar prawda fałsz sant "
    "falskt sand falsk sann usann doğru yanlış pravda nepravda истина ложь "
    "#n/a #null! #div/0! #value! #ref! #name? #num! #spill! #calc!"
)
# Words of dates, times and amounts in the languages of most spreadsheets, as far as they are longer
# than two letters and ASCII: words in other scripts count anyway.
_WORDS = (
    # Months and their short forms: English, German, French, Spanish, Italian, Portuguese, Dutch,
    # Polish, Scandinavian, Indonesian, Turkish.
    "january february march april may june july august september october november december "
    "jan feb mar apr jun jul aug sep sept oct nov dec "
    "januar februar mai juni juli oktober dezember mrz okt dez "
    "janvier mars avril juin juillet septembre octobre novembre janv avr juil "
    "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre "
    "ene abr ago dic "
    "gennaio febbraio aprile maggio giugno luglio settembre ottobre dicembre gen mag giu lug set ott "
    "janeiro fevereiro maio junho julho setembro outubro novembro dezembro fev out "
    "januari februari maart mei augustus mrt "
    "stycznia lutego marca kwietnia maja czerwca lipca sierpnia listopada grudnia "
    "marts maj desember des augusti "
    "maret juni agustus ocak mart nisan haziran temmuz ekim "
    # Days.
    "monday tuesday wednesday thursday friday saturday sunday mon tue wed thu fri sat sun "
    "montag dienstag mittwoch donnerstag freitag samstag sonntag "
    "lundi mardi mercredi jeudi vendredi samedi dimanche lunes martes jueves viernes domingo "
    # Amounts.
    "usd eur gbp chf cad aud jpy cny inr brl mxn pln czk sek nok dkk lei kr rs rp rm fr tl ft"
)
_KNOWN_CONSTANTS, _KNOWN_WORDS = frozenset(_CONSTANTS.split()), frozenset(_WORDS.split())


def safe_cell(text: str) -> str:
    """Return text that no spreadsheet takes for a formula, a number or a date.

    It begins with an apostrophe where the text alone would be taken for one. What separates cells or
    rows before a formula further on has its stand-in. Everything else is as it was.
    """
    return _exchanged(f"'{text}" if _is_guessed(text) else text, _TO_STAND_INS)


def unprotected(cell: str) -> str:
    """Return a cell without what :func:`safe_cell` did to it.

    A text that looks protected by itself loses that too: compare both forms.
    """
    text = _exchanged(cell, _FROM_STAND_INS)
    return text[1:] if text.startswith("'") and _is_guessed(text[1:]) else text


def _is_guessed(text: str) -> bool:
    """Tell whether a spreadsheet may take a text for something else."""
    return text.lstrip(_BLANKS).startswith(_FORMULA_STARTS) or _is_value(text)


def _is_value(text: str) -> bool:
    """Tell whether a text may be a number, an amount, a date, a time or a truth value somewhere.

    It may be one without need (``5 km``, ``12a``): an apostrophe too many harms nothing.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().strip()
    numeric = next((place for place, char in enumerate(folded) if char.isnumeric()), None)
    if folded in _KNOWN_CONSTANTS or numeric is None:
        return folded in _KNOWN_CONSTANTS
    if len(folded) > _MAX_DATE_CHARS:
        # Only digits and signs go on for longer.
        return not any(char.isalpha() for char in folded)
    words = _LETTERS.findall(folded)
    if len(words) > _MAX_DATE_WORDS:
        return False
    first = _LETTERS.search(folded)
    if first and first.start() < numeric and not _leads(first[0], folded[first.end() :]):
        return False
    return all(len(word) <= 2 or _is_word(word) for word in words)


def _leads(word: str, rest: str) -> bool:
    """Tell whether a date or an amount may begin with a word: ``Mar 1``, ``kr 5``, ``R$ 5``."""
    return _is_word(word) or unicodedata.category(rest[0]) == "Sc"


def _is_word(word: str) -> bool:
    return word in _KNOWN_WORDS or not word.isascii()


def _exchanged(text: str, table: dict[int, str]) -> str:
    """Exchange what separates cells or rows, or its stand-ins, where a formula follows."""
    harm = max((match.start() for match in _HARM.finditer(text)), default=-1)

    def exchange(run: re.Match[str]) -> str:
        harmless = run[1] not in "=＝" and run.end() > harm
        return run[0] if harmless else run[0].translate(table)

    return _BEFORE_FORMULA.sub(exchange, text)
