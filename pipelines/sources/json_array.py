"""A JSON array read in a stream: its items one after the other, none held longer than it takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import ijson
from ijson.common import ObjectBuilder

from pipelines.errors import RunFailed

_BUFFER_BYTES = 1 << 16
# Deeper values are refused: what shows them, or walks down in them, does so by recursion.
_MAX_DEPTH = 100
# What a number or a bracket counts towards an item's size.
_LEAST_BYTES = 8


class Item(NamedTuple):
    """An item of the array.

    Attributes:
        number: its place, from 1.
        value: what it is; None where there is a reason.
        reason: why it cannot be used, a dead letter's reason code, or "".
        detail: the same as a sentence.
    """

    number: int
    value: Any
    reason: str = ""
    detail: str = ""


class _Bounded:
    """A file that is read until a single value has taken too many bytes."""

    def __init__(self, source: BinaryIO, limit: int) -> None:
        self._source, self._limit = source, limit
        self.since_value = 0

    def read(self, size: int = -1) -> bytes:
        if self.since_value > self._limit + 2 * _BUFFER_BYTES:
            raise _TooLong
        data = self._source.read(size)
        self.since_value += len(data)
        return data


class _TooLong(Exception):
    pass


def items(source: BinaryIO, name: str, limit: int) -> Iterator[Item]:
    """Yield the items of an array.

    Args:
        source: UTF-8.
        name: of the file, for errors.
        limit: bytes; a longer item is refused without being held. One string or number that is longer
            ends the reading.

    Raises:
        RunFailed: it is no array, or stops being JSON.
    """
    bounded = _Bounded(source, limit)
    number = depth = size = 0
    refused: tuple[str, str] | None = None
    builder, names = ObjectBuilder(), list[set[str]]()
    try:
        for event, value in ijson.basic_parse(bounded, use_float=True, buf_size=_BUFFER_BYTES):
            bounded.since_value = 0
            if not depth:
                if event != "start_array":
                    raise RunFailed(
                        f"{name}: holds no JSON array; write an object a line (`jq -c . {name} > ads.jsonl`)"
                    )
                depth = 1
                continue
            opening = event in ("start_map", "start_array")
            if depth == 1 and event == "end_array":
                continue
            if depth == 1:
                number, size, refused = number + 1, 0, None
                builder, names = ObjectBuilder(), []
            depth += opening
            size += len(value) if isinstance(value, str) else _LEAST_BYTES
            if not refused:
                refused = _refusal(event, value, names)
                if size > limit:
                    refused = "too_long", f"the item is longer than {limit:,} bytes"
                elif depth > _MAX_DEPTH:
                    refused = "not_json", f"the item is nested deeper than {_MAX_DEPTH}"
                if refused:
                    builder = ObjectBuilder()
                else:
                    builder.event(event, value)
            depth -= event in ("end_map", "end_array")
            if depth == 1 and event != "map_key":
                yield Item(number, None, *refused) if refused else Item(number, builder.value)
    except _TooLong:
        raise RunFailed(
            f"{name}: item {number + (depth == 1)}: a value is longer than {limit:,} bytes; write an object "
            f"a line (`jq -c '.[]' {name} > ads.jsonl`), where such a line is left out alone"
        ) from None
    except ijson.JSONError as error:
        last = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunFailed(
            f"{name}: is no JSON behind item {number} ({last}); the file is damaged or cut short, or holds "
            f"several arrays; with an object a line (`jq -c '.[]' {name} > ads.jsonl`) only bad lines are lost"
        ) from error


def _refusal(event: str, value: Any, names: list[set[str]]) -> tuple[str, str] | None:
    """Keep the names of open objects; -> why an object that names a field twice is refused."""
    if event == "start_map":
        names.append(set())
    elif event == "end_map":
        names.pop()
    elif event == "map_key":
        if value in names[-1]:
            return "field_twice", f"a field is given twice: {value[:60]!r}"
        names[-1].add(value)
    return None
