"""What the tests of faults share: values that no file of ours holds, in each place of a document."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from models.backends.base import BackendError
from models.trained import TrainedModelError
from pipelines.errors import RunFailed, UsageError

ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**30,
    float("nan"),
    "",
    "\ud800",
    "x" * 3000,
    [],
    [None],
    [[{}]],
    {},
    {"": None},
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of a document's every value, its own first."""
    yield path
    if isinstance(value, dict):
        for name in value:
            yield from places(value[name], (*path, name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from places(item, (*path, number))


def put(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of a document with another value in a place."""
    if not path:
        return value
    found = copy.deepcopy(document)
    holder = found
    for part in path[:-1]:
        holder = holder[part]
    holder[path[-1]] = value
    return found


def odd_forms(document: Any) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    """Yield path, value and the document with it, for every odd value in every place, and for none there."""
    for path in places(document):
        for value in ODD:
            yield path, value, put(document, path, value)
        if path:
            found = put(document, path, None)
            holder = found
            for part in path[:-1]:
                holder = holder[part]
            del holder[path[-1]]
            yield path, "left out", found


def refusal(call: Callable[[], object]) -> str:
    """Return how a call is refused, in one line; "" where it is not. Whatever is not foreseen goes through."""
    try:
        call()
    except (RunFailed, UsageError, BackendError, TrainedModelError) as error:
        told = str(getattr(error, "message", None) or error)
        assert told and "\n" not in told
        return told
    return ""
