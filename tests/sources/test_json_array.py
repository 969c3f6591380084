"""An array read in a stream: every item, no more of it in memory than one."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import RunFailed
from pipelines.sources.json_array import Item, items

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def read(text: str, limit: int = 1 << 20) -> list[Item]:
    return list(items(io.BytesIO(text.encode()), "a.json", limit))


@given(st.lists(JSON, max_size=6))
def test_items_are_those_of_the_array(values: list[Any]) -> None:
    # Half a surrogate pair is no text of UTF-8; ids and texts with one are refused elsewhere.
    found = read(json.dumps(values, ensure_ascii=False).encode("utf-8", "replace").decode())
    assert [item.number for item in found] == list(range(1, len(values) + 1))
    assert not [item for item in found if item.reason]
    assert [item.value for item in found] == json.loads(
        json.dumps(values, ensure_ascii=False).encode("utf-8", "replace")
    )


def test_bad_items_cost_themselves() -> None:
    deep = "[" * 150 + "]" * 150
    text = f'[{{"a": 1}}, {{"a": 1, "a": 2}}, {{"x": {{"b": 1, "b": 1}}}}, {deep}, ["{"x" * 300}", 1], 7]'
    found = read(text, limit=200)
    assert [(item.value, item.reason) for item in found] == [
        ({"a": 1}, ""),
        (None, "field_twice"),
        (None, "field_twice"),
        (None, "too_long"),
        (None, "too_long"),
        (7, ""),
    ]
    assert read(f"[{deep}]")[0].reason == "not_json"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}', "holds no JSON array; write an object a line"),
        ('[{"a": 1}, {"a": ', "is no JSON behind item 2 .*damaged or cut short"),
        ("[1, oops]", "is no JSON behind item 1"),
        ("[1]\n[2]\n", "is no JSON behind item 1 .*several arrays"),
        ("[1", "is no JSON behind item 1"),
        ("", "is no JSON behind item 0"),
    ],
)
def test_what_is_no_array_is_named(text: str, message: str) -> None:
    with pytest.raises(RunFailed, match=f"a.json: {message}"):
        read(text)


class _Endless(io.RawIOBase):
    """An array, ever longer."""

    def __init__(self, first: bytes, more: bytes, bytes_: int) -> None:
        self._first, self._more, self._left = first, more, bytes_
        self.read_bytes = 0

    def read(self, size: int = -1) -> bytes:
        if not size:
            return b""
        piece, self._first = self._first or self._more, b""
        self._left -= len(piece)
        self.read_bytes += len(piece)
        return piece if self._left > 0 else b""


def test_a_value_without_end_is_not_held() -> None:
    source = _Endless(b'[{"a": "', b"x" * (1 << 16), 1 << 30)
    with pytest.raises(
        RunFailed, match="item 1: a value is longer than 1,048,576 bytes; write an obj"
    ):
        list(items(source, "a.json", 1 << 20))  # type: ignore[arg-type]
    assert source.read_bytes < 4 << 20


def test_an_item_without_end_is_not_held() -> None:
    source = _Endless(b"[[1", b",1" * (1 << 15), 1 << 20)

    def consume() -> Iterator[Item]:
        yield from items(source, "a.json", 1 << 14)  # type: ignore[arg-type]

    tracemalloc.start()
    with pytest.raises(RunFailed, match="is no JSON behind item 1"):
        list(consume())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Half a million numbers.
    assert peak < 8 << 20
