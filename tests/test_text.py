"""What counts as the same ad."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text import content_id, content_key, digest, is_blank, normalize_text


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Big SALE", "big sale"),
        ("a  b\t\nc ", "a b c"),
        ("ＦＵＬＬ width", "full width"),
        ("ﬁne", "fine"),
        ("STRASSE", "straße"),
        ("e\u0301", "é"),
        ("a\u00a0b\u2003c", "a b c"),
        ("①", "1"),
    ],
)
def test_these_are_copies(left: str, right: str) -> None:
    assert content_key(left) == content_key(right)


@pytest.mark.parametrize(("left", "right"), [("free", "fr ee"), ("5 €", "6 €"), ("a.", "a")])
def test_these_are_not_copies(left: str, right: str) -> None:
    assert content_key(left) != content_key(right)


@given(st.text())
def test_normalising_is_idempotent_and_blind_to_composition(text: str) -> None:
    once = normalize_text(text)
    assert normalize_text(once) == once
    assert normalize_text(unicodedata.normalize("NFD", text)) == once


@pytest.mark.parametrize("text", ["", " ", "\u200b\u200d", "\u202e \ufeff", "\x00\x07"])
def test_nothing_visible_is_blank(text: str) -> None:
    assert is_blank(text)


def test_keys_and_ids_are_stable() -> None:
    # Stored in every workspace: they must never change.
    key = content_key("Hello  World")
    assert key == "e9a804b2e527fd3601d2ffc0bb023cd6"
    assert content_id(key) == "ad_e9a804b2e527fd3601d2"
    assert digest("a") == "27c35e6e9373877f29e562464e46497e"
    assert digest("a") != digest("A")
