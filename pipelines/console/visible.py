"""Text of strangers, shown so that it hides and steers nothing: marks on a page, escapes in a terminal."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

_MARK_NAMES = {
    0x7F: "DEL", 0x85: "NEL", 0xAD: "SHY", 0x34F: "CGJ", 0x61C: "ALM", 0x200B: "ZWSP", 0x200C: "ZWNJ",
    0x200D: "ZWJ", 0x200E: "LRM", 0x200F: "RLM", 0x2028: "LS", 0x2029: "PS", 0x202A: "LRE",
    0x202B: "RLE", 0x202C: "PDF", 0x202D: "LRO", 0x202E: "RLO", 0x2060: "WJ", 0x2066: "LRI",
    0x2067: "RLI", 0x2068: "FSI", 0x2069: "PDI", 0xFEFF: "BOM",
}  # fmt: skip
# Letters and marks that show nothing, by Unicode's Default_Ignorable_Code_Point and its blanks.
_BLANKS = {0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0}
_SELECTORS = (range(0x180B, 0x1810), range(0xFE00, 0xFE10), range(0xE0000, 0xE1000))
# Scripts that are written with joiners: one after such a letter is spelling, not hiding.
_JOINED = {
    "ARABIC", "SYRIAC", "MANDAIC", "NKO", "MONGOLIAN", "DEVANAGARI", "BENGALI", "GURMUKHI",
    "GUJARATI", "ORIYA", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "KHMER", "MYANMAR",
}  # fmt: skip
_JOINERS, _PICTURED = "\u200c\u200d", "\ufe0e\ufe0f"
_BREAKS = "\r\x85\u2028\u2029"
# More marks on one letter than any script needs climb over the lines around it.
_STACK_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a shown text: plain, or (with ``spoken``) a mark in place of what hides."""

    text: str
    spoken: str = ""


def printable(text: str, limit: int = 200) -> str:
    """Return text that cannot steer a terminal.

    Control, bidirectional and other invisible characters are shown as escapes, and so are piled up
    marks; white space is folded; what is longer than ``limit`` characters ends in an ellipsis.
    """
    shown = "".join(
        run if kind == "plain" else "".join(f"\\u{ord(char):04x}" for char in run)
        for kind, run in _runs(" ".join(text.split()))
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def visible(text: str, limit: int) -> tuple[Piece, ...]:
    """Return a text as pieces: what is invisible, turns text around or piles up becomes a mark.

    Args:
        text: any string, lone surrogates included.
        limit: characters shown at most; a last mark says how many more there are.

    Returns:
        At least one piece. No plain piece holds a control, format, private, unassigned or surrogate
        character, but for line feed, tab, and joiners and selectors where spelling needs them.
    """
    whole = text.replace("\r\n", "\n")
    found: list[Piece] = []
    for kind, run in _runs(whole[:limit]):
        if kind == "plain":
            found.append(Piece(run))
        elif kind == "stacked":
            found.append(Piece(f"+{len(run)}", f"{len(run)} more combining marks"))
        else:
            name = _mark_name(run[0])
            if len(run) > 1:
                found.append(
                    Piece(f"{name} ×{len(run)}", f"{len(run)} invisible characters {name}")
                )
            else:
                found.append(Piece(name, f"invisible character {name}"))
            if run[0] in _BREAKS:
                found.append(Piece("\n"))
    if len(whole) > limit:
        more = f"{len(whole) - limit:,} more characters"
        found += [Piece("…", more), Piece(f" {more}")]
    pieces: list[Piece] = []
    for piece in found:
        # Plain pieces beside each other are one.
        if pieces and not piece.spoken and not pieces[-1].spoken:
            piece = Piece(pieces.pop().text + piece.text)
        pieces.append(piece)
    return tuple(pieces) or (Piece("no text", "no text"),)


def _runs(text: str) -> Iterator[tuple[str, str]]:
    """Yield a text's parts in order, each with what becomes of it.

    ``plain`` is shown as it is, ``hidden`` are equal characters that nobody would see, ``stacked``
    are marks beyond what one letter can carry.
    """
    kinds = [_kind(text, place) for place in range(len(text))]
    keys = zip(kinds, text, strict=True)
    before = ""
    for (kind, _), group in itertools.groupby(
        keys, key=lambda item: (item[0], item[1] if item[0] == "hidden" else "")
    ):
        run = "".join(char for _, char in group)
        if kind == "stacked":
            # Marks behind something hidden would sit on its box.
            kept = 0 if before == "hidden" else _STACK_SHOWN
            if run[:kept]:
                yield "plain", run[:kept]
            run = run[kept:]
        if run:
            yield kind, run
        before = kind


def _kind(text: str, place: int) -> str:
    """Return what becomes of a character: ``plain``, ``stacked`` (on the one before) or ``hidden``."""
    char = text[place]
    if char in "\n\t":
        return "plain"
    category, code = unicodedata.category(char), ord(char)
    ignorable = code in _BLANKS or any(code in codes for codes in _SELECTORS)
    if category[0] == "C" or category in ("Zl", "Zp") or ignorable:
        return "plain" if _is_spelling(text, place) else "hidden"
    return "stacked" if category in ("Mn", "Me") else "plain"


def _is_spelling(text: str, place: int) -> bool:
    """Tell whether a joiner or selector belongs to an emoji or to a script that needs it."""
    char = text[place]
    before = text[place - 1] if place else ""
    after = text[place + 1] if place + 1 < len(text) else ""
    if not before:
        return False
    pictured = unicodedata.category(before)[0] == "S"
    if char in _PICTURED:
        return pictured or before in "0123456789#*‼⁉"
    if char not in _JOINERS or not after or after in _JOINERS:
        return False
    if unicodedata.name(before, "").split(" ")[0] in _JOINED:
        return True
    joins = char == "\u200d" and unicodedata.category(after) == "So"
    return joins and (pictured or before in _PICTURED)


def _mark_name(char: str) -> str:
    code = ord(char)
    if code < 0x20:
        # Unicode has a picture for each of these, whose name ends in what it stands for.
        return unicodedata.name(chr(0x2400 + code)).removeprefix("SYMBOL FOR ").upper()
    return _MARK_NAMES.get(code, f"U+{code:04X}")
