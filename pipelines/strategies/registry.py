"""The selection strategies by name: another one is a file beside this and a line here."""

from __future__ import annotations

import contextlib
import difflib
import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipelines.errors import UsageError

if TYPE_CHECKING:
    # Strategies bring scikit-learn along: their names must be known at once.
    from pipelines.strategies.base import Strategy

_STRATEGIES: dict[str, str | type[Strategy]] = {
    "boundary": "pipelines.strategies.boundary:Boundary",
    "uncertainty": "pipelines.strategies.uncertainty:Uncertainty",
    "random": "pipelines.strategies.random:Random",
    "exploration": "pipelines.strategies.exploration:Exploration",
}


def names() -> tuple[str, ...]:
    """Return the names that ``selection.strategy`` may have."""
    return tuple(_STRATEGIES)


def check(name: str) -> None:
    """Refuse a name that no strategy has; nothing is loaded.

    Raises:
        UsageError: says which there are.
    """
    if name not in _STRATEGIES:
        near = difflib.get_close_matches(name, _STRATEGIES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(_STRATEGIES)}"
        raise UsageError(f"selection.strategy: no strategy {name!r}; {hint}")


def create(name: str) -> Strategy:
    """Return a strategy by its name; raises as :func:`check` does."""
    check(name)
    found = _STRATEGIES[name]
    if isinstance(found, str):
        module, _, attribute = found.partition(":")
        found = getattr(importlib.import_module(module), attribute)
    return found()


@contextlib.contextmanager
def registered(strategy: type[Strategy]) -> Iterator[None]:
    """Know a strategy of one's own, by its name, while the body runs.

    Raises:
        ValueError: the name is taken.
    """
    if strategy.name in _STRATEGIES:
        raise ValueError(f"a strategy {strategy.name!r} is registered already")
    _STRATEGIES[strategy.name] = strategy
    try:
        yield
    finally:
        del _STRATEGIES[strategy.name]
