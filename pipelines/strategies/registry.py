"""The selection strategies by name: another one is a file beside this and a line here."""

from __future__ import annotations

import difflib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from models.registry import Registry
from pipelines.errors import UsageError

if TYPE_CHECKING:
    # Strategies bring scikit-learn along: their names must be known at once.
    from pipelines.strategies.base import Strategy

_STRATEGIES: Registry[type[Strategy]] = Registry(
    "strategy",
    {
        "boundary": "pipelines.strategies.boundary:Boundary",
        "uncertainty": "pipelines.strategies.uncertainty:Uncertainty",
        "random": "pipelines.strategies.random:Random",
        "exploration": "pipelines.strategies.exploration:Exploration",
    },
)


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
    return _STRATEGIES.get(name)()


def registered(strategy: type[Strategy]) -> AbstractContextManager[None]:
    """Know a strategy of one's own, by its name, while the body runs.

    Raises:
        ValueError: the name is taken.
    """
    return _STRATEGIES.registered(strategy.name, strategy)
