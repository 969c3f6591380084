"""Registries: loaded late, in order, and as before once a member of one's own has left."""

from __future__ import annotations

import sys
from fractions import Fraction

import pytest

from models.registry import Registry

MEMBERS = {"late": "colorsys:rgb_to_hls", "one": "fractions:Fraction"}


def test_nothing_is_imported_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    known: Registry[object] = Registry("number", MEMBERS)
    assert list(known) == ["late", "one"] and "one" in known and "two" not in known
    assert "colorsys" not in sys.modules
    assert callable(known.get("late")) and "colorsys" in sys.modules
    with pytest.raises(KeyError, match="two"):
        known.get("two")


def test_a_member_is_a_class_or_one_instance() -> None:
    assert Registry("number", MEMBERS).get("one") is Fraction
    made: Registry[object] = Registry("number", MEMBERS, instances=True)
    assert made.get("one") == Fraction() and made.get("one") is made.get("one")


def test_a_member_of_ones_own_leaves_also_after_an_error() -> None:
    known: Registry[object] = Registry("number", MEMBERS)

    def fail() -> None:
        with known.registered("two", 2):
            assert known.get("two") == 2 and list(known)[-1] == "two"
            raise RuntimeError("of the body")

    with pytest.raises(RuntimeError, match="of the body"):
        fail()
    assert "two" not in known
    with (
        pytest.raises(ValueError, match="there is a number 'one' already"),
        known.registered("one", 1),
    ):
        raise AssertionError("must not be reached")
