"""Text of strangers: what hides is shown, and nothing steers a page or a terminal."""

from __future__ import annotations

import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from pipelines.console.visible import Piece, printable, visible
from tests.real_tools.browser.test_review_page import HOSTILE


def plain(*texts: str) -> tuple[Piece, ...]:
    return tuple(Piece(text) for text in texts)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("just words\tand\nlines", plain("just words\tand\nlines")),
        ("windows\r\nlines", plain("windows\nlines")),
        ("pay\u200bpal", (Piece("pay"), Piece("ZWSP", "invisible character ZWSP"), Piece("pal"))),
        ("\u202e\u202ex", (Piece("RLO ×2", "2 invisible characters RLO"), Piece("x"))),
        ("a\x00\x07", (Piece("a"), Piece("NULL", "invisible character NULL"), Piece("BELL", "invisible character BELL"))),
        ("\ud800", (Piece("U+D800", "invisible character U+D800"),)),
        ("a\u2028b", (Piece("a"), Piece("LS", "invisible character LS"), Piece("\nb"))),
        ("\u3164", (Piece("U+3164", "invisible character U+3164"),)),
        ("", (Piece("no text", "no text"),)),
        # Spelling and pictures need their joiners.
        ("می\u200cخواهم", plain("می\u200cخواهم")),
        ("क्\u200dष", plain("क्\u200dष")),
        ("👩\u200d🚀 ❤\ufe0f", plain("👩\u200d🚀 ❤\ufe0f")),
        ("1\ufe0f\u20e3", plain("1\ufe0f\u20e3")),
        ("a\ufe0f", (Piece("a"), Piece("U+FE0F", "invisible character U+FE0F"))),
        ("a\u200db", (Piece("a"), Piece("ZWJ", "invisible character ZWJ"), Piece("b"))),
        ("e" + "\u0301" * 6, plain("e" + "\u0301" * 6)),
        ("e" + "\u0301" * 9, (Piece("e" + "\u0301" * 6), Piece("+3", "3 more combining marks"))),
        ("\u200b\u0301", (Piece("ZWSP", "invisible character ZWSP"), Piece("+1", "1 more combining marks"))),
        ("שלום 50%", plain("שלום 50%")),
    ],
)  # fmt: skip
def test_what_hides_is_shown_and_what_spells_is_left(text: str, pieces: tuple[Piece, ...]) -> None:
    assert visible(text, 700) == pieces


def test_a_long_ad_is_cut_and_says_so() -> None:
    assert visible("x" * 700, 700) == (Piece("x" * 700),)
    cut, mark, rest = visible("x" * 5000, 700)
    assert cut == Piece("x" * 700)
    assert mark == Piece("…", "4,300 more characters")
    assert rest == Piece(" 4,300 more characters")


ANY = st.text(st.characters(), max_size=60) | st.lists(st.sampled_from(HOSTILE)).map("".join)


@given(ANY)
def test_no_piece_holds_what_steers_or_hides(text: str) -> None:
    pieces = visible(text, limit=200)
    assert pieces
    for piece in pieces:
        assert piece.text
        for place, char in enumerate(piece.text):
            category = unicodedata.category(char)
            if char in "\u200c\u200d\ufe0e\ufe0f":
                assert place > 0 and not piece.spoken, "only ever in a word or a picture"
            else:
                # Python's tables are older than those that the code goes by.
                assert category not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") or char in "\n\t"
                assert category != "Cn" or regex.match(r"\P{C}", char)
    # Nothing visible is lost.
    visible_part = [c for c in text[:200] if unicodedata.category(c)[0] in "LNPS" and c.isascii()]
    shown = iter("".join(piece.text for piece in pieces if not piece.spoken))
    assert all(char in shown for char in visible_part)


@given(ANY)
def test_nothing_invisible_is_printed(text: str) -> None:
    shown = printable(text, limit=40)
    assert len(shown) <= 40
    for place, char in enumerate(shown):
        if char in "\u200c\u200d\ufe0e\ufe0f":
            assert place > 0, "only ever in a word or a picture"
        else:
            assert unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def test_escapes_are_printed() -> None:
    assert printable("a\x1b[31mred\u202egnp") == "a\\u001b[31mred\\u202egnp"
    assert printable("line\n one\ttwo") == "line one two"
    assert printable("x" * 10, limit=5) == "xxxx…"
    assert printable("a\u200db \u3164 \U000e0041") == "a\\u200db \\u3164 \\ue0041"
    # What a page leaves alone, a terminal shows as well.
    assert printable("👩\u200d🚀 می\u200cخواهم") == "👩\u200d🚀 می\u200cخواهم"
    assert printable("e" + "\u0301" * 8) == "e" + "\u0301" * 6 + "\\u0301\\u0301"
