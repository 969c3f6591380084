"""Text of strangers, shown so that it hides and steers nothing: marks on a page, escapes in a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import regex

_MARK_NAMES = {
    0x7F: "DEL", 0x85: "NEL", 0xAD: "SHY", 0x34F: "CGJ", 0x61C: "ALM", 0x200B: "ZWSP", 0x200C: "ZWNJ",
    0x200D: "ZWJ", 0x200E: "LRM", 0x200F: "RLM", 0x2028: "LS", 0x2029: "PS", 0x202A: "LRE",
    0x202B: "RLE", 0x202C: "PDF", 0x202D: "LRO", 0x202E: "RLO", 0x2060: "WJ", 0x2066: "LRI",
    0x2067: "RLI", 0x2068: "FSI", 0x2069: "PDI", 0xFEFF: "BOM",
}  # fmt: skip
_BREAKS = "\r\x85\u2028\u2029"
# More marks on one letter than any script needs climb over the lines around it.
_STACK_SHOWN = 6

# Scripts that are written with joiners: one after such a letter is spelling, not hiding.
_JOINED = "".join(
    rf"\p{{scx={script}}}"
    for script in [
        "Arab",
        "Syrc",
        "Mand",
        "Nkoo",
        "Mong",
        "Deva",
        "Beng",
        "Guru",
        "Gujr",
        "Orya",
        "Taml",
        "Telu",
        "Knda",
        "Mlym",
        "Sinh",
        "Khmr",
        "Mymr",
    ]
)
_EMOJI = r"\p{Extended_Pictographic}(?:\p{Emoji_Modifier}|[\uFE0E\uFE0F])?"
_HIDDEN = r"(?![\n\t])[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]"
_STACKED = r"(?:(?!\p{Default_Ignorable_Code_Point})[\p{Mn}\p{Me}])"
# As in templates/review/page.js. Marks behind something hidden would sit on its box.
_SPECIAL = regex.compile(
    rf"(?<spelling>{_EMOJI}(?:\u200D{_EMOJI})*|[0-9#*]\uFE0F\u20E3|"
    rf"(?!\p{{Default_Ignorable_Code_Point}})[{_JOINED}][\u200C\u200D](?=[^\u200C\u200D]))|"
    rf"(?<run>(?<one>{_HIDDEN})(?P=one)*)(?<after>{_STACKED}*)|"
    rf"(?<pile>{_STACKED}{{{_STACK_SHOWN + 1},}})"
)


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
    end = 0
    for found in _SPECIAL.finditer(text):
        plain, pile = text[end : found.start()], found["pile"] or ""
        end = found.end()
        parts = (
            ("plain", plain + (found["spelling"] or "") + pile[:_STACK_SHOWN]),
            ("hidden", found["run"]),
            ("stacked", found["after"] or pile[_STACK_SHOWN:]),
        )
        yield from ((kind, run) for kind, run in parts if run)
    if text[end:]:
        yield "plain", text[end:]


def _mark_name(char: str) -> str:
    code = ord(char)
    if code < 0x20:
        # Unicode has a picture for each of these, whose name ends in what it stands for.
        return unicodedata.name(chr(0x2400 + code)).removeprefix("SYMBOL FOR ").upper()
    return _MARK_NAMES.get(code, f"U+{code:04X}")
