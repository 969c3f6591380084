"""What is printed: hostile text cannot steer a terminal."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from pipelines.console.summary import printable, stage_seconds


@given(st.text(max_size=300))
def test_nothing_invisible_is_printed(text: str) -> None:
    shown = printable(text)
    assert len(shown) <= 200
    assert not [
        char
        for char in shown
        if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char != "\u200d"
    ]


def test_escapes_are_shown() -> None:
    assert printable("a\x1b[31mred\u202egnp") == "a\\u001b[31mred\\u202egnp"
    assert printable("line\n one\ttwo") == "line one two"
    assert printable("x" * 10, limit=5) == "xxxx…"


def test_stage_seconds() -> None:
    assert stage_seconds({"ReadAds/msec": 1500, "ReadAds/records": 3}) == {"ReadAds": 1.5}
